"""The messages between us and a bot (DESIGN section 4, ``docs/bot-protocol.md``)."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from eslbot import redaction
from eslbot.invite import Invite

VERSION = "1"

#: A message of the bot's is a few fields; more is a mistake or an attack. (Speech comes as files.)
MAX_MESSAGE_BYTES = 256 * 1024
#: Bytes from which on a message may hold enough to keep the garbage collector busy.
LONG = 16 * 1024
MAX_PROPERTIES = 64
MAX_REASON = 200
MAX_MARK_NAME = 128


class BadMessage(Exception):
    """A message that cannot be used: ``args[0]`` is a fixed word for the metric."""


@dataclass(frozen=True, slots=True)
class End:
    """``end``: the bot is finished."""

    properties: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Clear:
    """``clear``: barge-in."""


@dataclass(frozen=True, slots=True)
class Mark:
    """``mark``: tell me when the caller has heard everything up to here."""

    name: str


@dataclass(frozen=True, slots=True)
class Resumed:
    """``resumed``: the bot's answer to ours; it is there, and repeats what may have been lost."""


@dataclass(frozen=True, slots=True)
class CallerSpeech:
    """``caller_speech``: the bot hears the caller begin to speak, or stop; for the call's timeline."""

    speaking: bool


@dataclass(frozen=True, slots=True)
class UnusableSpeech:
    """A ``streamAudio`` that mod_audio_stream could not use and handed on as it was."""

    kind: str
    rate: str


Message = End | Clear | Mark | Resumed | CallerSpeech | UnusableSpeech


def parse(text: bytes) -> Message:
    """What the bot said. Raises :class:`BadMessage` with ``oversized``, ``bad_json``, ``unknown_type`` …"""
    if len(text) > MAX_MESSAGE_BYTES:
        raise BadMessage("oversized")
    try:
        with _uncollected() if len(text) > LONG else nullcontext():
            message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadMessage("bad_json") from error
    if not isinstance(message, dict):
        raise BadMessage("not_an_object")
    match message.get("type"):
        case "end":
            return _end(message)
        case "clear":
            return Clear()
        case "mark":
            return _mark(message)
        case "resumed":
            return Resumed()
        case "caller_speech":
            return _caller_speech(message)
        case "streamAudio":  # a usable one comes as a file
            data = message.get("data")
            data = data if isinstance(data, dict) else {}
            return UnusableSpeech(_shown(data.get("audioDataType")), _shown(data.get("sampleRate")))
        case _:
            raise BadMessage("unknown_type")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector: tens of thousands of lists would have it look at all that there is."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def is_end(text: bytes) -> bool:
    """Whether it is an ``end``."""
    try:
        return isinstance(parse(text), End)
    except BadMessage:
        return False


def printable(text: str, most: int = MAX_REASON) -> str:
    """The beginning of a bot's own word, without secrets, fit for a log line and a channel variable."""
    told = redaction.beginning(text, most)
    return "".join(character if character.isprintable() else " " for character in told)


def _shown(value: object) -> str:
    """A value of the bot's in a few characters; one that holds others is not spelt out, which takes long."""
    if isinstance(value, dict | list):
        return f"a {type(value).__name__}"
    return printable(repr(value[:30] if isinstance(value, str) else value), 30)


def _end(message: Mapping[str, Any]) -> End:
    # A bot that is finished is finished: bad details are dropped, the hand-off is not.
    properties = message.get("properties")
    if not isinstance(properties, dict) or len(properties) > MAX_PROPERTIES:
        properties = {}
    reason = message.get("reason")
    return End(properties, printable(reason) if isinstance(reason, str) else "")


def _mark(message: Mapping[str, Any]) -> Mark:
    name = message.get("name")
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_MARK_NAME:
        raise BadMessage("bad_mark")
    return Mark(name)


def _caller_speech(message: Mapping[str, Any]) -> CallerSpeech:
    speaking = message.get("speaking")
    if not isinstance(speaking, bool):
        raise BadMessage("bad_caller_speech")
    return CallerSpeech(speaking)


def start(invite: Invite, sample_rate: int, *, resumed: bool = False) -> str:
    """``start``, sent once the socket is up; ``resumed`` when the stream continues an old call."""
    return _compact(
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
            **({"resumed": True} if resumed else {}),
        }
    )


def stop(reason: str) -> str:
    """``stop``, best effort, before the socket closes."""
    return _compact({"type": "stop", "reason": reason})


def dtmf(digit: str, duration_ms: int) -> str:
    """``dtmf``: the caller pressed a key."""
    return _compact({"type": "dtmf", "digit": digit, "duration_ms": duration_ms})


def mark(name: str, *, cleared: bool) -> str:
    """``mark``: heard, or dropped by a ``clear``."""
    return _compact({"type": "mark", "name": name, **({"cleared": True} if cleared else {})})


def cleared() -> str:
    """``cleared``: playback was flushed."""
    return _compact({"type": "cleared"})


def hold(on: bool) -> str:
    """``hold``: the PBX has put the caller on hold, or taken them off it."""
    return _compact({"type": "hold", "on": on})


def resumed() -> str:
    """``resumed``: control of the call has moved to another worker, the stream went on."""
    return _compact({"type": "resumed"})


def error(code: str, text: str) -> str:
    """``error``: a message of the bot's was not used; once a call for each ``code``."""
    return _compact({"type": "error", "code": code, "message": text})


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def identity(invite: Invite, own: Mapping[str, str]) -> str:
    """The headers of the WebSocket upgrade as ``STREAM_EXTRA_HEADERS`` wants them: a JSON object.

    The module's start metadata was measured to get lost once in about 400 starts; headers never were.
    """
    return _compact(
        {
            **own,
            "X-Call-ID": invite.call_id,
            "X-Workspace-ID": invite.workspace_id,
            "X-DID": invite.did,
            "X-CRT-Object-ID": invite.crt_object_id,
        }
    )
