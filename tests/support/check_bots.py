"""A good bot, as a builder would write it with `websockets`; its faults: :mod:`tests.support.bad_bots`."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.support import voices


def voice(seconds: float, seed: int) -> bytes:
    return b"".join(voices.frames(voices.speech(seconds, seed=seed, level=5000.0)))


GREETING, ANSWER, GOODBYE = voice(0.8, 1), voice(0.3, 2), voice(0.3, 3)
#: Frames of the caller's that are a word, and those without one that end what was said.
WORD, PAUSE = 4, 10


class Talk:
    """One connection to the good bot: greets, answers, lets itself be broken in on. It never ends a call."""

    ends: ClassVar[bool] = False

    def __init__(self, bot: Bot, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.bot, self.socket = bot, socket
        self.call_id = socket.request.headers["X-Call-ID"]
        self.loud = self.quiet = 0
        self.heard = self.held = False
        self.marks: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        async for message in self.socket:
            if isinstance(message, bytes):
                await self.audio(message)
            else:
                await self.text(json.loads(message))

    async def text(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "start":
                await self.start(message)
            case "mark":
                await self.mark(message["name"])
            case "hold":
                self.held = message["on"]
            case "resumed":
                await self.send(type="resumed")
            case "dtmf" | "error" | "cleared" | "stop":
                await self.other(message)

    async def other(self, message: dict[str, Any]) -> None:
        pass

    async def start(self, message: dict[str, Any]) -> None:
        if not message.get("resumed"):
            self.bot.known.add(self.call_id)
            await self.greet()
        elif self.call_id in self.bot.finished:
            await self.end()

    async def greet(self) -> None:
        await self.say(GREETING)
        await self.ask("greeted")

    async def ask(self, name: str) -> None:
        self.marks.append(name)
        await self.send(type="mark", name=name)

    async def mark(self, name: str) -> None:
        if name not in self.marks:
            return
        self.marks.remove(name)
        if self.ends:
            await self.end()

    async def end(self) -> None:
        self.bot.finished.add(self.call_id)
        await self.send(type="end", properties=self.properties(), reason="done")

    def properties(self) -> dict[str, Any]:
        return {"summary": "greeted", "score": 0.5}

    async def audio(self, frame: bytes) -> None:
        loud = max(array("h", frame), default=0) > 1500 and not self.held
        self.loud, self.quiet = (self.loud + 1, 0) if loud else (self.loud, self.quiet + 1)
        if self.loud >= WORD and not self.heard:
            self.heard = True
            await self.broken_in()
        elif self.heard and self.quiet >= PAUSE:
            self.heard, self.loud = False, 0
            await self.say(ANSWER)
        elif self.quiet >= PAUSE:
            self.loud = 0

    async def broken_in(self) -> None:
        if self.marks:
            await self.send(type="clear")

    async def say(self, linear: bytes) -> None:
        await self.socket.send(linear)

    async def send(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    def later(self, work: Any) -> None:
        self.tasks.append(asyncio.create_task(work))


class Ending(Talk):
    """Ends when its greeting was heard."""

    ends = True


class Bot:
    """The server's side: what it knows of its calls."""

    def __init__(self, talk: type[Talk]) -> None:
        self.talk = talk
        self.known: set[str] = set()
        self.finished: set[str] = set()
        self.current: ServerConnection | None = None
        self.sockets: list[ServerConnection] = []
        self.open = 0

    async def serve(self, socket: ServerConnection) -> None:
        talk = self.talk(self, socket)
        self.open += 1
        try:
            await talk.run()
        except ConnectionClosed:
            pass
        except Exception:  # noqa: BLE001  # as a framework does: the handler's fault is close 1011
            await socket.close(1011, "internal error")
        finally:
            self.open -= 1
            for task in talk.tasks:
                task.cancel()

    def admit(self, socket: ServerConnection, request: Request) -> Response | None:
        return None


@asynccontextmanager
async def served(talk: type[Talk], bot: type[Bot] = Bot) -> AsyncIterator[str]:
    """The URL of a bot of this kind."""
    one = bot(talk)
    async with serve(
        one.serve, "127.0.0.1", 0, compression=None, process_request=one.admit, close_timeout=1
    ) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
