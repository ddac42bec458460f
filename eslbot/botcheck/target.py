"""The bot that is checked, configured as for a workspace, and how long it is waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from marshmallow import ValidationError

from eslbot.caller.invite import Invite
from eslbot.config.loader import resolved
from eslbot.config.model import Bot, ConfigError, Workspace
from eslbot.config.schemas.table import INSECURE
from eslbot.config.schemas.workspace import BotSchema
from eslbot.config.urls import shown

#: Who calls, where no workspace says so.
WORKSPACE, DID, CALLER, CALLED = "00000000-0000-4000-8000-000000000000", "00919990152080", "0401234567", "bot"


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds.

    Attributes:
        call: the longest one call may last.
        hush: without a sound of the bot's, behind which it is the caller's turn.
        answer: that a bot has for an answer, to a sentence of the caller's or to a message.
        settle: behind something unusual, in which a bot that cannot take it breaks.
        silence: that the caller says nothing.
        listens: that the caller hears the bot before it breaks in, or the connection breaks.
        held: that a hold lasts.
        pause: without any audio, as when FreeSWITCH dies and comes back.
        close: that a bot has to end TCP behind a close.
    """

    call: float = 30.0
    hush: float = 0.8
    answer: float = 5.0
    settle: float = 1.5
    silence: float = 6.0
    listens: float = 0.3
    held: float = 1.0
    pause: float = 3.0
    close: float = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """One bot.

    ``properties``: the names that its ``end`` may use; None where nobody has said which. ``says``: what the
    caller says, L16 at 8,000 Hz.
    """

    bot: Bot
    workspace_id: str
    properties: tuple[str, ...] | None
    says: bytes

    @property
    def shown(self) -> str:
        """The URL for people."""
        return ", ".join(shown(url) for url in self.bot.urls)

    def invite(self, *, crt_object_id: str = "", caller: str = CALLER, to: str = CALLED) -> Invite:
        """Another call."""
        call_id = str(uuid4())
        return Invite(
            call_id=call_id,
            did=DID,
            crt_object_id=crt_object_id or f"check-{call_id[:8]}",
            workspace_id=self.workspace_id,
            source_ip="127.0.0.1",
            caller=caller,
            to=to,
        )


def of_url(url: str, keys: Mapping[str, Any], headers: Sequence[tuple[str, str]], says: bytes) -> Target:
    """A bot that no configuration names; ``keys`` as in a workspace's table ``bot``.

    ``${NAME}`` and ``${file:/path}`` in a header's value are taken from the environment and from the file.
    Raises ConfigError with every problem.
    """
    table: dict[str, Any] = {
        "url": url,
        "headers": {name: resolved(f"--header {name}", value) for name, value in headers},
        "insecure": _is_here(url),
        **keys,
    }
    try:
        bot: Bot = BotSchema().load(table)
    except ValidationError as error:
        raise ConfigError(list(_problems(error.messages_dict))) from error
    return Target(bot, WORKSPACE, None, says)


def of_workspace(workspace: Workspace, says: bytes) -> Target:
    """The bot of a configured workspace."""
    return Target(workspace.bot, workspace.id, workspace.ameyo.bot_properties, says)


def _is_here(url: str) -> bool:
    """Whether a URL is of this host, where nobody can listen on the way."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


#: What a key of the table is called on the command line.
_OPTIONS = {
    "url": "URL",
    "sample_rate": "--rate",
    "headers": "--header",
    "first_audio_timeout": "--first-audio-timeout",
    "connect_timeout": "--connect-timeout",
    "protocol": "--protocol",
}


def _problems(messages: Mapping[Any, Any], place: str = "") -> Sequence[str]:
    found: list[str] = []
    for key, message in messages.items():
        where = f"{place} {key}" if place else _OPTIONS.get(str(key), str(key))
        if isinstance(message, Mapping):
            found += _problems(message, where)
        else:
            found += [f"{where}: {one}".replace(INSECURE, "say --insecure") for one in message]
    return found
