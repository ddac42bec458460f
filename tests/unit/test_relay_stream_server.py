"""The stream server: who comes in, whose call a stream is, and how streams end."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from eslbot.caller.identity import Signer
from eslbot.caller.invite import Invite
from eslbot.relay import control, stream_server
from eslbot.relay.control import Part
from eslbot.relay.stream_server import Call, Stream, StreamRefused, StreamServer
from eslbot.telemetry import metrics
from tests.unit.test_relay_dialler import frame

SIGNER = Signer([b"k" * 32])
INVITE = Invite("4f1a-call", "00919990152080", "CRT-1", "2b37ba17", "203.0.113.10", "caller", "called")
CORE = "7a2c9a3e-6d2f-4c5b-9f0e-3d1c2b4a5968"
SOON = 5.0


class Taken(Call):
    """Remembers what it is told; says back what it hears."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.stream: Stream | None = None
        self.gone = asyncio.Event()
        self.faulty = False
        self.laid: list[tuple[int, str]] = []

    def open_line(self, ptime: int, switch: str) -> None:
        self.laid.append((ptime, switch))

    def prepare(self) -> None:
        self.told.append(("prepare",))

    def stream_up(self, stream: Stream, part: Part) -> None:
        self.told.append(("up", part))
        self.stream = stream
        stream.send_text("state")

    def receive_audio(self, frame: bytes) -> None:
        if self.faulty:
            raise KeyError("ours")
        self.told.append(("heard", frame))

    def receive_order(self, text: str) -> None:
        self.told.append(("ordered", text))
        assert self.stream is not None
        self.stream.send_text(text)

    def stream_gone(self, clean: bool) -> None:
        self.told.append(("gone", clean))
        self.gone.set()

    def shutdown(self) -> None:
        raise AssertionError("nobody ends the relay")


class Server:
    """A stream server and its calls, in this process."""

    url = "ws://127.0.0.1:7/"

    def __init__(self) -> None:
        self.calls: dict[str, Taken] = {}
        self.streams: list[str] = []
        self.refuses: StreamRefused | None = None

    async def __aenter__(self) -> Server:
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        self.stream_server = StreamServer(SIGNER, self)
        self.server = await self.stream_server.open(listening)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()

    def find_or_make(self, invite: Invite) -> Call:
        if self.refuses is not None:
            raise self.refuses
        return self.calls.setdefault(invite.call_id, Taken())

    def has_stream(self, call_id: str) -> None:
        self.streams.append(call_id)

    @property
    def call(self) -> Taken:
        return self.calls[INVITE.call_id]

    async def ask(self, *lines: str, path: str = "/") -> Caller:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        request = [f"GET {path} HTTP/1.1", "Host: relay", *lines, "", ""]
        writer.write("\r\n".join(request).encode())
        return Caller(reader, writer)

    async def stream(self, part: str = "new", invite: Invite = INVITE) -> Caller:
        caller = await self.ask(*UPGRADE, *identity(invite), f"{control.PART}: {part}")
        assert b" 101 " in await caller.head()
        assert await caller.frame() == (1, b"state")
        return caller


UPGRADE = [
    *["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"],
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
]


def identity(invite: Invite = INVITE) -> list[str]:
    return [f"{control.CALL}: {invite.call_id}", f"{control.IDENTITY}: {SIGNER.sign(invite)}"]


