"""The wire without sockets: any chunking, any bytes, and bounds."""

from __future__ import annotations

import time
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.esl.errors import ProtocolError
from eslbot.esl.events import Event
from eslbot.esl.frames import (
    ABSURD_BYTES,
    KEPT_BYTES,
    MAX_BODY_BYTES,
    MAX_HEADER_BYTES,
    Frame,
    FrameReader,
    Headers,
    parse_headers,
    whole_number,
)
from tests.support import wire

names = st.text(st.sampled_from("ABCdef-_0"), min_size=1, max_size=12).filter(
    lambda name: name not in ("Content-Length", "Content-Type")
)
values = st.text(st.characters(codec="utf-8", exclude_characters="\0%")).map(str.strip).filter(bool)
headers = st.dictionaries(names, values, max_size=6)
bodies = st.binary(max_size=200)


def raw(found: dict[str, str], body: bytes) -> bytes:
    length = f"Content-Length: {len(body)}\n" if body else ""
    lines = "".join(f"{name}: {wire.url_encode(value)}\n" for name, value in found.items())
    return f"Content-Type: x\n{length}{lines}\n".encode() + body


def contents(frames: list[Frame]) -> list[tuple[dict[str, str], bytes]]:
    return [({n: v for n, v in f.headers.items() if not n.startswith("Content-")}, f.body) for f in frames]


@given(st.lists(st.tuples(headers, bodies), max_size=5), st.data())
def test_any_chunking_of_a_stream_gives_the_same_frames(
    parts: list[tuple[dict[str, str], bytes]], data: st.DataObject
) -> None:
    stream = b"".join(raw(found, body) for found, body in parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    reader = FrameReader()
    frames = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        frames += list(reader.feed(stream[start:end]))
    assert contents(frames) == parts


def test_a_byte_at_a_time() -> None:
    stream = wire.event({"Event-Name": "A"}, b"one\n\ntwo") + wire.reply() + b"\n" + wire.linger_notice()
    reader = FrameReader()
    frames = [frame for byte in stream for frame in reader.feed(bytes([byte]))]
    assert [frame.content_type for frame in frames] == [
        "text/event-plain",
        "command/reply",
        "text/disconnect-notice",
    ]
    assert Event.of(frames[0]).body == b"one\n\ntwo"


@given(st.lists(st.binary(max_size=60), max_size=20))
def test_any_bytes_are_frames_or_a_protocol_error(chunks: list[bytes]) -> None:
    reader = FrameReader()
    try:
        for chunk in chunks:
            for frame in reader.feed(chunk):
                Event.of(frame)
    except ProtocolError:
        pass


@given(headers, bodies)
def test_an_event_is_what_freeswitch_serialised(found: dict[str, str], body: bytes) -> None:
    (frame,) = FrameReader().feed(wire.event(found, body))
    event = Event.of(frame)
    assert event.body == body
    assert {n: v for n, v in event.headers.items() if n != "Content-Length"} == found


@given(names, st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_no_value_makes_a_header_of_its_own(name: str, value: str) -> None:
    """FreeSWITCH leaves ``%0A`` as it is: what a caller wrote so comes out as a line end, in its value."""
    block = f"{name}: {wire.url_encode(value)}\n".encode() + b"Unique-ID: real"
    assert set(parse_headers(block)) <= {name, "Unique-ID"}
    assert parse_headers(block)["Unique-ID"] == "real" or name == "Unique-ID"


@given(st.lists(st.tuples(names, values), max_size=6), names)
def test_a_header_is_the_same_however_it_is_looked_for(lines: list[tuple[str, str]], other: str) -> None:
    block = b"\n" + b"".join(f"{name}: {wire.url_encode(value)}\n".encode() for name, value in lines)
    every = parse_headers(block)
    for name in (*every, other):
        assert Headers(block).get(name) == Headers(block).index().get(name) == every.get(name)
        assert (name in Headers(block).index()) == (name in every)
    assert dict(Headers(block).index()) == every


def test_of_equal_names_the_first_counts() -> None:
    assert parse_headers(b"A: 1\nA: 2\nB:3\nnonsense\n: x") == {"A": "1", "B": "3", "": "x"}


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    assert parse_headers(b"A: x\xffy\nB: %ff%fe") == {"A": "x�y", "B": "��"}


@pytest.mark.parametrize("length", ["-1", "x", "1e3", "9" * 19, "٣", "0x10", " 1 2"])
def test_a_length_that_is_none_is_an_error(length: str) -> None:
    with pytest.raises(ProtocolError, match="Content-Length is"):
        list(FrameReader().feed(f"Content-Length: {length}\n\n".encode()))


def test_an_event_must_hold_what_it_announces() -> None:
    inner = b"Event-Name: A\nContent-Length: 50\n\nshort"
    (frame,) = FrameReader().feed(
        b"Content-Type: text/event-plain\nContent-Length: %d\n\n" % len(inner) + inner
    )
    with pytest.raises(ProtocolError, match="announces a body of 50 bytes and carries 5"):
        Event.of(frame)


def feed_for_ever(reader: FrameReader, chunk: bytes, most: int) -> int:
    """How many bytes a reader takes before it has enough."""
    fed = 0
    while fed <= most + 10 * len(chunk):
        list(reader.feed(chunk))
        fed += len(chunk)
    return fed


@pytest.mark.parametrize("chunk", [b"A: " + b"x" * 65533, b"x" * 65536, b"A: 1\n" * 10000])
def test_a_header_block_without_end_is_an_error(chunk: bytes) -> None:
    with pytest.raises(ProtocolError, match="header block is over"):
        feed_for_ever(FrameReader(), chunk, MAX_HEADER_BYTES)


def test_a_header_block_that_is_too_long_is_an_error_in_one_piece_too() -> None:
    with pytest.raises(ProtocolError, match="header block is over"):
        list(FrameReader().feed(b"A: " + b"x" * MAX_HEADER_BYTES + b"\n\n"))
    (frame,) = FrameReader().feed(b"A: " + b"x" * (MAX_HEADER_BYTES - 3) + b"\n\n")
    assert len(frame.headers["A"]) == MAX_HEADER_BYTES - 3


def test_an_absurd_length_is_refused_before_anything_of_it_comes() -> None:
    with pytest.raises(ProtocolError, match=r"a body of \d+ bytes is over"):
        list(FrameReader().feed(b"Content-Length: %d\n\n" % (ABSURD_BYTES + 1)))
    assert list(FrameReader().feed(b"Content-Length: %d\n\n" % ABSURD_BYTES)) == []


def test_a_body_at_the_bound_is_kept() -> None:
    reader = FrameReader()
    assert list(reader.feed(b"Content-Length: %d\n\n" % MAX_BODY_BYTES)) == []
    (frame,) = reader.feed(b"x" * MAX_BODY_BYTES)
    assert (len(frame.body), frame.oversized) == (MAX_BODY_BYTES, 0)


@pytest.mark.parametrize("chunk", [65536, 1_000_003, 64 << 20])
def test_a_body_beyond_the_bound_is_skipped_and_what_follows_is_read(chunk: int) -> None:
    reader, size = FrameReader(), MAX_BODY_BYTES + 1
    text = wire.event({"Event-Name": "CUSTOM", "Event-Subclass": "a::b"}, b"x" * size)
    wire_bytes = text + wire.reply("+OK next")
    frames = []
    for start in range(0, len(wire_bytes), chunk):
        frames += reader.feed(wire_bytes[start : start + chunk])
        assert reader.held <= KEPT_BYTES + 65536 or chunk > 65536, "it is not collected"
    long, reply = frames
    assert (long.oversized > size, len(long.body)) == (True, KEPT_BYTES)
    event = Event.of(long)
    assert (event.name, event.body, event.oversized) == ("a::b", b"", size)
    assert Event.of(reply).data == "+OK next"


@pytest.mark.slow
def test_a_long_event_whose_headers_do_not_end_is_an_error() -> None:
    for size in (MAX_HEADER_BYTES + 1, MAX_BODY_BYTES + 1):
        (frame,) = FrameReader().feed(
            b"Content-Type: text/event-plain\nContent-Length: %d\n\n" % size
            + b"\n".join([b"A: b"] * size)[:size]
        )
        with pytest.raises(ProtocolError, match="do not end"):
            Event.of(frame)


def test_empty_lines_between_frames_are_nothing() -> None:
    frames = list(FrameReader().feed(b"\n\n\n" + wire.reply() + b"\n\n" + wire.reply()))
    assert [frame.content_type for frame in frames] == ["command/reply", "command/reply"]


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ({"Event-Name": "CHANNEL_ANSWER"}, "CHANNEL_ANSWER"),
        ({"Event-Name": "CUSTOM", "Event-Subclass": "mod_audio_stream::json"}, "mod_audio_stream::json"),
        ({"Event-Name": "CUSTOM"}, ""),
        ({}, ""),
    ],
)
def test_names_of_events(found: dict[str, str], name: str) -> None:
    assert Event(found).name == name


