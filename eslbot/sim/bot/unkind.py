"""What bad bots do: failing, flooding, breaking the protocol, TCP or WebSocket."""

from __future__ import annotations

import json
import struct
from typing import Any

from eslbot.sim.audio import tone
from eslbot.sim.bot.behaviours import GREETING, Behaviour, farewell, greet, talk
from eslbot.sim.bot.call import HOLD_LIMIT, BotCall
from eslbot.sim.bot.pace import Pace
from eslbot.sim.bot.wires import stream_audio, stream_audio_of

#: Bytes of a chunk in which a flood is sent.
FLOOD_CHUNK = 64 * 1024


def error_close(call: BotCall) -> None:
    """Greet, listen if that is asked for, and close with 1011."""
    greet(call)
    call.listen(call.number("listen_ms", 0) / 1000)
    call.close(1011, "the model is gone")


def abort(call: BotCall) -> None:
    """Greet and drop TCP."""
    greet(call)
    call.abort()
    call.part()


def junk(call: BotCall) -> None:
    """What is no message, then talk."""
    good = stream_audio(tone(GREETING, 0.1, call.rate), "raw", call.rate)
    call.send_text('{"type": "streamAudio", ')
    call.send_text("not even close")
    call.send_text("[1, 2, 3]")
    call.send_text("null")
    call.send({"no": "type"})
    call.send({"type": 7})
    call.send({"type": "weather", "sunny": True})
    call.send({"type": "weather", "report": "x" * 70_000})
    call.send({"type": "streamAudio"})
    call.send({"type": "streamAudio", "data": good["data"] | {"audioData": "%%% not base64 %%%"}})
    call.send({"type": "streamAudio", "data": good["data"] | {"audioDataType": "opus"}})
    call.send({"type": "mark", "name": {"not": "text"}})
    talk(call)


