"""Bots with one fault each, for the conformance kit."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from http import HTTPStatus
from typing import Any, ClassVar

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.support.check_bots import GREETING, Bot, Ending, Talk


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
