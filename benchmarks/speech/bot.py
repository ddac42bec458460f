"""The bots: one process for all of them, a WebSocket server that says marked sound as it was told.

:class:`Bots` is the hand of whoever measures. A call is found by its CRT Object ID (``X-CRT-Object-ID`` on
the upgrade). Speech goes out as binary L16 (``binary``), or as ``streamAudio`` in JSON for an eslbot that
does not know binary frames yet. Nothing is looked at before it is asked for.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.speech.beside import PATIENCE, Beside
from benchmarks.speech.hearing import Said
from benchmarks.speech.marks import LENGTH, LINE
from eslbot.sim.audio import RATE

#: Seconds of speech that a bot keeps ahead of real time in :attr:`Talk.ahead`.
AHEAD = 4.0
#: Seconds after its clear that a bot keeps still.
AFTER_CLEAR = 0.3


@dataclass(frozen=True)
class Talk:
    """What a bot does until its time is over: utterances of ``seconds``, with rests between.

    ``chunk`` and ``jitter`` in milliseconds. ``paced``: in real time, each message up to ``jitter`` early or
    late; otherwise as fast as they go. ``rest``: seconds between the end of one and the next, at least and at
    most. ``clear``: seconds after which it is taken back, at least and at most. ``answers``: it begins in the
    moment a frame of the caller's comes. ``ahead``: one endless utterance, kept some seconds ahead.
    """

    seconds: float
    chunk: int
    paced: bool = False
    jitter: int = 0
    rest: tuple[float, float] = (0.7, 1.2)
    clear: tuple[float, float] | None = None
    answers: bool = False
    ahead: bool = False


@dataclass(frozen=True)
class Connected:
    """One connection of a call's: when it came, what it got, and when it was over."""

    at: float
    frames: list[tuple[float, bytes]]
    texts: list[tuple[float, str]]
    over: float | None


class Bots(Beside):
    """The process; a context manager. ``port`` is where it listens."""

    def __init__(self) -> None:
        super().__init__(_run, "bots")
        self.port: int = self.told()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://127.0.0.1:{self.port}/"

    def wait(self, crt: str, frames: int = 10, connections: int = 1, timeout: float = 10.0) -> None:
        """Wait until a call's connection is there and has brought so many frames. Raises RuntimeError."""
        self.ask("wait", crt, frames, connections, timeout, timeout=timeout + PATIENCE)

    def talk(self, plans: dict[str, tuple[Talk, int]], seconds: float, *, binary: bool) -> None:
        """Let bots talk for ``seconds``: by call, how and with which seed."""
        self.ask("talk", plans, seconds, binary)

    def hush(self) -> None:
        """Let all come to the end of what they say."""
        self.ask("hush")

    def said(self, seconds: float) -> dict[str, list[Said]]:
        """What all have said, when they are done: by call. ``seconds`` is how long that may take."""
        found: dict[str, list[Said]] = self.ask("said", timeout=seconds + PATIENCE)
        return found

    def take(self, crt: str) -> list[Connected]:
        """All connections of a call's, the last of which may go on."""
        found: list[Connected] = self.ask("take", crt)
        return found

    def end(self, crt: str) -> None:
        """The bot is finished."""
        self.ask("end", crt)


# -- the process -----------------------------------------------------------------------------------------


class _Listener(WSListener):
    def __init__(self, call: _Call) -> None:
        self._call = call
        self.at, self.over = time.time(), 0.0
        self.frames: list[tuple[float, bytes]] = []
        self.texts: list[tuple[float, str]] = []
        self.transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        self._socket = transport.underlying_transport.get_extra_info("socket")
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._call.connections.append(self)
        self._call.changed.set()

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type == WSMsgType.BINARY:
            self.frames.append((time.time(), frame.get_payload_as_bytes()))
            self._call.heard()
        elif frame.msg_type == WSMsgType.TEXT:
            self.texts.append((time.time(), frame.get_payload_as_utf8_text()))
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        # What delays an acknowledgement here would hold up who sends with Nagle's algorithm: the old way.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        self.transport, self.over = None, time.time()
        self._call.changed.set()


