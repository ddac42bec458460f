"""What a bot can do to whoever dials it: nothing but fail, in bounded time and bytes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from structlog.testing import capture_logs

from eslbot.config.model import Bot, Secret
from eslbot.relay import dialler
from eslbot.relay.dialler import BotSocket, BotUnreachable, dial

#: Seconds that a test waits for what happens at once.
SOON = 5.0
BOT = Bot(("ws://127.0.0.1:1/",), 8000, 2.0, 10.0, {}, True)

Peer = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """Remembers what the call would be told."""

    def __init__(self) -> None:
        self.messages: list[str | bytes] = []
        self.ends: list[tuple[int, str]] = []
        self.ended = asyncio.Event()
        self.came = asyncio.Event()

    def received(self, message: str | bytes) -> None:
        self.messages.append(message)
        self.came.set()

    def lost(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))
        self.ended.set()


def frame(payload: bytes, opcode: int = 2, *, fin: bool = True, rsv: int = 0, masked: bool = False) -> bytes:
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    size, mask = len(payload), 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, mask | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


async def request(reader: asyncio.StreamReader) -> dict[str, str]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    lines = head.split("\r\n")[1:-2]
    return {"": head.split("\r\n")[0], **{k.lower(): v for k, _, v in (li.partition(": ") for li in lines)}}


def accepted(headers: dict[str, str], accept: str | None = None) -> bytes:
    key = headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accept = accept or base64.b64encode(hashlib.sha1(key).digest()).decode()
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ).encode()


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One masked frame of a client's."""
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    mask = await reader.readexactly(4)
    data = await reader.readexactly(size)
    return first & 0xF, bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


class Server:
    """A bot on loopback that does what a test says, once for each connection."""

    def __init__(self, behaviour: Behaviour, context: ssl.SSLContext | None = None) -> None:
        self._behaviour, self._context = behaviour, context
        self.connections = 0

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._behaviour(reader, writer)
        writer.close()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def bot(self, **facts: Any) -> Bot:
        return replace(BOT, **{"urls": (f"ws://127.0.0.1:{self.port}/talk?key=k",), **facts})


def upgraded(behaviour: Behaviour) -> Behaviour:
    async def first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accepted(await request(reader)))
        await behaviour(reader, writer)

    return first


