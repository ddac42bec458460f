"""A good bot, as a builder would write it with `websockets`, and bots with one fault each."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from array import array
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
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


# -- faults ---------------------------------------------------------


class WantsStartFirst(Talk):
    async def run(self) -> None:
        await self.text(json.loads(await self.socket.recv()))
        await super().run()


class UnknownTypeRaises(Talk):
    async def text(self, message: dict[str, Any]) -> None:
        if message["type"] not in ("start", "mark", "hold", "resumed", "dtmf", "error", "cleared", "stop"):
            raise ValueError(message["type"])
        await super().text(message)


class UnknownTypeSilences(Talk):
    """Its reader is gone, and the connection stays: the crash of a task that nobody looks at."""

    dead = False

    async def run(self) -> None:
        reader = asyncio.create_task(super().run())
        await asyncio.wait([reader])
        if not reader.cancelled() and isinstance(reader.exception(), ValueError):
            self.dead = True
            await asyncio.sleep(60)

    async def text(self, message: dict[str, Any]) -> None:
        if message["type"].startswith("x-"):
            raise ValueError
        await super().text(message)

    async def greet(self) -> None:
        self.later(self.slowly())

    async def slowly(self) -> None:
        await asyncio.sleep(0.1)
        if not self.dead:
            await self.say(GREETING)


class UnknownTypeCloses(Talk):
    """As a framework whose pipeline ends on any error: politely."""

    async def text(self, message: dict[str, Any]) -> None:
        if message["type"].startswith("x-"):
            await self.socket.close(1000)
            return
        await super().text(message)


class UnknownFieldRaises(Talk):
    async def text(self, message: dict[str, Any]) -> None:
        if "x_eslbot_check" in message:
            raise TypeError("unexpected keyword argument")
        await super().text(message)


class ErrorRaises(Talk):
    async def other(self, message: dict[str, Any]) -> None:
        if message["type"] == "error":
            raise RuntimeError(message["message"])


class ResumedRaises(Talk):
    async def text(self, message: dict[str, Any]) -> None:
        if message["type"] == "resumed":
            raise KeyError("start")
        await super().text(message)


class ClearedRaises(Talk):
    """Counts what it has cleared."""

    clears = 0

    async def broken_in(self) -> None:
        if self.marks:
            self.clears += 1
        await super().broken_in()

    async def other(self, message: dict[str, Any]) -> None:
        if message["type"] == "cleared":
            self.clears -= 1
            if self.clears < 0:
                raise AssertionError("cleared what?")


class StrayMarkRaises(Talk):
    async def mark(self, name: str) -> None:
        self.marks.remove(name)


class KeyRaises(Talk):
    async def other(self, message: dict[str, Any]) -> None:
        if message["type"] == "dtmf":
            int(message["digit"])


class Misspells(Talk):
    async def greet(self) -> None:
        await super().greet()
        await self.send(type="stream_audio", data={})


class NotJson(Talk):
    async def greet(self) -> None:
        await super().greet()
        await self.socket.send("{'type': 'clear'}")


class Mute(Talk):
    async def greet(self) -> None:
        await self.say(bytes(8000))

    async def broken_in(self) -> None:
        pass

    async def say(self, linear: bytes) -> None:
        await super().say(bytes(len(linear)))


class WaitsForCaller(Talk):
    async def greet(self) -> None:
        pass


class NamelessMark(Talk):
    async def greet(self) -> None:
        await super().greet()
        await self.send(type="mark", name="")


class SlowBargeIn(Talk):
    async def broken_in(self) -> None:
        if self.marks:
            self.later(self.slowly())

    async def slowly(self) -> None:
        await asyncio.sleep(1.2)
        await self.send(type="clear")

    async def greet(self) -> None:
        for _ in range(4):
            await self.say(GREETING)
        await self.ask("greeted")


class HoldRaises(Talk):
    async def text(self, message: dict[str, Any]) -> None:
        if message["type"] == "hold":
            raise KeyError("hold")
        await super().text(message)


class HearsMusic(Talk):
    async def text(self, message: dict[str, Any]) -> None:
        if message["type"] != "hold":
            await super().text(message)


class SilenceRaises(Talk):
    frames = 0

    async def audio(self, frame: bytes) -> None:
        await super().audio(frame)
        self.frames = 0 if self.loud else self.frames + 1
        if self.frames > 90:
            raise TimeoutError("nobody there")


class PauseRaises(Talk):
    async def run(self) -> None:
        while True:
            async with asyncio.timeout(0.6):
                message = await self.socket.recv()
            if isinstance(message, bytes):
                await self.audio(message)
            else:
                await self.text(json.loads(message))


class OtherRate(Talk):
    async def greet(self) -> None:
        await super().greet()
        data = {
            "audioDataType": "raw",
            "sampleRate": 44100,
            "audioData": base64.b64encode(bytes(880)).decode(),
        }
        await self.send(type="streamAudio", data=data)


class HalfSample(Talk):
    async def greet(self) -> None:
        await self.say(GREETING + b"\0")
        await self.ask("greeted")


class WavHeader(Talk):
    async def greet(self) -> None:
        await self.say(b"RIFF" + bytes(40) + GREETING)
        await self.ask("greeted")


class Slow(Talk):
    """Each 40 ms take 90 ms to make."""

    async def greet(self) -> None:
        self.later(self.slowly())

    async def slowly(self) -> None:
        for start in range(0, 9600, 640):
            await self.say(GREETING[start : start + 640])
            await asyncio.sleep(0.09)


class HugeText(Talk):
    async def greet(self) -> None:
        await super().greet()
        await self.send(type="caller_speech", speaking=True, transcript="x" * 300_000)


class GreetsAgain(Talk):
    async def start(self, message: dict[str, Any]) -> None:
        await self.greet()


class ForgetsOnStop(Talk):
    async def start(self, message: dict[str, Any]) -> None:
        if not message.get("resumed") or self.call_id not in self.bot.known:
            self.bot.known.add(self.call_id)
            await self.greet()

    async def other(self, message: dict[str, Any]) -> None:
        if message["type"] == "stop":
            self.bot.known.discard(self.call_id)


class KnowsEachCallOnce(Talk):
    async def start(self, message: dict[str, Any]) -> None:
        if self.call_id in self.bot.known:
            raise KeyError(self.call_id)
        await super().start(message)


class EndsOnce(Ending):
    async def start(self, message: dict[str, Any]) -> None:
        if not message.get("resumed"):
            await self.greet()


class EndsDifferently(Ending):
    def properties(self) -> dict[str, Any]:
        return {"summary": f"connection {id(self)}"}


class OneSocket(Talk):
    """The newest connection is everybody's."""

    async def run(self) -> None:
        self.bot.current = self.socket
        await super().run()

    async def greet(self) -> None:
        self.later(self.slowly())

    async def slowly(self) -> None:
        for start in range(0, len(GREETING), 320):
            await self.say(GREETING[start : start + 320])
            await asyncio.sleep(0.015)

    async def say(self, linear: bytes) -> None:
        assert self.bot.current is not None
        with contextlib.suppress(ConnectionClosed):
            await self.bot.current.send(linear)


