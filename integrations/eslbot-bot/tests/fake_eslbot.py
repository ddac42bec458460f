"""eslbot's side of the protocol, in the hands of a test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

from eslbot_bot import Bot, Call

START: dict[str, Any] = {
    "type": "start",
    "version": "1",
    "call_id": "6e7cd1a1-0b1a-4ad5-8a2c-1d1b3b3b3b3b",
    "workspace_id": "2b37ba17-7b20-4b3e-b138-1161e351d5c5",
    "did": "00919990152080",
    "crt_object_id": "d444-6a1c8f2e-vce-3883",
    "from": "0401234567",
    "to": "bot",
    "audio": {"encoding": "l16", "sample_rate": 8000, "channels": 1},
}
LIMIT = 10.0


class Relay:
    """One connection to the bot: a relay's, or what comes after it."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.speech = bytearray()

    async def tell(self, **message: Any) -> None:
        await self.socket.send(json.dumps(message))

    async def start(self, **fields: Any) -> None:
        await self.tell(**{**START, **fields})

    async def next(self) -> dict[str, Any]:
        """The bot's next text; binary messages before it are in ``speech``."""
        while True:
            message = await self.socket.recv()
            if isinstance(message, str):
                return dict(json.loads(message))
            self.speech += message

    async def answer_mark(self, *, cleared: bool = False) -> str:
        """Give the bot's next mark, which has to be its next text, back; its name on the wire."""
        message = await self.next()
        assert message["type"] == "mark", message
        await self.tell(type="mark", name=message["name"], **({"cleared": True} if cleared else {}))
        return str(message["name"])

    async def break_off(self) -> None:
        """As a relay that is killed: no close frame."""
        self.socket.transport.abort()
        await self.socket.wait_closed()

    async def stop(self, reason: str = "ended") -> None:
        await self.tell(type="stop", reason=reason)
        await self.socket.close()

    async def closed(self) -> int:
        """The code with which the bot closes; what it says until then is read."""
        try:
            while True:
                await self.next()
        except ConnectionClosed:
            pass
        assert self.socket.close_code is not None
        return self.socket.close_code


class House:
    """A bot's server, and who dials it."""

    def __init__(self, bot: Bot, port: int) -> None:
        self.bot, self.port = bot, port
        self._open: list[ClientConnection] = []

    async def dial(self, call_id: str = START["call_id"], **headers: str) -> Relay:
        socket = await connect(
            f"ws://127.0.0.1:{self.port}/",
            additional_headers={"X-Call-ID": call_id, **headers},
            compression=None,
            proxy=None,
        )
        self._open.append(socket)
        return Relay(socket)

    async def begin(self, **fields: Any) -> Relay:
        relay = await self.dial(fields.get("call_id", START["call_id"]))
        await relay.start(**fields)
        return relay

    def close(self) -> None:
        for socket in self._open:  # what is unread would be waited for
            socket.transport.abort()


@asynccontextmanager
async def house(handler: Callable[[Call], Awaitable[None]], **options: Any) -> AsyncIterator[House]:
    bot = Bot(handler, **options)
    async with serve(bot, "127.0.0.1", 0, compression=None, process_request=bot.process_request) as server:
        made = House(bot, server.sockets[0].getsockname()[1])
        try:
            yield made
        finally:
            made.close()
            await bot.drain(0)


def play(
    story: Callable[[House], Awaitable[None]], handler: Callable[[Call], Awaitable[None]], **options: Any
) -> None:
    """Run a story against a bot, within :data:`LIMIT` seconds."""

    async def told() -> None:
        async with house(handler, **options) as made:
            await story(made)

    asyncio.run(asyncio.wait_for(told(), LIMIT))
