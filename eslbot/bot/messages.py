"""The messages between us and a bot (DESIGN section 4, ``docs/bot-protocol.md``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eslbot.invite import Invite

VERSION = "1"

#: A message of the bot's is a few fields; more is a mistake or an attack. (Speech comes as files.)
MAX_MESSAGE_BYTES = 256 * 1024
MAX_PROPERTIES = 64
MAX_REASON = 200


class BadMessage(Exception):
    """A message that cannot be used: ``args[0]`` is a fixed word for the metric."""


@dataclass(frozen=True, slots=True)
class End:
    """``end``: the bot is finished."""

    properties: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


def parse(text: bytes) -> End:
    """What the bot said. Raises :class:`BadMessage` with ``oversized``, ``bad_json``, ``unknown_type`` …"""
    if len(text) > MAX_MESSAGE_BYTES:
        raise BadMessage("oversized")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadMessage("bad_json") from error
    if not isinstance(message, dict):
        raise BadMessage("not_an_object")
    match message.get("type"):
        case "end":
            return _end(message)
        case "streamAudio":  # mod_audio_stream hands a usable one over as a file
            raise BadMessage("unusable_audio")
        case _:
            raise BadMessage("unknown_type")


def printable(text: str, most: int = MAX_REASON) -> str:
    """The beginning of a bot's own word, fit for a log line and a channel variable."""
    return "".join(character if character.isprintable() else " " for character in text[:most])


def _end(message: Mapping[str, Any]) -> End:
    # A bot that is finished is finished: bad details are dropped, the hand-off is not.
    properties = message.get("properties")
    if not isinstance(properties, dict) or len(properties) > MAX_PROPERTIES:
        properties = {}
    reason = message.get("reason")
    return End(properties, printable(reason) if isinstance(reason, str) else "")


def start(invite: Invite, sample_rate: int) -> str:
    """``start``, sent once the socket is up."""
    return json.dumps(
        {
            "type": "start",
            "version": VERSION,
            "call_id": invite.call_id,
            "workspace_id": invite.workspace_id,
            "did": invite.did,
            "crt_object_id": invite.crt_object_id,
            "from": invite.caller,
            "to": invite.to,
            "audio": {"encoding": "l16", "sample_rate": sample_rate, "channels": 1},
        },
        separators=(",", ":"),
    )


def stop(reason: str) -> str:
    """``stop``, best effort, before the socket closes."""
    return json.dumps({"type": "stop", "reason": reason}, separators=(",", ":"))


def identity(invite: Invite, own: Mapping[str, str]) -> str:
    """The headers of the WebSocket upgrade as ``STREAM_EXTRA_HEADERS`` wants them: a JSON object.

    The module's start metadata was measured to get lost once in about 400 starts; headers never were.
    """
    return json.dumps(
        {
            **own,
            "X-Call-ID": invite.call_id,
            "X-Workspace-ID": invite.workspace_id,
            "X-DID": invite.did,
            "X-CRT-Object-ID": invite.crt_object_id,
        },
        separators=(",", ":"),
    )