class HangsAllUp(Talk):
    async def run(self) -> None:
        self.bot.sockets.append(self.socket)
        await super().run()

    async def other(self, message: dict[str, Any]) -> None:
        if message["type"] == "stop" and message["reason"] == "caller_hangup":
            for socket in self.bot.sockets:
                await socket.close(1000)


class NestedProperty(Ending):
    def properties(self) -> dict[str, Any]:
        return {"summary": "greeted", "customer": {"name": "Zoë"}}


class ClosesWith1011(Ending):
    async def broken_in(self) -> None:
        pass

    async def end(self) -> None:
        await self.socket.close(1011, "bye")


class LooksAtCaller(Bot):
    def admit(self, socket: ServerConnection, request: Request) -> Response | None:
        if not request.headers["X-From"].isdecimal():
            return socket.respond(HTTPStatus.BAD_REQUEST, "who is that?\n")
        return None


class OneCall(Bot):
    def admit(self, socket: ServerConnection, request: Request) -> Response | None:
        return socket.respond(HTTPStatus.SERVICE_UNAVAILABLE, "busy\n") if self.open else None


class TakesNone(Bot):
    def admit(self, socket: ServerConnection, request: Request) -> Response | None:
        return socket.respond(HTTPStatus.FORBIDDEN, "not you\n")


class TwilioTalk(Talk):
    """A bot that was written for Twilio, which has the stream's id where all calls find it."""

    stream: ClassVar[str] = ""

    async def run(self) -> None:
        async for text in self.socket:
            message = json.loads(text)
            if message["event"] == "start":
                type(self).stream = message["start"]["streamSid"]
                await self.greet()

    async def greet(self) -> None:
        self.later(self.slowly())

    async def slowly(self) -> None:
        for _ in range(10):
            payload = base64.b64encode(b"\x10\x90" * 400).decode()
            await self.socket.send(
                json.dumps({"event": "media", "streamSid": self.stream, "media": {"payload": payload}})
            )
            await asyncio.sleep(0.08)