def wav_bytes(l16: bytes, rate: int, *, riff: int, data: int, between: bytes = b"") -> bytes:
    """A WAV file whose two sizes are what they are said to be; ``between`` stands before its data."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", riff, b"WAVE")
        + form
        + between
        + struct.pack("<4sI", b"data", data)
        + l16
    )


def wav_placeholder(call: BotCall) -> None:
    """A greeting in WAV whose sizes a streaming encoder never filled in: 0 and FFFFFFFF."""
    half = tone(GREETING, call.number("greeting_ms", 600) / 2000, call.rate)
    for size in 0, 0xFFFFFFFF:
        call.send(stream_audio_of(wav_bytes(half, call.rate, riff=size, data=size), "wav", call.rate))
    call.listen(call.number("listen_ms", 500) / 1000)
    farewell(call)


def unusable_audio(call: BotCall) -> None:
    """Audio that is none: empty, odd, cut off, broken LIST chunks, foreign rates; then talk."""
    l16 = tone(GREETING, 0.1, call.rate)
    whole = wav_bytes(l16, call.rate, riff=36 + len(l16), data=len(l16))
    broken_list = struct.pack("<4sI", b"LIST", 0xFFFFFFF0) + b"INFO"
    for data, kind, rate in [
        (b"", "raw", call.rate),
        (b"", "wav", call.rate),
        (b"", "pcmu", 8000),
        (b"\0", "raw", call.rate),
        (whole[:20], "wav", call.rate),
        (whole[:44], "wav", call.rate),
        (whole.replace(b"data", b"tada"), "wav", call.rate),
        (wav_bytes(l16, call.rate, riff=0, data=len(l16), between=broken_list), "wav", call.rate),
        (wav_bytes(l16, 0, riff=0, data=len(l16)), "wav", call.rate),
        (b"RIFF" * 100, "wav", call.rate),
        (l16, "raw", 0),
        (l16, "raw", 44100),
        (l16, "raw", -8000),
        (l16, "raw", 2**70),
    ]:
        call.send(stream_audio_of(data, kind, rate))
    good = stream_audio(l16, "raw", call.rate)["data"]
    wrong: list[tuple[str, Any]] = [("sampleRate", "8000"), ("sampleRate", None), ("audioData", None)]
    for key, value in [*wrong, ("audioDataType", [])]:
        call.send({"type": "streamAudio", "data": good | {key: value}})
    talk(call)


def odd_bytes(call: BotCall) -> None:
    """A greeting whose messages are cut in the middle of samples; then as ``/talk``."""
    speech = tone(GREETING, call.number("greeting_ms", 600) / 1000, call.rate)
    for start in range(0, len(speech), 321):
        if call.format == "binary":
            call.send_binary(speech[start : start + 321])
        else:
            call.send(stream_audio_of(speech[start : start + 321], "raw", call.rate))
    call.listen(call.number("listen_ms", 500) / 1000)
    farewell(call)


def properties_hostile(call: BotCall) -> None:
    """End with properties that nobody wants."""
    greet(call)
    call.end(
        {
            "agent_group": {"nested": ["deep", {"deeper": None}]},
            "summary": "long " * 20_000,
            "not_listed": "must not reach Ameyo",
            "uniqueId": "somebody-else",
            "": "no name",
            "number": 1e308,
            "line\nbreak": "a\r\nb\x00c",
        },
        reason="hostile",
    )
    call.part()


def half_closed(call: BotCall) -> None:
    """Greet, end one side of TCP, read on."""
    greet(call)
    call.half_close()
    call.part(HOLD_LIMIT)


def frozen(call: BotCall) -> None:
    """Greet; nothing is read, see :class:`~eslbot.sim.bot.sockets.Frozen`."""
    greet(call)
    call.part(HOLD_LIMIT)


def flood(call: BotCall) -> None:
    """Texts that mean nothing, as fast as they go, and ``end``."""
    greet(call)
    text = json.dumps({"type": "nonsense", "padding": "x" * call.number("size", 2000)})
    for _ in range(call.number("count", 3000)):
        call.send_text(text)
    call.end()
    call.part()


def speech_flood(call: BotCall) -> None:
    """More speech than anybody listens to, as fast as it goes, and ``end``."""
    call.speak(tone(GREETING, 1.0, call.rate) * call.number("seconds", 700), Pace(1000, burst=True))
    call.end()
    call.part()


def mark_flood(call: BotCall) -> None:
    """A greeting at once, more marks than anybody needs, and ``end``."""
    call.speak(tone(GREETING, call.number("greeting_ms", 600) / 1000, call.rate), Pace(1000, burst=True))
    for number in range(call.number("count", 20_000)):
        call.mark(f"mark {number}")
    call.end()
    call.part()


def oversized(call: BotCall) -> None:
    """One text that is too long, then as ``/talk``."""
    greet(call)
    call.send({"type": "nonsense", "padding": "x" * call.number("size", 5 * 1024 * 1024)})
    call.listen(call.number("listen_ms", 500) / 1000)
    farewell(call)


def huge_header(call: BotCall) -> None:
    """Greet, then the header of a binary frame of ``size`` bytes, of which ``follow`` come."""
    greet(call)
    call.send_raw(b"\x82\x7f" + struct.pack(">Q", call.number("size", 2**64 - 1)))
    for _ in range(call.number("follow", 0) // FLOOD_CHUNK):
        call.send_raw(bytes(FLOOD_CHUNK))
    call.part(HOLD_LIMIT)


def bad_frames(call: BotCall) -> None:
    """Greet, then what is no WebSocket frame."""
    greet(call)
    call.send_raw(b"\xff" * 64)
    call.part(HOLD_LIMIT)


UNKIND: dict[str, Behaviour] = {
    "error-close": error_close,
    "abort": abort,
    "junk": junk,
    "unusable-audio": unusable_audio,
    "odd-bytes": odd_bytes,
    "wav-placeholder": wav_placeholder,
    "properties-hostile": properties_hostile,
    "half-closed": half_closed,
    "frozen": frozen,
    "flood": flood,
    "speech-flood": speech_flood,
    "mark-flood": mark_flood,
    "oversized": oversized,
    "huge-header": huge_header,
    "bad-frames": bad_frames,
}
