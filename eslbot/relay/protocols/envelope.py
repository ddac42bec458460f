"""What Twilio's, Exotel's and Plivo's protocols have in common: texts with an ``event``, which are numbered.

Audio is base64 in both directions; nothing is binary. A bot is finished when it closes, with 1000 or without
a code (as ``ws.close()`` of Node does it). There is no ``stop`` from a bot in what their owners publish, but
bots send it, and it can mean nothing else.
"""

from __future__ import annotations

from abc import abstractmethod
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from uuid import uuid4

from eslbot.audio import g711
from eslbot.caller.invite import Invite
from eslbot.config.model import Bot
from eslbot.relay.protocols import texts
from eslbot.relay.protocols.base import BadMessage, Clear, End, Mark, Message, Protocol, Speech, Wish

MAX_MARK_NAME = 1024
#: Close codes of a bot that is finished; 1005 stands for none (RFC 6455, 7.4.1).
FINISHED = (1000, 1005)


class Envelope(Protocol):
    """One connection; ``stream`` is its id and differs from that of an earlier one of the call."""

    #: Events of the bot's.
    SPEECH: ClassVar[str] = "media"
    CLEAR: ClassVar[str] = "clear"
    MARK: ClassVar[str] = "mark"

    def __init__(self, invite: Invite, bot: Bot, trace: str) -> None:
        super().__init__(invite, bot, trace)
        self.stream = uuid4()
        self._number = self._chunk = 0

    def ends_with(self, code: int) -> bool:
        """Whether it is :data:`FINISHED`."""
        return code in FINISHED

    def read(self, message: Message) -> Sequence[Wish]:
        """What the bot wants; an unknown ``event`` is a :class:`BadMessage`."""
        if not isinstance(message, str):
            raise BadMessage("binary", "a binary message; this protocol has texts only")
        document, lifted = texts.read(message, "payload")
        event = document.get("event")
        if event == self.SPEECH:
            media = document.get("media")
            if not isinstance(media, dict):
                raise BadMessage("unusable_audio", f"{self.SPEECH} without media")
            return (self.speech(media, texts.audio(lifted or media.get("payload"), "payload")),)
        if event == self.CLEAR:
            return (Clear(),)
        if event == self.MARK:
            return (Mark(self._name(document)),)
        if event == "stop":
            return (End(closed=True),)
        raise BadMessage("unknown_type", f"event {texts.shown(event)}")

    @abstractmethod
    def speech(self, media: Mapping[str, Any], audio: bytes) -> Speech:
        """What a bot's ``media`` is, given the bytes of its ``payload``."""

    def mark_of(self, document: Mapping[str, Any]) -> object:
        """Where a mark's name stands; it may be missing."""
        mark = document.get("mark")
        return mark.get("name", "") if isinstance(mark, dict) else ""

    def _name(self, document: Mapping[str, Any]) -> str:
        name = self.mark_of(document)
        if not isinstance(name, str) or len(name) > MAX_MARK_NAME:
            raise BadMessage("bad_mark", f"a mark's name is a text of at most {MAX_MARK_NAME} characters")
        return name

    def number(self) -> int:
        """That of the next message, from 1 on."""
        self._number += 1
        return self._number

    def chunk(self) -> int:
        """That of the next piece of the caller's audio, from 1 on."""
        self._chunk += 1
        return self._chunk

    def identity(self, *, resumed: bool) -> dict[str, str]:
        """Who is calling, as a tenant's own parameters; the last two by the names that Pipecat looks for."""
        return {
            "call_id": self.invite.call_id,
            "workspace_id": self.invite.workspace_id,
            "did": self.invite.did,
            "crt_object_id": self.invite.crt_object_id,
            "from": self.invite.caller,
            "to": self.invite.to,
            "from_number": self.invite.caller,
            "to_number": self.invite.did,
            **({"resumed": "true"} if resumed else {}),
        }


def base64(audio: bytes) -> str:
    """``audio`` as base64."""
    return b64encode(audio).decode("ascii")


def mulaw(linear: bytes) -> str:
    """L16 at 8,000 Hz as base64 of µ-law."""
    return base64(g711.encode(g711.PCMU, linear))


def sid(prefix: str, uuid: object) -> str:
    """An id as Twilio's and Exotel's look: two letters and 32 hexadecimal digits."""
    return prefix + "".join(character for character in str(uuid) if character.isalnum())
