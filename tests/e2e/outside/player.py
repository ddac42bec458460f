"""A call without a telephone: one of eslbot's protocols on a real socket, the line played by the clock.

It is what a relay does for a bot, as simple as can be: so that a bot nobody here wrote can be tried against a
protocol alone, and a failure of a whole call told from one of the two.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from eslbot.audio import g711
from eslbot.relay.protocols.base import BadMessage, CallerSpeech, Clear, End, Mark, Message, Protocol, Speech

#: Bytes and seconds of a frame of the line: L16 at 8,000 Hz.
FRAME, TICK = 320, 0.020


@dataclass
class Line:
    """What the caller has heard, what is to be heard yet, and the marks, each behind so many bytes of it."""

    heard: bytearray = field(default_factory=bytearray)
    queued: bytearray = field(default_factory=bytearray)
    marks: list[tuple[int, str]] = field(default_factory=list)

    def tick(self) -> list[str]:
        """Let 20 ms go by; the names of the marks that were reached."""
        frame = bytes(self.queued[:FRAME])
        del self.queued[:FRAME]
        self.heard += frame.ljust(FRAME, b"\0")
        self.marks = [(max(0, left - FRAME), name) for left, name in self.marks]
        reached = [name for left, name in self.marks if not left]
        self.marks = [(left, name) for left, name in self.marks if left]
        return reached

    def clear(self) -> list[str]:
        """Drop what is queued; the names of the marks in it."""
        dropped = [name for _, name in self.marks]
        self.queued.clear()
        self.marks.clear()
        return dropped


@dataclass
class Played:
    """How a call went. ``keys`` are pressed at these seconds; the rest is what happened."""

    line: Line = field(default_factory=Line)
    marks: list[str] = field(default_factory=list)
    clears: int = 0
    ends: list[End] = field(default_factory=list)
    caller_speech: list[bool] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    largest: int = 0
    first_speech: float | None = None
    close_code: int | None = None
    seconds: float = 0.0


class Player:
    """One call to the bot at ``url``; ``caller`` is said to it round and round."""

    def __init__(
        self, url: str, protocol: Protocol, caller: bytes, *, keys: dict[float, str] | None = None
    ) -> None:
        self._url, self._protocol, self._caller = url, protocol, caller
        self._keys = dict(keys or {})
        self._played = Played()
        self._over = asyncio.Event()

    async def call(self, limit: float) -> Played:
        """Until the bot has ended and was heard. Raises TimeoutError behind ``limit`` seconds."""
        async with asyncio.timeout(limit):
            async with connect(self._url, proxy=None, compression=None, max_size=4 << 20) as socket:
                begun = asyncio.get_running_loop().time()
                for message in self._protocol.start(resumed=False):
                    await socket.send(message)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._listen(socket, begun))
                    tasks.create_task(self._play(socket, begun))
                self._played.close_code = socket.close_code
        return self._played

    async def _listen(self, socket: ClientConnection, begun: float) -> None:
        try:
            async for message in socket:
                await self._take(socket, message, asyncio.get_running_loop().time() - begun)
        except ConnectionClosed:
            pass  # the code tells how
        self._over.set()

    async def _take(self, socket: ClientConnection, message: Message, at: float) -> None:
        played, protocol = self._played, self._protocol
        try:
            wishes = protocol.read(message)
        except BadMessage as error:
            played.bad.append(str(error))
            return
        for wish in wishes:
            match wish:
                case Speech():
                    played.first_speech = at if played.first_speech is None else played.first_speech
                    l16 = linear(wish)
                    played.largest = max(played.largest, len(l16))
                    played.line.queued += l16
                case Mark():
                    played.line.marks.append((max(1, len(played.line.queued)), wish.name))
                case Clear():
                    played.clears += 1
                    answers = [
                        answer for name in played.line.clear() for answer in protocol.mark(name, cleared=True)
                    ]
                    for answer in [*answers, *protocol.cleared()]:
                        await socket.send(answer)
                case End():
                    played.ends.append(wish)
                case CallerSpeech():
                    played.caller_speech.append(wish.speaking)

    async def _play(self, socket: ClientConnection, begun: float) -> None:
        loop, number = asyncio.get_running_loop(), 0
        while not (self._over.is_set() and not self._played.line.queued):
            number += 1
            await asyncio.sleep(begun + number * TICK - loop.time())
            self._played.seconds = number * TICK
            reached = self._played.line.tick()
            self._played.marks += reached
            if self._over.is_set():
                continue
            start = (number - 1) * FRAME % len(self._caller)
            messages = [self._protocol.audio(self._caller[start : start + FRAME], number * TICK)]
            for name in reached:
                messages += self._protocol.mark(name, cleared=False)
            for due in [due for due in self._keys if due <= number * TICK]:
                messages += self._protocol.key(self._keys.pop(due), 100)
            try:
                for message in messages:
                    await socket.send(message)
                if self._played.ends and not self._played.line.queued:
                    for message in self._protocol.stop("ended"):
                        await socket.send(message)
                    await socket.close()
            except ConnectionClosed:
                self._over.set()


def linear(speech: Speech) -> bytes:
    """Speech as L16 at 8,000 Hz: what the bots tried here send, and no more."""
    assert speech.rate == 8000, f"speech at {speech.rate} Hz"
    match speech.kind:
        case "pcmu":
            return g711.decode("PCMU", speech.audio)
        case "raw":
            return speech.audio
    raise AssertionError(f"speech as {speech.kind}")