@pytest.mark.parametrize("text", wire.NO_NUMBERS)
def test_a_number_that_is_none(text: str) -> None:
    assert (whole_number(text), whole_number(text, -1)) == (0, -1)
    assert Event({"Event-Date-Timestamp": text}).age == 0.0


@pytest.mark.parametrize("text", ["0", "7", "007", "1700000060000000", "9" * 18])
def test_a_whole_number(text: str) -> None:
    assert whole_number(text, -1) == int(text)


def test_the_age_of_an_event() -> None:
    now = time.time()
    assert 5.0 <= Event({"Event-Date-Timestamp": f"{now * 1e6 - 5e6:.0f}"}).age < 65.0
    assert Event({"Event-Date-Timestamp": f"{now * 1e6 + 60e6:.0f}"}).age == 0.0, "of a clock that is ahead"


def test_data_is_the_body_or_the_reply() -> None:
    assert Event({"Reply-Text": " +OK x\n"}).data == "+OK x"
    assert Event({"Reply-Text": "+OK"}, b"a\xffb").data == "a�b"
    assert Event({}).data == ""


@given(
    st.lists(st.sampled_from(["%", "4", "1", "%C3", "%a9", "%E2%82%AC", "é", "x", "%zz", "%2", " "])).map(
        "".join
    )
)
def test_a_value_is_unquoted_as_python_does_it(text: str) -> None:
    (value,) = parse_headers(b"a:" + text.encode()).values()
    assert value == unquote(text.strip(), errors="replace")