def run(behaviour: Behaviour, story: Callable[[Server], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), Server(behaviour) as server:
            await story(server)

    asyncio.run(main())


async def talk(server: Server, **facts: Any) -> tuple[BotSocket, Listener]:
    listener = Listener()
    return await dial(server.bot(**facts), {"X-Call-ID": "c"}, listener), listener


async def ended(listener: Listener) -> tuple[int, str]:
    await asyncio.wait_for(listener.ended.wait(), SOON)
    await asyncio.sleep(0.05)  # a second end would come at once
    (end,) = listener.ends
    return end


async def unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read nothing any more."""
    await asyncio.sleep(60)


# -- what goes well ---------------------------------------------------------------------------------------


def test_messages_go_both_ways_and_a_close_frame_ends_it() -> None:
    got: list[tuple[int, bytes]] = []

    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await read_frame(reader))
        got.append(await read_frame(reader))
        writer.write(frame(b"\1\2") + frame("ü".encode(), 1) + frame(b"q", 9))
        got.append(await read_frame(reader))
        writer.write(frame(struct.pack("!H", 4321) + b"bye\n", 8))
        got.append(await read_frame(reader))
        assert await reader.read() == b"", "TCP is ended by us"

    async def story(server: Server) -> None:
        bot_socket, listener = await talk(server)
        bot_socket.send("text")
        bot_socket.send(b"binary")
        assert await ended(listener) == (4321, "bye")
        assert listener.messages == [b"\1\2", "ü"]
        assert got == [(1, b"text"), (2, b"binary"), (10, b"q"), (8, struct.pack("!H", 4321))]
        bot_socket.send("nobody hears it")
        bot_socket.close()

    run(upgraded(bot), story)


def test_a_message_may_come_in_fragments_with_a_ping_between_them() -> None:
    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame("ü".encode()[:1], 1, fin=False) + frame(b"", 9) + frame("ü".encode()[1:], 0))
        writer.write(frame(b"a", 2, fin=False) + frame(b"", 0, fin=False) + frame(b"b", 0))
        await unread(reader, writer)

    async def story(server: Server) -> None:
        _, listener = await talk(server)
        while len(listener.messages) < 2:
            await asyncio.wait_for(listener.came.wait(), SOON)
            listener.came.clear()
        assert listener.messages == ["ü", b"ab"]

    run(upgraded(bot), story)


def test_the_upgrade_holds_identity_and_the_bots_own_headers_and_nothing_of_a_callers_making() -> None:
    got: list[dict[str, str]] = []

    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.append(await request(reader))
        writer.write(accepted(got[0]))
        await unread(reader, writer)

    async def story(server: Server) -> None:
        own = {"Authorization": Secret("Bearer t0ken-of-acme"), "user-agent": Secret("mine")}
        identity = {"X-Call-ID": "c", "X-From": "é\r\nX-Evil: 1%"}
        await dial(server.bot(headers=own), identity, Listener())
        (headers,) = got
        assert headers[""] == "GET /talk?key=k HTTP/1.1"
        assert headers["host"] == f"127.0.0.1:{server.port}"
        assert headers["authorization"] == "Bearer t0ken-of-acme"
        assert headers["user-agent"] == "mine"
        assert headers["x-from"] == "%C3%A9%0D%0AX-Evil: 1%25" and "x-evil" not in headers
        assert "sec-websocket-extensions" not in headers, "compression is not offered"

    run(bot, story)


@pytest.mark.timed
def test_urls_are_tried_in_order_each_for_its_time() -> None:
    async def good(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(accepted(await request(reader)))
        await unread(reader, writer)

    async def story(server: Server) -> None:
        async with Server(unread) as silent:
            urls = (f"ws://127.0.0.1:{silent.port}/?key=abc", f"ws://127.0.0.1:{server.port}/")
            began = time.monotonic()
            with capture_logs() as lines:
                bot_socket, _ = await talk(server, urls=urls, connect_timeout=0.2)
            assert 0.2 <= time.monotonic() - began < 2
            bot_socket.close()
        (line,) = (line for line in lines if line["event"] == "bot_unreachable")
        assert line["error"] == "no connection within 0.2 s" and "abc" not in line["url"]

    run(good, story)


# -- who is not reached -----------------------------------------------------------------------------------


def answers(data: bytes) -> Behaviour:
    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        writer.write(data)
        await unread(reader, writer)

    return bot


async def bad_accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(accepted(await request(reader), "AAAAAAAAAAAAAAAAAAAAAAAAAAA="))
    await unread(reader, writer)


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for byte in accepted(await request(reader)):
        writer.write(bytes([byte]))
        await asyncio.sleep(0.05)


async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 101 Switching Protocols\r\n")
    while True:
        writer.write(b"X-Header: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


@pytest.mark.timed
@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (answers(b"HTTP/1.1 403 Forbidden\r\n\r\n"), "HTTP status 403"),
        (answers(b"HTTP/1.1 302 Found\r\nLocation: ws://127.0.0.1:9/\r\n\r\n"), "HTTP status 302"),
        (answers(b"SSH-2.0-OpenSSH\r\n\r\n"), "is no WebSocket server"),
        (answers(b"\xff\xfe\r\n\r\n"), "is no WebSocket server"),
        (answers(b"HTTP/1.1 999999 Odd\r\n\r\n"), "is no WebSocket server"),
        (answers(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "is no WebSocket server"),
        (bad_accept, "invalid sec-websocket-accept"),
        (endless, "is no WebSocket server"),
        (drips, "no connection within 0.5 s"),
        (unread, "no connection within 0.5 s"),
    ],
)
def test_who_is_no_bot_is_told_in_time(behaviour: Behaviour, told: str) -> None:
    async def story(server: Server) -> None:
        began = time.monotonic()
        with pytest.raises(BotUnreachable) as unreachable:
            await talk(server, connect_timeout=0.5)
        assert told in str(unreachable.value) and len(str(unreachable.value)) <= dialler.MAX_SHOWN
        assert time.monotonic() - began < 2
        assert server.connections == 1, "a redirect is not followed"

    run(behaviour, story)


async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await request(reader)


def test_a_bot_that_hangs_up_in_the_handshake_is_not_there() -> None:
    async def story(server: Server) -> None:
        with pytest.raises(BotUnreachable):
            await talk(server, connect_timeout=0.5)

    run(hangs_up, story)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ws://127.0.0.1:1/", "Connection refused (127.0.0.1:1)"),
        ("ws://[::1]:1/", "([::1]:1)"),
        ("ws://no-such-host.invalid/", "(no-such-host.invalid)"),
    ],
)
def test_a_place_without_a_bot_is_named(url: str, told: str) -> None:
    async def main() -> None:
        with pytest.raises(BotUnreachable) as unreachable:
            await dial(replace(BOT, urls=(url,)), {}, Listener())
        assert told in str(unreachable.value)

    asyncio.run(main())


def test_a_call_that_ends_while_its_bot_is_dialled_leaves_no_connection() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        headers = await request(reader)
        asked.set()
        await go.wait()
        writer.write(accepted(headers))
        closed.set_result(await reader.read())

    async def story(server: Server) -> None:
        listener = Listener()
        dialling = asyncio.create_task(dial(server.bot(), {}, listener))
        await asked.wait()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        go.set()
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(asyncio.shield(closed), SOON) == b""
        assert listener.ends == []

    async def main() -> None:
        nonlocal asked, go, closed
        asked, go, closed = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop().create_future()
        async with asyncio.timeout(20), Server(slow) as server:
            await story(server)

    asked = go = closed = None  # type: ignore[assignment]
    asyncio.run(main())


# -- what a bot can do wrong ------------------------------------------------------------------------------


def writes(data: bytes) -> Behaviour:
    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await unread(reader, writer)

    return upgraded(bot)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x82\x7f" + b"\xff" * 8 + b"x" * 1000, "invalid 64-bit payload length"),
        (b"\x82\x7f" + struct.pack("!Q", 2**63 - 1), "exceeding max allowed size"),
        (b"\x82\x7f" + struct.pack("!Q", 2 * 1024**3) + b"x" * 100_000, "exceeding max allowed size"),
        (frame(b"x", masked=True), "masked frame"),
        (frame(b"x" * 126, 9), "control frame with payload size"),
        (frame(b"", 9, fin=False), "fragmented control frame"),
        (frame(b"x", 3), "invalid opcode"),
        (frame(b"x", rsv=4), "an extension that was not agreed on"),
        (frame(b"\xff\xfe", 1), "a text that is not UTF-8"),
        (frame(b"\xff", 1, fin=False) + frame(b"\xfe", 0), "a text that is not UTF-8"),
        (frame(b"x", 0), "fragments that make no message"),
        (frame(b"x", fin=False) + frame(b"x", fin=False), "fragments that make no message"),
        (frame(b"x", fin=False) + frame(b"x"), "within another"),
        (frame(b"x" * 1_000_000, fin=False) + frame(b"x" * 1_000_000, 0, fin=False) * 5, "in fragments"),
        (frame(b"x", 9) * 1500, "pings or fragments in a second"),
        (frame(b"", fin=False) + frame(b"", 0, fin=False) * 1500, "pings or fragments in a second"),
        (frame(b"\x03", 8), "close code"),
        (frame(struct.pack("!H", 1005), 8), "close code"),
        (frame(struct.pack("!H", 1000) + b"\xff", 8), "UTF-8"),
    ],
)
def test_a_bot_that_breaks_the_protocol_has_failed_and_is_told_once(data: bytes, told: str) -> None:
    async def story(server: Server) -> None:
        bot_socket, listener = await talk(server)
        code, reason = await ended(listener)
        assert code == 0 and told in reason
        assert listener.messages == []
        bot_socket.send(b"x")

    run(writes(data), story)


@pytest.mark.parametrize(("payload", "code"), [(b"", 1005), (struct.pack("!H", 1000), 1000)])
def test_the_code_of_a_close_frame_is_told(payload: bytes, code: int) -> None:
    async def story(server: Server) -> None:
        _, listener = await talk(server)
        assert await ended(listener) == (code, "")

    run(writes(frame(payload, 8)), story)


def test_a_bot_that_closes_and_keeps_tcp_open_keeps_nobody() -> None:
    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(struct.pack("!H", 1000), 8))
        assert (await read_frame(reader))[0] == 8
        gone.set_result(await reader.read())

    async def story(server: Server) -> None:
        nonlocal gone
        gone = asyncio.get_running_loop().create_future()
        _, listener = await talk(server)
        assert await ended(listener) == (1000, "")
        assert await asyncio.wait_for(gone, SOON) == b""

    gone: asyncio.Future[bytes] = None  # type: ignore[assignment]
    run(upgraded(bot), story)


@pytest.mark.parametrize("reset", [True, False])
def test_a_connection_that_breaks_is_told(reset: bool) -> None:
    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    async def story(server: Server) -> None:
        bot_socket, listener = await talk(server)
        bot_socket.send("go")
        assert await ended(listener) == (0, "the connection broke")

    run(upgraded(bot), story)


@pytest.mark.parametrize("pings", [0, 100])
def test_nothing_more_is_written_to_a_connection_that_broke_in_the_same_turn(
    caplog: pytest.LogCaptureFixture, pings: int
) -> None:
    """A relay that was kept from running finds seconds of a caller's frames, or a bot's pings, at once."""

    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer)
        writer.write(frame(b"hello"))
        await reader.read()

    async def story(server: Server) -> None:
        bot_socket, listener = await talk(server)
        await asyncio.wait_for(listener.came.wait(), SOON)
        peers[0].write(frame(b"?", 9) * pings)
        peers[0].get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        for _ in range(0 if pings else 100):
            bot_socket.send(b"x" * 320)
        assert not listener.ends, "who sends is in the middle of something"
        assert await ended(listener) == (0, "the connection broke")

    peers: list[asyncio.StreamWriter] = []
    run(upgraded(bot), story)
    assert [record.message for record in caplog.records] == []


def test_a_bot_that_reads_nothing_has_failed_and_bytes_are_bounded() -> None:
    async def story(server: Server) -> None:
        bot_socket, listener = await talk(server)
        sent = 0
        while not listener.ends:
            bot_socket.send(b"x" * 32_000)
            sent += 32_000
            await asyncio.sleep(0)
            assert sent < 16 * 1024 * 1024
        code, reason = await ended(listener)
        assert (code, reason) == (0, f"does not read: {dialler.MAX_UNREAD} bytes wait for it")

    run(upgraded(unread), story)


@pytest.mark.timed
def test_closing_does_not_wait_for_a_bot_that_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialler, "CLOSE_TIMEOUT", 0.1)
    gone: list[bool] = []

    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fd = writer.get_extra_info("socket")
        await go.wait()
        with pytest.raises((ConnectionResetError, TimeoutError)):  # it was reset, not ended
            while True:
                fd_data = await asyncio.wait_for(reader.read(65536), SOON)
                if not fd_data:
                    raise ConnectionResetError
        gone.append(fd.fileno() >= 0)
        done.set()

    async def story(server: Server) -> None:
        bot_socket, listener = await talk(server)
        for _ in range(20):
            bot_socket.send(b"x" * 50_000)
        began = time.monotonic()
        bot_socket.close()
        bot_socket.close()
        assert time.monotonic() - began < 0.1
        await asyncio.sleep(0.2)
        go.set()
        await asyncio.wait_for(done.wait(), SOON)
        assert listener.ends == [], "who closes is not told of it"

    async def main() -> None:
        nonlocal go, done
        go, done = asyncio.Event(), asyncio.Event()
        async with asyncio.timeout(20), Server(upgraded(bot)) as server:
            await story(server)

    go = done = None  # type: ignore[assignment]
    asyncio.run(main())


@pytest.mark.parametrize("closes", [True, False])
def test_who_sends_is_told_of_the_end_when_it_has_sent(closes: bool) -> None:
    async def story(server: Server) -> None:
        bot_socket, listener = await talk(server)
        for _ in range(200):
            bot_socket.send(b"x" * 50_000)
            assert not listener.ends, "a call may be in the middle of anything"
        if closes:
            bot_socket.close()
            await asyncio.sleep(0.05)
            assert not listener.ends, "who closes is not told of it"
        else:
            assert "does not read" in (await ended(listener))[1]

    run(upgraded(unread), story)


def test_a_bot_that_answers_no_ping_is_gone_and_one_that_does_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialler, "PING_INTERVAL", 0.1)
    pings = 0

    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal pings
        while (await read_frame(reader))[0] == 9:
            pings += 1
            if pings <= 3:
                writer.write(frame(b"", 10))

    async def story(server: Server) -> None:
        _, listener = await talk(server)
        assert await ended(listener) == (0, "said nothing and answered no ping for 0.1 s")
        assert pings == 4

    run(upgraded(bot), story)


def test_a_fault_of_ours_ends_the_bot_and_is_told() -> None:
    class Faulty(Listener):
        def received(self, message: str | bytes) -> None:
            raise KeyError(message)

    async def story(server: Server) -> None:
        listener = Faulty()
        with capture_logs() as lines:
            await dial(server.bot(), {}, listener)
            assert await ended(listener) == (0, "internal error")
        assert [line["event"] for line in lines] == ["bot_message_failed"]

    run(writes(frame(b"x") + frame(b"y")), story)


@pytest.mark.timed
def test_a_flood_of_the_smallest_frames_holds_nobody_for_long() -> None:
    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_frame(reader)
        writer.write(frame(b"", 9) * 500_000)
        await unread(reader, writer)

    async def story(server: Server) -> None:
        loop = asyncio.get_running_loop()
        longest, last = 0.0, time.thread_time()

        def beat() -> None:
            """What this thread has worked for since: a busy machine lets it wait, too."""
            nonlocal longest, last
            longest, last = max(longest, time.thread_time() - last), time.thread_time()
            if not listener.ends:
                loop.call_later(0.001, beat)

        bot_socket, listener = await talk(server)
        last = time.thread_time()
        beat()
        bot_socket.send("go")
        assert "in a second" in (await ended(listener))[1]
        beat()
        assert 0 < longest < 0.5, longest

    run(upgraded(bot), story)


# -- TLS --------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    """Trusted by the dialler of this test, by the environment's SSL_CERT_FILE."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    dialler.tls.cache_clear()
    yield ca
    dialler.tls.cache_clear()


def served_by(certificate: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def test_tls_is_verified_and_works(authority: trustme.CA) -> None:
    async def bot(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame(b"hello" * 100_000))
        await read_frame(reader)

    async def main() -> None:
        context = served_by(authority.issue_cert("127.0.0.1"))
        async with asyncio.timeout(20), Server(upgraded(bot), context) as server:
            bot_socket, listener = await talk(server, urls=(f"wss://127.0.0.1:{server.port}/",))
            await asyncio.wait_for(listener.came.wait(), SOON)
            assert listener.messages == [b"hello" * 100_000]
            bot_socket.send("bye")
            assert await ended(listener) == (0, "the connection broke")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("trusted", "host", "told"),
    [
        (False, "127.0.0.1", "TLS certificate: unable to get local issuer certificate"),
        (True, "other.example.com", "TLS certificate: IP address mismatch"),
    ],
)
def test_a_certificate_of_nobodys_or_of_others_is_refused(
    authority: trustme.CA, trusted: bool, host: str, told: str
) -> None:
    async def main() -> None:
        issuer = authority if trusted else trustme.CA()
        async with Server(upgraded(unread), served_by(issuer.issue_cert(host))) as server:
            with pytest.raises(BotUnreachable) as unreachable:
                await talk(server, urls=(f"wss://127.0.0.1:{server.port}/",))
        text = str(unreachable.value)
        assert text.startswith(told) and f"(127.0.0.1:{server.port})" in text

    asyncio.run(main())


def test_clear_text_where_tls_is_meant_is_told(authority: trustme.CA) -> None:
    async def story(server: Server) -> None:
        with pytest.raises(BotUnreachable) as unreachable:
            await talk(server, urls=(f"wss://127.0.0.1:{server.port}/",))
        assert "TLS" in str(unreachable.value)

    async def speaks_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await unread(reader, writer)

    run(speaks_first, story)


# -- proxies ----------------------------------------------------------------------------------------------


def proxy(status: bytes, asked: list[dict[str, str]]) -> Behaviour:
    async def behaviour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await request(reader))
        writer.write(b"HTTP/1.1 " + status + b"\r\n\r\n")
        if status.startswith(b"200"):
            writer.write(accepted(await request(reader)) + frame(b"through"))
        await unread(reader, writer)

    return behaviour


def test_a_proxy_is_asked_for_the_bot_and_told_its_password() -> None:
    asked: list[dict[str, str]] = []

    async def story(server: Server) -> None:
        address = Secret(f"http://user:p%40ss@127.0.0.1:{server.port}")
        _, listener = await talk(server, urls=("ws://bot.example.com/",), proxy=address)
        await asyncio.wait_for(listener.came.wait(), SOON)
        assert listener.messages == [b"through"]
        assert asked[0][""] == "CONNECT bot.example.com:80 HTTP/1.1"
        assert base64.b64decode(asked[0]["proxy-authorization"].split()[1]) == b"user:p@ss"

    run(proxy(b"200 OK", asked), story)


def test_a_proxy_that_refuses_is_told_without_its_password() -> None:
    async def story(server: Server) -> None:
        for scheme in ("http", "socks5", "socks4"):
            address = Secret(f"{scheme}://user:p4ssword@127.0.0.1:{server.port}")
            with pytest.raises(BotUnreachable) as unreachable:
                await talk(server, urls=("ws://127.0.0.9:7/",), proxy=address, connect_timeout=0.5)
            assert "p4ssword" not in str(unreachable.value)

    run(proxy(b"407 Proxy Authentication Required", []), story)
