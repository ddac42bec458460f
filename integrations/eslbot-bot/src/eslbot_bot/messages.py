"""The protocol's texts, read and written; nothing in here knows of sockets.

What is unknown or broken is None: the protocol is additive, and a message that nobody understands never ends
a call.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

from eslbot_bot.events import Cleared, Dtmf, Error, Hold, Mark, Start, Stop

RATES = (8000, 16000, 24000)
MAX_PROPERTIES = 64
MAX_REASON = 200
MAX_MARK_NAME = 128

#: What a property may be.
Value = str | int | float | bool | None


# -- read -------------------------------------------------------------------------------------------------


def read(text: str) -> Mapping[str, Any] | None:
    """The object of a text; None where it is none."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def start(message: Mapping[str, Any]) -> Start | None:
    """What ``start`` says; None where it names no call, or no rate that is known."""
    call_id = _text(message, "call_id")
    audio = message.get("audio")
    rate = audio.get("sample_rate") if isinstance(audio, dict) else None
    if not call_id or rate not in RATES:
        return None
    return Start(
        call_id,
        _text(message, "workspace_id"),
        _text(message, "did"),
        _text(message, "crt_object_id"),
        _text(message, "from"),
        _text(message, "to"),
        int(rate),
        _text(message, "traceparent"),
        message.get("resumed") is True,
    )


def event(message: Mapping[str, Any]) -> Dtmf | Mark | Cleared | Hold | Error | Stop | None:
    """Any other message to the bot; None where it is not known, or has not what it must have."""
    match message:
        case {"type": "dtmf", "digit": str(digit)}:
            milliseconds = message.get("duration_ms")
            return Dtmf(digit, milliseconds if isinstance(milliseconds, int) else 0)
        case {"type": "mark", "name": str(name)}:
            return Mark(name, message.get("cleared") is True)
        case {"type": "cleared"}:
            return Cleared()
        case {"type": "hold", "on": bool(on)}:
            return Hold(on)
        case {"type": "error"}:
            return Error(_text(message, "code"), _text(message, "message"))
        case {"type": "stop"}:
            return Stop(_text(message, "reason"))
    return None


def _text(message: Mapping[str, Any], name: str) -> str:
    value = message.get(name)
    return value if isinstance(value, str) else ""


# -- written ----------------------------------------------------------------------------------------------


def speech(l16: bytes, rate: int) -> str:
    """L16 at a rate that is not the call's."""
    data = {"audioDataType": "raw", "sampleRate": rate, "audioData": b64encode(l16).decode()}
    return _compact({"type": "streamAudio", "data": data})


def clear() -> str:
    """Barge-in."""
    return _compact({"type": "clear"})


def mark(name: str) -> str:
    """Ask when the caller has heard everything up to here."""
    return _compact({"type": "mark", "name": name})


def end(properties: Mapping[str, Value], reason: str) -> str:
    """The bot is finished. Raises ValueError or TypeError for what eslbot would not take."""
    if len(properties) > MAX_PROPERTIES:
        raise ValueError(f"{len(properties)} properties; eslbot takes {MAX_PROPERTIES} and else none of them")
    for name, value in properties.items():
        if not isinstance(name, str):
            raise TypeError(f"the property {name!r} has a name that is no text")
        if not (value is None or isinstance(value, str | bool | int | float)):
            raise TypeError(
                f"the property {name!r} is a {type(value).__name__}; take a text, a number, a bool or None"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"the property {name!r} is {value}, which JSON does not have")
    return _compact({"type": "end", "properties": dict(properties), "reason": reason[:MAX_REASON]})


def caller_speech(speaking: bool) -> str:
    """The bot hears the caller begin, or stop."""
    return _compact({"type": "caller_speech", "speaking": speaking})


def resumed() -> str:
    """The answer to ``resumed``."""
    return _compact({"type": "resumed"})


def _compact(message: Mapping[str, Any]) -> str:
    return json.dumps(message, separators=(",", ":"))
