"""Our own protocol, version 1, as ``docs/bot-protocol.md`` and ``protocol.schema.json`` publish it.

Binary messages are L16, texts are JSON objects with a ``type``. Additive: what is published stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eslbot.relay.protocols import texts
from eslbot.relay.protocols.base import (
    BadMessage,
    CallerSpeech,
    Clear,
    End,
    Mark,
    Message,
    Protocol,
    Speech,
    Wish,
)
from eslbot.relay.protocols.texts import compact, printable, shown

VERSION = "1"

MAX_PROPERTIES = 64
MAX_REASON = 200
MAX_MARK_NAME = 128
#: Hz; beyond any that is meant.
_MAX_RATE = 1_000_000


class Eslbot(Protocol):
    """A bot that was written for eslbot."""

    def start(self, *, resumed: bool) -> Sequence[Message]:
        """``start``."""
        message = {
            "type": "start",
            "version": VERSION,
            "call_id": self.invite.call_id,
            "workspace_id": self.invite.workspace_id,
            "did": self.invite.did,
            "crt_object_id": self.invite.crt_object_id,
            "from": self.invite.caller,
            "to": self.invite.to,
            "audio": {"encoding": "l16", "sample_rate": self.rate, "channels": 1},
        }
        if self.trace:
            message["traceparent"] = self.trace
        return (compact({**message, "resumed": True} if resumed else message),)

    def audio(self, linear: bytes, at: float) -> Message:
        """A binary message."""
        return linear

    def read(self, message: Message) -> Sequence[Wish]:
        """What the bot wants; binary messages are speech at the caller's rate. Raises :class:`BadMessage`."""
        if isinstance(message, bytes):
            if len(message) > texts.MAX_AUDIO_BYTES:
                raise BadMessage("oversized", f"{len(message)} bytes; {texts.MAX_AUDIO_BYTES} are taken")
            return (Speech(message, "raw", self.rate),)
        document, lifted = texts.read(message, "audioData")
        match document.get("type"):
            case "streamAudio":
                return (_speech(document, lifted),)
            case "clear":
                return (Clear(),)
            case "mark":
                return (_mark(document),)
            case "end":
                return (_end(document),)
            case "caller_speech":
                return (_caller_speech(document),)
            case "resumed":  # bots of the first release answer ours; ours asks for nothing any more
                return ()
            case other:
                raise BadMessage("unknown_type", f"type {shown(other)}")

    def key(self, digit: str, milliseconds: int) -> Sequence[Message]:
        """``dtmf``."""
        return (compact({"type": "dtmf", "digit": digit, "duration_ms": milliseconds}),)

    def hold(self, on: bool) -> Sequence[Message]:
        """``hold``."""
        return (compact({"type": "hold", "on": on}),)

    def mark(self, name: str, *, cleared: bool) -> Sequence[Message]:
        """``mark``."""
        return (compact({"type": "mark", "name": name, **({"cleared": True} if cleared else {})}),)

    def cleared(self) -> Sequence[Message]:
        """``cleared``."""
        return (compact({"type": "cleared"}),)

    def error(self, code: str, text: str) -> Sequence[Message]:
        """``error``."""
        return (compact({"type": "error", "code": code, "message": text}),)

    def stop(self, reason: str) -> Sequence[Message]:
        """``stop``."""
        return (compact({"type": "stop", "reason": reason}),)


def _speech(document: Mapping[str, Any], lifted: str | None) -> Speech:
    data = document.get("data")
    if not isinstance(data, dict):
        raise BadMessage("unusable_audio", "streamAudio without data")
    content = texts.audio(lifted or data.get("audioData"), "audioData")
    kind, rate = data.get("audioDataType"), data.get("sampleRate", 0)
    if not isinstance(kind, str):
        raise BadMessage("unusable_audio", f"audioDataType is {shown(kind)}")
    if not isinstance(rate, int | float) or not 0 <= rate <= _MAX_RATE or rate != int(rate):
        raise BadMessage("unusable_audio", f"sampleRate is {shown(rate)}")
    return Speech(content, kind, int(rate))


def _mark(document: Mapping[str, Any]) -> Mark:
    name = document.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_MARK_NAME:
        raise BadMessage("bad_mark", f"a mark's name is a text of 1 to {MAX_MARK_NAME} characters")
    return Mark(name)


def _end(document: Mapping[str, Any]) -> End:
    # A bot that is finished is finished: bad details are dropped, the hand-off is not.
    properties = document.get("properties")
    if not isinstance(properties, dict) or len(properties) > MAX_PROPERTIES:
        properties = {}
    reason = document.get("reason")
    return End(properties, printable(reason, MAX_REASON) if isinstance(reason, str) else "")


def _caller_speech(document: Mapping[str, Any]) -> CallerSpeech:
    speaking = document.get("speaking")
    if not isinstance(speaking, bool):
        raise BadMessage("bad_caller_speech", "speaking is true or false")
    return CallerSpeech(speaking)
