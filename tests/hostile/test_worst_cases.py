"""What a peer can do most of with few bytes: each kept the event loop for longer than it may, or could."""

from __future__ import annotations

import json

import pytest
from structlog.testing import capture_logs

from eslbot.esl.connection import READ_BYTES
from eslbot.esl.gone import ConnectionLost
from eslbot.esl.session import Session
from tests.hostile.drive import STALL, drive
from tests.hostile.parsers import PARSERS, FakeSocket

DEEP = 900


def event(body: bytes) -> bytes:
    inner = b"Event-Name: CUSTOM\nEvent-Subclass: mod_audio_stream::json\n\n" + body
    return b"Content-Length: %d\nContent-Type: text/event-plain\n\n" % len(inner) + inner


def repeated(piece: bytes, size: int = READ_BYTES) -> bytes:
    return piece * (size // len(piece))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("esl session", repeated(b"a\n\n")),
        ("esl session", repeated(b"\n")),
        ("esl session", repeated(b"Content-Type: api/response\n\n")),
        ("esl session", repeated(b"Content-Type: text/event-plain\n\n")),
        ("esl session", repeated(event(b""))),
        ("esl session", repeated(b"Content-Type: text/disconnect-notice\nContent-Disposition: linger\n\n")),
        ("esl session", repeated(b"Content-Type: text/rude-rejection\n\n")),
        ("esl frames", b"x: " + b"%41" * 80_000 + b"\n\n"),
        ("esl frames", b"x: " + b"%3" * 120_000 + b"\n\n"),
        ("esl frames", b"x: " + b"%" * 250_000 + b"\n\n"),
        ("esl frames", b"x: " + b"%41a" * 60_000 + b"\n\n"),
        ("esl frames", repeated(b"a:\n", 250_000) + b"\n"),
        ("invite", repeated(b"a:%41\n", 250_000)),
        (
            "bot message",
            b'{"type":"end","properties":{' + b",".join(b'"%d":0' % n for n in range(20_000)) + b"}}",
        ),
        ("bot message", b'{"type":"streamAudio","data":{"audioDataType":[' + b"[]," * 80_000 + b"[]]}}"),
        ("bot message", b'{"type":"streamAudio","data":{"sampleRate":' + b"[" * DEEP + b"]" * DEEP + b"}}"),
        ("bot message", b'{"event":"media","media":{"payload":"' + b"A" * 4_000_000 + b'"}}'),
        ("bot audio", b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 100_000),
        ("mod_audio_stream's JSON", b'{"message":{"reason":[' + b"[]," * 80_000 + b"[]]}}"),
        ("mod_audio_stream's JSON", b'{"message":{"reason":' + b"[" * DEEP + b"]" * DEEP + b"}}"),
        ("mod_audio_stream's JSON", b"[" * 4_000_000),
        ("page request", b"/\n\n" + b"a=" * 4000 + b'"\n'),
        ("page request", b"/\n" + b"a=" * 1000 + b"\n\n" + b"a=" * 2000),
        ("channel notes", b"variable_eslbot_outcome: bot_ended\nvariable_eslbot_properties: " + b"[" * 5000),
    ],
)
def test_nobody_waits_for_it(name: str, content: bytes) -> None:
    (parser,) = (parser for parser in PARSERS if parser.name == name)
    outcome = drive(parser, content)
    if outcome.fault is not None:
        raise outcome.fault
    assert outcome.step < STALL, f"{outcome.step * 1000:.0f} ms"


def test_frames_that_nobody_asked_for_are_told_once_and_end_the_session() -> None:
    """They filled the log, a line each, seven thousand a read."""
    session = Session(("127.0.0.1", 1), FakeSocket(iter((b"hello: you\n\n" * 1000,))))  # type: ignore[arg-type]
    with capture_logs() as lines:
        session.receive_events()
    assert [line["event"] for line in lines] == ["esl_unknown_frame"]
    assert isinstance(session.reason, ConnectionLost)
    assert "over 100 frames that nobody asked for" in str(session.reason)
    session.stop()


def test_a_few_strange_frames_end_nothing() -> None:
    strange = b"Content-Type: log/data\nContent-Length: 5\n\nhello" * 100
    session = Session(("127.0.0.1", 1), FakeSocket(iter((strange, b"Content-Type: command/reply\n\n" * 0))))  # type: ignore[arg-type]
    session.receive_events()
    assert session.reason is None
    session.stop()


def test_the_deepest_document_that_is_read_is_told_of_without_a_fault() -> None:
    """The interpreter's bound for what is nested is met at another depth by who reads and by who shows."""
    message = next(parser for parser in PARSERS if parser.name == "bot message")
    module = next(parser for parser in PARSERS if parser.name == "mod_audio_stream's JSON")
    for depth in range(880, 1010):
        nested = b"[" * depth + b"]" * depth
        for parser, content in (
            (message, b'{"type":"streamAudio","data":{"audioDataType":' + nested + b"}}"),
            (message, b'{"type":"end","properties":{"a":' + nested + b"}}"),
            (module, b'{"message":{"reason":' + nested + b"}}"),
        ):
            outcome = drive(parser, content)
            if outcome.fault is not None:
                outcome.fault.add_note(f"depth {depth} of {json.dumps(content[:60].decode())}")
                raise outcome.fault
