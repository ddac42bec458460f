"""A bot on a real server, and eslbot's side of a real connection to it."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn
from fakes import CALL, start
from pipecat_eslbot import Bot, application
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed


class Eslbot:
    """A connection as the relay has it. ``heard`` is the bot's speech, ``told`` its messages."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.heard = bytearray()
        self.told: list[dict[str, Any]] = []

    async def say(self, message: str | bytes | dict[str, Any]) -> None:
        await self.socket.send(json.dumps(message) if isinstance(message, dict) else message)

    async def until(self, kind: str, limit: float = 10.0) -> dict[str, Any]:
        """The bot's next message of this type."""
        async with asyncio.timeout(limit):
            while True:
                message = await self.socket.recv()
                if isinstance(message, bytes):
                    self.heard += message
                    continue
                self.told.append(json.loads(message))
                if self.told[-1]["type"] == kind:
                    return self.told[-1]

    async def closed(self, limit: float = 10.0) -> int | None:
        """The code with which the bot closes."""
        with suppress(ConnectionClosed):
            await self.until("nothing that there is", limit)
        return self.socket.close_code

    def break_off(self) -> None:
        """End TCP without a close frame."""
        self.socket.transport.abort()


class Served:
    """Where a bot listens."""

    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/line"

    @asynccontextmanager
    async def connection(
        self,
        *,
        resumed: bool = False,
        call_id: str = CALL,
        rate: int = 8000,
        before: bytes = b"",
        **headers: str,
    ) -> AsyncIterator[Eslbot]:
        """A connection that has said ``start``, and audio ``before`` it."""
        sent = {"X-Call-ID": call_id, **headers}
        async with connect(self.url, proxy=None, compression=None, additional_headers=sent) as socket:
            if before:
                await socket.send(before)
            await socket.send(start(resumed=resumed, call_id=call_id, rate=rate))
            yield Eslbot(socket)


@asynccontextmanager
async def serving(bot: Bot, **options: Any) -> AsyncIterator[Served]:
    """Run ``bot`` on a free port of loopback."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(bot, **options), log_level="warning", log_config=None))
    running = asyncio.create_task(server.serve([listening]))
    try:
        yield Served(listening.getsockname()[1])
    finally:
        server.should_exit = True
        await running
        listening.close()
