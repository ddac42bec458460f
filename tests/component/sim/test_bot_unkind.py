"""The bot's stand-in where it is unkind: to TCP, to WebSocket, to whoever reads its messages."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import time
import wave
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from eslbot.sim.audio import heard
from eslbot.sim.bot import GOODBYE, GREETING, Bot
from tests.component.sim.bot_client import join, until


@pytest.fixture
def bot() -> Iterator[Bot]:
    with Bot() as bot:
        yield bot


# -- to TCP ------------------------------------------------------------------------------------------------


def raw(bot: Bot, behaviour: str) -> socket.socket:
    """A client that does no more than the upgrade."""
    sock = socket.create_connection((bot.host, bot.port), 5)
    sock.sendall(
        f"GET /{behaviour} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    return sock


def read_until(sock: socket.socket, wanted: bytes) -> bytes:
    got = b""
    while wanted not in got:
        got += sock.recv(65536) or pytest.fail(f"the end, before {wanted!r}: {got[-200:]!r}")
    return got


def stays_open(sock: socket.socket, seconds: float) -> bool:
    sock.settimeout(seconds)
    try:
        return sock.recv(1) != b""
    except TimeoutError:
        return True
    finally:
        sock.settimeout(5)


CLOSE_1000, ANSWER = bytes([0x88, 0x02, 0x03, 0xE8]), bytes([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8])


def test_a_close_frame_that_leaves_tcp_open(bot: Bot) -> None:
    with raw(bot, "close?keep_tcp=1&greeting_ms=20") as sock:
        read_until(sock, bytes([0x88]))
        sock.sendall(ANSWER)
        assert stays_open(sock, 2.5), "longer than the library waits for the end of TCP"
        bot.let_go()
        assert sock.recv(1) == b""


def test_an_answered_close_frame_that_leaves_tcp_open(bot: Bot) -> None:
    with raw(bot, "hold?keep_tcp=1&greeting_ms=20") as sock:
        read_until(sock, b"streamAudio")
        sock.sendall(ANSWER)
        read_until(sock, CLOSE_1000)
        assert stays_open(sock, 2.5)


@pytest.mark.parametrize("status", [403, 500])
def test_a_refusal_that_leaves_tcp_open(bot: Bot, status: int) -> None:
    with raw(bot, f"reject?keep_tcp=1&status={status}") as sock:
        assert f"HTTP/1.1 {status} ".encode() in read_until(sock, b"not you\n")
        assert stays_open(sock, 2.5)


def test_a_bot_that_ends_its_side_of_tcp_and_listens(bot: Bot) -> None:
    with raw(bot, "half-closed?greeting_ms=20") as sock:
        read_until(sock, b"streamAudio")
        while sock.recv(65536):
            pass
        sock.sendall(bytes([0x82, 0x84, 0, 0, 0, 0]) + b"\1\2\3\4")
        bot.calls[0].wait(lambda call: call.audio_bytes == 4)


def test_a_bot_that_neither_reads_nor_closes(bot: Bot) -> None:
    frame = bytes([0x82, 0xFE, 0x01, 0x40, 0, 0, 0, 0]) + bytes(320)
    with raw(bot, "frozen?greeting_ms=20") as sock:
        read_until(sock, b"streamAudio")
        sock.setblocking(False)
        sent, still = 0, time.monotonic()
        while time.monotonic() - still < 0.3 and sent < 200 << 20:
            try:
                sent += sock.send(frame * 100)
                still = time.monotonic()
            except BlockingIOError:
                time.sleep(0.01)
        assert sent < 200 << 20, "what the kernel holds, and no more"
        assert bot.calls[0].audio_frames == 0
        bot.calls[0].abort()


def test_a_flood_and_an_end(bot: Bot) -> None:
    with join(bot, "flood?greeting_ms=20&count=50&size=100") as ws:
        kinds = []
        while not kinds or kinds[-1] != "end":
            kinds.append(json.loads(ws.recv(timeout=5))["type"])
        assert kinds == ["streamAudio"] + ["nonsense"] * 50 + ["end"]


def test_one_text_that_is_too_long(bot: Bot) -> None:
    options = {"proxy": None, "compression": None, "max_queue": None, "max_size": None}
    with connect(bot.url("oversized?greeting_ms=20&goodbye_ms=20&listen_ms=0"), **options) as ws:
        texts = [ws.recv(timeout=5) for _ in range(4)]
        assert [json.loads(text)["type"] for text in texts] == [
            "streamAudio",
            "nonsense",
            "streamAudio",
            "end",
        ]
        assert len(texts[1]) > 5 << 20


# -- to WebSocket ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("query", "size"), [("", 2**64 - 1), ("&size=2147483648", 1 << 31)])
def test_a_header_that_announces_more_than_there_is(bot: Bot, query: str, size: int) -> None:
    with raw(bot, f"huge-header?greeting_ms=20&follow=131072{query}") as sock:
        announced = b"\x82\x7f" + struct.pack(">Q", size)
        got = read_until(sock, announced).partition(announced)[2]
        while len(got) < 131_072:
            got += sock.recv(65536)
        assert got == bytes(131_072)


def test_what_is_no_frame(bot: Bot) -> None:
    with join(bot, "bad-frames?greeting_ms=20") as ws:
        assert json.loads(ws.recv(timeout=5))["type"] == "streamAudio"
        with pytest.raises(ConnectionClosedError):
            ws.recv(timeout=5)
        assert ws.protocol.close_sent is not None and ws.protocol.close_sent.code == 1002


def test_a_bot_that_reads_nothing_and_speaks_all_the_same(bot: Bot) -> None:
    with raw(bot, "talk?unread=1&greeting_ms=40&chunk_ms=20") as sock:
        read_until(sock, b"streamAudio")
        sock.sendall(bytes([0x82, 0x84, 0, 0, 0, 0]) + b"\1\2\3\4")
        read_until(sock, b"streamAudio")
        assert bot.calls[0].audio_frames == 0
        bot.calls[0].abort()


# -- to whoever reads its messages -------------------------------------------------------------------------


def speech_of(text: str | bytes) -> bytes:
    return base64.b64decode(json.loads(text)["data"]["audioData"])


@pytest.mark.parametrize("query", ["", "&format=binary"])
def test_messages_that_end_within_a_sample(bot: Bot, query: str) -> None:
    with join(bot, f"odd-bytes?greeting_ms=100&listen_ms=0&goodbye_ms=20{query}") as ws:
        chunks = [ws.recv(timeout=5) for _ in range(5)]
        said = b"".join(chunk if query else speech_of(chunk) for chunk in chunks)
        assert len(said) == 1600 and heard(said, GREETING) == pytest.approx(0.1)
        assert {len(chunk if query else speech_of(chunk)) % 2 for chunk in chunks[:4]} == {1}


def test_wav_with_the_sizes_of_a_streaming_encoder(bot: Bot) -> None:
    with join(bot, "wav-placeholder?greeting_ms=80&listen_ms=0&goodbye_ms=20") as ws:
        files = [speech_of(ws.recv(timeout=5)) for _ in range(2)]
        for file, size in zip(files, (0, 0xFFFFFFFF), strict=True):
            assert struct.unpack_from("<I", file, 4) == struct.unpack_from("<I", file, 40) == (size,)
            assert file[:4] + file[8:16] == b"RIFFWAVEfmt "
            assert heard(file[44:], GREETING) == pytest.approx(0.04)
        assert until(ws, "end")[1]["reason"] == "done"


def read(file: bytes) -> bytes:
    with wave.open(io.BytesIO(file)) as reader:
        assert reader.getframerate()
        frames = reader.readframes(reader.getnframes())
        assert frames
        return frames


def test_audio_that_is_none_then_it_talks(bot: Bot) -> None:
    with join(bot, "unusable-audio?greeting_ms=20&listen_ms=0&goodbye_ms=40") as ws:
        data = []
        while (message := json.loads(ws.recv(timeout=5)))["type"] != "end":
            data.append(message["data"])
    assert heard(base64.b64decode(data[-1]["audioData"]), GOODBYE) == pytest.approx(0.04)
    hostile = data[:-2]
    assert {"", None} <= {part["audioData"] for part in hostile}
    assert {0, 44100, -8000, 2**70, "8000", None} <= {part["sampleRate"] for part in hostile}
    for part in hostile:
        if part["audioDataType"] == "wav":
            with pytest.raises((wave.Error, EOFError, AssertionError)):  # no file of this is a good one
                read(base64.b64decode(part["audioData"]))


def test_more_speech_than_anybody_hears(bot: Bot) -> None:
    with join(bot, "speech-flood?seconds=30") as ws:
        begun = time.monotonic()
        said, _ = until(ws, "end")
        assert time.monotonic() - begun < 15
    assert len(said) == 30 * 16000


def test_more_marks_than_anybody_needs(bot: Bot) -> None:
    with join(bot, "mark-flood?greeting_ms=20&count=500") as ws:
        kinds = []
        while not kinds or kinds[-1] != "end":
            kinds.append(json.loads(ws.recv(timeout=5))["type"])
    assert kinds == ["streamAudio"] + ["mark"] * 500 + ["end"]


def test_speech_in_which_there_is_nothing_to_hear(bot: Bot) -> None:
    with join(bot, "zeros?seconds=1&burst=1") as ws:
        said, _ = until(ws, "end")
    assert said == bytes(16000)