class Caller:
    """The module's side of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), SOON)

    async def rest(self) -> bytes:
        return await asyncio.wait_for(self.reader.read(), SOON)

    async def frame(self) -> tuple[int, bytes]:
        first, size = await asyncio.wait_for(self.reader.readexactly(2), SOON)
        assert size < 126
        return first & 0xF, await self.reader.readexactly(size)

    def send(self, payload: bytes, opcode: int = 2, **how: Any) -> None:
        self.writer.write(frame(payload, opcode, masked=True, **how))

    async def synchronise(self) -> None:
        """Come back when the relay has read what was sent before."""
        self.send(b"here", 1)
        assert await self.frame() == (1, b"here")


def run(story: Callable[[Server], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), Server() as server:
            await story(server)

    asyncio.run(main())


def test_frames_and_texts_go_both_ways() -> None:
    async def story(server: Server) -> None:
        caller = await server.stream("under_way")
        caller.send(b"\1" * 320)
        caller.send(b"\xff\xfe", 1)
        assert await caller.frame() == (1, "��".encode())
        assert server.call.told == [("up", Part.UNDER_WAY), ("heard", b"\1" * 320), ("ordered", "��")]
        assert server.streams == [INVITE.call_id]

    run(story)


@pytest.mark.parametrize(
    ("lines", "path", "status", "why"),
    [
        ([], "/", 403, "no_identity"),
        (UPGRADE, "/", 403, "no_identity"),
        ([*UPGRADE, f"{control.CALL}: {INVITE.call_id}"], "/", 403, "no_identity"),
        ([*UPGRADE, *identity()[1:], f"{control.CALL}: other"], "/", 403, "no_identity"),
        ([*UPGRADE, *identity(), f"{control.CALL}: {INVITE.call_id}"], "/", 403, "no_identity"),
        ([*UPGRADE, *identity(), *identity()[1:]], "/", 403, "no_identity"),
        ([*UPGRADE, identity()[0], f"{control.IDENTITY}: é"], "/", 403, "no_identity"),
        ([*UPGRADE, *identity()], "/prepare/", 404, "bad_request"),
        ([*UPGRADE, *identity()], "/", 400, "bad_request"),
        ([*UPGRADE, *identity(), f"{control.PART}: old"], "/", 400, "bad_request"),
    ],
)
def test_who_may_not_come_in_is_refused_and_nothing_else_happens(
    lines: list[str], path: str, status: int, why: str
) -> None:
    async def story(server: Server) -> None:
        with capture_logs() as told:
            caller = await server.ask(*lines, path=path)
            assert f" {status} ".encode() in await caller.head()
            assert await caller.rest() == why.encode(), "and the connection is closed"
        (line,) = told
        assert (line["event"], line["why"], line["status"]) == ("stream_refused", why, status)
        assert line["remedy"]
        signed_for = [text.partition(": ")[2] for text in lines if text.startswith(control.CALL)]
        assert line["call_id"] in (*signed_for, ""), "which one it was, as far as it said so"
        assert not any(str(secret) in str(line) for secret in identity() if control.IDENTITY in str(secret))
        assert server.calls == {}

    run(story)


def test_every_refusal_has_a_remedy() -> None:
    assert {*stream_server.REMEDIES, "not_made"} == set(metrics.REFUSED_WHYS), "`line_not_made` has its own"


def test_what_a_refused_stream_says_of_its_call_is_bounded() -> None:
    async def story(server: Server) -> None:
        with capture_logs() as told:
            caller = await server.ask(*UPGRADE, f"{control.CALL}: ../{'x' * 100}", f"{control.IDENTITY}: y.z")
            assert b" 403 " in await caller.head()
        assert told[0]["call_id"] == ""

    run(story)


def test_a_call_id_that_is_no_file_name_is_nobodys_though_it_is_signed() -> None:
    async def story(server: Server) -> None:
        invite = Invite("../x", *("a",) * 6)
        caller = await server.ask(*UPGRADE, *identity(invite), f"{control.PART}: new")
        assert b" 403 " in await caller.head()

    run(story)


def test_a_call_that_the_worker_does_not_take_is_refused() -> None:
    async def story(server: Server) -> None:
        server.refuses = StreamRefused(503, "full")
        caller = await server.ask(*UPGRADE, *identity(), f"{control.PART}: new")
        assert b" 503 " in await caller.head()

    run(story)


@pytest.mark.parametrize(
    ("part", "heard", "known"),
    [
        ("under_way", "1", Part.HEARD),
        ("under_way", "yes", Part.UNDER_WAY),
        ("new", "1", Part.NEW),
        ("over", "1", Part.OVER),
    ],
)
def test_whether_the_bot_has_spoken_stands_in_a_header_of_its_own(part: str, heard: str, known: Part) -> None:
    async def story(server: Server) -> None:
        lines = [f"{control.PART}: {part}", f"{control.HEARD}: {heard}"]
        caller = await server.ask(*UPGRADE, *identity(INVITE), *lines)
        assert b" 101 " in await caller.head()
        await caller.frame()
        assert server.call.told == [("up", known)]

    run(story)


def test_prepare_makes_the_call_and_names_the_worker() -> None:
    async def story(server: Server) -> None:
        for lines in ([], UPGRADE):
            caller = await server.ask(*lines, *identity(), path="/prepare")
            assert b" 200 " in await caller.head()
            assert await caller.rest() == server.url.encode()
        assert server.call.told == [("prepare",), ("prepare",)]
        await server.stream()
        assert server.call.told[2:] == [("up", Part.NEW)]

    run(story)


def test_anybody_is_told_that_this_is_a_relay_and_nothing_else() -> None:
    async def story(server: Server) -> None:
        refused = [sample.value for sample in metrics.RELAY_REFUSED.collect()[0].samples]
        server.refuses = StreamRefused(503, "full")
        with capture_logs() as told:
            for lines in ([], UPGRADE, [*UPGRADE, *identity(), f"{control.PART}: new"]):
                caller = await server.ask(*lines, path=control.HEALTH)
                assert b" 200 " in await caller.head()
                assert await caller.rest() == control.HEALTHY
        assert told == []
        assert server.calls == {}
        assert [sample.value for sample in metrics.RELAY_REFUSED.collect()[0].samples] == refused

    run(story)


@pytest.mark.parametrize(
    ("payload", "clean"),
    [(struct.pack("!H", 1000) + b"bye", True), (struct.pack("!H", 1001), False), (b"", False)],
)
def test_a_close_frame_ends_the_stream_and_tcp_is_ended_by_us(payload: bytes, clean: bool) -> None:
    async def story(server: Server) -> None:
        caller = await server.stream()
        caller.send(payload, 8)
        caller.send(b"\1" * 320)
        assert await caller.frame() == (8, payload[:2] or struct.pack("!H", 1000))
        assert await caller.rest() == b""
        assert server.call.told == [("up", Part.NEW), ("gone", clean)]

    run(story)


@pytest.mark.parametrize("how", ["end", "reset", "protocol", "fragments"])
def test_a_connection_that_breaks_is_no_clean_end(how: str) -> None:
    async def story(server: Server) -> None:
        caller = await server.stream()
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            caller.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        if how == "protocol":
            caller.writer.write(b"\x82\x7f" + b"\xff" * 8)
        elif how == "fragments":
            caller.send(b"\1", fin=False)
        else:
            caller.writer.close()
        await asyncio.wait_for(server.call.gone.wait(), SOON)
        assert server.call.told == [("up", Part.NEW), ("gone", False)]

    run(story)


def test_a_second_stream_takes_the_call_from_the_first() -> None:
    async def story(server: Server) -> None:
        first = await server.stream()
        second = await server.stream("under_way")
        assert await first.frame() == (8, struct.pack("!H", 1012))
        first.send(b"\1" * 320)
        first.send(struct.pack("!H", 1000), 8)
        assert await first.rest() == b""
        await second.synchronise()
        assert server.call.told == [("up", Part.NEW), ("up", Part.UNDER_WAY), ("ordered", "here")]

    run(story)


def test_a_first_stream_that_answers_nothing_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_server, "CLOSE_TIMEOUT", 0.05)

    async def story(server: Server) -> None:
        first = await server.stream()
        await server.stream()
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            while True:
                await first.frame()

    run(story)


def test_a_call_ends_its_stream_and_hears_no_more_of_it() -> None:
    async def story(server: Server) -> None:
        caller = await server.stream()
        stream = server.call.stream
        assert stream is not None
        stream.close()
        stream.send_text("nobody hears it")
        assert await caller.frame() == (8, struct.pack("!H", 1000))
        caller.send(struct.pack("!H", 1000), 8)
        assert await caller.rest() == b""
        assert server.call.told == [("up", Part.NEW)]

    run(story)


def test_a_fault_in_a_call_is_told_once_and_ends_nothing() -> None:
    async def story(server: Server) -> None:
        caller = await server.stream()
        server.call.faulty = True
        with capture_logs() as told:
            for _ in range(5):
                caller.send(b"\1" * 320)
            await caller.synchronise()
        assert [line["event"] for line in told] == ["relay_call_failed"]

    run(story)


def test_a_freeswitch_that_reads_nothing_loses_its_stream() -> None:
    async def story(server: Server) -> None:
        await server.stream()
        assert server.call.stream is not None
        for _ in range(1000):
            server.call.stream.send_text("x" * 60_000)
            await asyncio.sleep(0)
            if server.call.gone.is_set():
                break
        assert server.call.told[-1] == ("gone", False)

    run(story)


# -- strangers --------------------------------------------------------------------------------------------


def test_nothing_more_is_written_to_a_stream_that_broke_in_the_same_turn(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def story(server: Server) -> None:
        caller = await server.stream()
        caller.writer.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        assert server.call.stream is not None
        for _ in range(100):  # as many marks may have been heard at once
            server.call.stream.send_text("mark")
        await asyncio.wait_for(server.call.gone.wait(), SOON)
        assert server.call.told[-1] == ("gone", False)

    run(story)
    assert [record.message for record in caplog.records] == []


def test_so_many_strangers_are_let_in_and_forgotten_when_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_server, "MAX_STRANGERS", 3)

    async def story(server: Server) -> None:
        known = await server.stream()
        strangers = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(3)]
        await known.synchronise()
        reader, _ = await asyncio.open_connection("127.0.0.1", server.port)
        assert await asyncio.wait_for(reader.read(), SOON) == b"", "one too many"
        await known.synchronise()
        strangers[0][1].close()
        await known.synchronise()
        caller = await server.ask(*UPGRADE, *identity(), f"{control.PART}: new")
        assert b" 101 " in await caller.head()

    run(story)


@pytest.mark.timed
def test_who_says_nothing_or_drips_is_sent_away_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_server, "HANDSHAKE_TIMEOUT", 0.3)

    async def story(server: Server) -> None:
        _, drip = await asyncio.open_connection("127.0.0.1", server.port)
        reader, _ = await asyncio.open_connection("127.0.0.1", server.port)
        began = time.monotonic()
        dripping = asyncio.create_task(drips(drip))
        assert await asyncio.wait_for(reader.read(), SOON) == b""
        await asyncio.wait_for(dripping, SOON)
        assert time.monotonic() - began < 2

    async def drips(writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\nX: ")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.02)

    run(story)


def test_a_head_that_never_ends_is_bounded() -> None:
    async def story(server: Server) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\n" + b"X-Header: " + b"x" * 20_000)
        assert await asyncio.wait_for(reader.read(), SOON) == b""

    run(story)


def test_descriptors_are_given_back() -> None:
    async def story(server: Server) -> None:
        async def visit() -> None:
            for caller in [await server.ask() for _ in range(20)]:
                await caller.rest()
                caller.writer.close()
                await caller.writer.wait_closed()
            known = await server.stream()
            known.send(struct.pack("!H", 1000), 8)
            await known.frame()
            await known.rest()
            known.writer.close()
            await known.writer.wait_closed()
            await asyncio.sleep(0.05)

        await visit()
        before = len(list(Path("/proc/self/fd").iterdir()))
        await visit()
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    run(story)


@pytest.mark.parametrize(("reads", "at_once"), [(0, 0), (25, 1)])
def test_frames_behind_a_text_of_ours_are_acknowledged_at_once(
    reads: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_server, "QUICK_READS", reads)

    async def story(server: Server) -> None:
        caller = await server.stream()
        await caller.synchronise()
        stream = server.call.stream
        assert isinstance(stream, stream_server.ModuleStream)
        await asyncio.sleep(0.02)
        stream.send_text("news")
        assert await caller.frame() == (1, b"news")
        told = len(server.call.told)
        caller.send(b"\1" * 320)
        while len(server.call.told) == told:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        transport = stream._transport
        assert transport is not None
        ours = transport.underlying_transport.get_extra_info("socket")
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == at_once

    run(story)


@pytest.mark.parametrize(
    ("header", "laid"),
    [
        ("", (20, "")),
        ("X-Eslbot-Ptime: 60", (60, "")),
        ("X-Eslbot-Ptime: 120", (120, "")),
        (f"X-Eslbot-Switch: {CORE}", (20, CORE)),
    ],
)
def test_the_line_is_laid_before_the_upgrade_is_answered(header: str, laid: tuple[int, str]) -> None:
    async def story(server: Server) -> None:
        caller = await server.ask(
            *UPGRADE, *identity(INVITE), f"{control.PART}: new", *filter(None, [header])
        )
        assert b" 101 " in await caller.head()
        assert server.call.laid == [laid]

    run(story)


@pytest.mark.parametrize(
    "header", ["X-Eslbot-Ptime: 25", "X-Eslbot-Ptime: 0", "X-Eslbot-Ptime: 130", "X-Eslbot-Ptime: x"]
)
def test_no_line_is_read_every_so_often(header: str) -> None:
    async def story(server: Server) -> None:
        caller = await server.ask(*UPGRADE, *identity(INVITE), f"{control.PART}: new", header)
        assert b" 400 " in await caller.head()

    run(story)


@pytest.mark.parametrize("switch", ["x" * 37, "../x", "a b", "a,b", "\u00fc"])
def test_a_core_uuid_is_one(switch: str) -> None:
    async def story(server: Server) -> None:
        caller = await server.ask(
            *UPGRADE, *identity(INVITE), f"{control.PART}: new", f"{control.SWITCH}: {switch}"
        )
        assert b" 400 " in await caller.head()
        assert not server.calls

    run(story)