@dataclass
class _Call:
    number: int
    connections: list[_Listener] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    on_frame: Callable[[], None] | None = None
    position: int = 0

    def heard(self) -> None:
        if self.on_frame is not None:
            self.on_frame()
        self.changed.set()

    def send(self, message: bytes | str) -> None:
        last = self.connections[-1] if self.connections else None
        if last is not None and last.transport is not None:
            if isinstance(message, bytes):
                last.transport.send(WSMsgType.BINARY, message)
            else:
                last.transport.send(WSMsgType.TEXT, message.encode())

    def place(self, samples: int) -> int:
        """Where in the marks it says its next ``samples``: never what was said before."""
        if not self.position or self.position + samples > LENGTH:
            # Others begin elsewhere, so that a word of another's call is seen as one.
            self.position = self.number * 50_021 % (LENGTH // 2) + 1
        self.position += samples
        return self.position - samples


class _Talker:
    def __init__(self, call: _Call, talk: Talk, seed: int, until: float, binary: bool) -> None:
        self.call, self.talk, self.until, self.binary = call, talk, until, binary
        self.random = random.Random(seed)
        self.said: list[Said] = []

    def message(self, start: int, samples: int) -> bytes | str:
        linear = LINE.linear(start, samples)
        if self.binary:
            return linear
        data = {"audioDataType": "raw", "sampleRate": RATE, "audioData": base64.b64encode(linear).decode()}
        return json.dumps({"type": "streamAudio", "data": data})

    async def run(self) -> None:
        talk = self.talk
        while True:
            await asyncio.sleep(self.random.uniform(*talk.rest))
            if time.monotonic() + (0 if talk.ahead else talk.seconds) > self.until:
                return
            if talk.ahead:
                await self.ahead()
                return
            samples = int(talk.seconds * RATE)
            start = self.call.place(samples)
            chunks = [
                (at, self.message(at, min(talk.chunk * 8, start + samples - at)))
                for at in range(start, start + samples, talk.chunk * 8)
            ]
            await (self.paced if talk.paced else self.burst)(start, samples, chunks)

    async def burst(self, start: int, samples: int, chunks: list[tuple[int, bytes | str]]) -> None:
        sent: list[tuple[float, int]] = []
        cause = None
        if self.talk.answers:
            begun = asyncio.Event()

            def go() -> None:
                self.call.on_frame = None
                self._send(chunks, sent)
                begun.set()

            self.call.on_frame = go
            await begun.wait()
            cause = len(self.call.connections[-1].frames) - 1
            # It is set behind the frame's time: nothing else ran between.
        else:
            self._send(chunks, sent)
        cleared = None
        if self.talk.clear:
            await asyncio.sleep(self.random.uniform(*self.talk.clear))
            cleared = time.time()
            self.call.send('{"type":"clear"}')
            await asyncio.sleep(AFTER_CLEAR)
        else:
            await asyncio.sleep(samples / RATE)
        self.said.append(Said(start, samples, sent, cleared, cause))

    def _send(self, chunks: list[tuple[int, bytes | str]], sent: list[tuple[float, int]]) -> None:
        for at, message in chunks:
            sent.append((time.time(), at))
            self.call.send(message)

    async def paced(self, start: int, samples: int, chunks: list[tuple[int, bytes | str]]) -> None:
        jitter = self.talk.jitter / 1000
        begun = time.monotonic() + jitter
        late, due = 0.0, 0.0
        sent: list[tuple[float, int]] = []
        for number, (at, message) in enumerate(chunks):
            meant = begun + number * self.talk.chunk / 1000 + self.random.uniform(-jitter, jitter)
            due = max(due, meant)  # in order
            await _until(due)
            late = max(late, time.monotonic() - due)
            sent.append((time.time(), at))
            self.call.send(message)
        self.said.append(Said(start, samples, sent, late=late))

    async def ahead(self) -> None:
        step = self.talk.chunk * 8
        start = self.call.place(0)
        begun = time.monotonic()
        sent: list[tuple[float, int]] = []
        at = start
        while time.monotonic() < self.until:
            while (at - start) / RATE < time.monotonic() - begun + AHEAD and time.monotonic() < self.until:
                sent.append((time.time(), at))
                self.call.send(self.message(at, step))
                at += step
            await asyncio.sleep(0.1)
        self.call.position = at
        self.said.append(Said(start, at - start, sent))


async def _until(due: float) -> None:
    """Wait for a time, which a loop's timer meets to a millisecond only."""
    if (left := due - time.monotonic() - 0.0015) > 0:
        await asyncio.sleep(left)
    while (left := due - time.monotonic()) > 0:
        time.sleep(min(left, 0.0005))


class _Desk:
    def __init__(self) -> None:
        self.calls: dict[str, _Call] = {}
        self.talkers: dict[str, _Talker] = {}
        self.tasks: list[asyncio.Task[None]] = []

    def connect(self, request: WSUpgradeRequest) -> WSListener:
        return _Listener(self.call(request.headers.get("X-CRT-Object-ID") or ""))

    def call(self, crt: str) -> _Call:
        if crt not in self.calls:
            self.calls[crt] = _Call(len(self.calls) + 1)
        return self.calls[crt]

    async def command(self, name: str, *args: Any) -> object:
        match name:
            case "wait":
                crt, frames, connections, timeout = args
                await asyncio.wait_for(self.wait(self.call(crt), frames, connections), timeout)
            case "talk":
                plans, seconds, binary = args
                until = time.monotonic() + seconds
                for crt, (talk, seed) in plans.items():
                    talker = self.talkers[crt] = _Talker(self.call(crt), talk, seed, until, binary)
                    self.tasks.append(asyncio.create_task(talker.run()))
            case "hush":
                for talker in self.talkers.values():
                    talker.until = 0.0
            case "said":
                await asyncio.gather(*self.tasks)
                self.tasks.clear()
                told = {crt: talker.said for crt, talker in self.talkers.items()}
                self.talkers = {}
                return told
            case "take":
                return list(self.taken(self.call(args[0])))
            case "end":
                self.call(args[0]).send('{"type":"end","properties":{},"reason":"measured"}')
        return None

    def taken(self, call: _Call) -> Iterator[Connected]:
        for listener in call.connections:
            yield Connected(listener.at, listener.frames, listener.texts, listener.over or None)

    async def wait(self, call: _Call, frames: int, connections: int) -> None:
        while len(call.connections) < connections or len(call.connections[-1].frames) < frames:
            call.changed.clear()
            await call.changed.wait()


def _run(connection: Connection) -> None:
    asyncio.run(_serve(connection))


async def _serve(connection: Connection) -> None:
    desk = _Desk()
    server = await ws_create_server(desk.connect, "127.0.0.1", 0)
    connection.send(server.sockets[0].getsockname()[1])
    commands: asyncio.Queue[tuple[Any, ...] | None] = asyncio.Queue()

    def readable() -> None:
        try:
            commands.put_nowait(connection.recv())
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(connection.fileno())
            commands.put_nowait(None)

    asyncio.get_running_loop().add_reader(connection.fileno(), readable)
    while (command := await commands.get()) is not None:
        try:
            answer = await desk.command(*command)
        except (TimeoutError, LookupError) as error:
            answer = RuntimeError(f"{command[0]}: {error!r}")
        connection.send(answer)
    server.close()
