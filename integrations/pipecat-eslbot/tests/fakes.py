"""eslbot's side of a connection, without a network."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from starlette.types import Message
from starlette.websockets import WebSocket

CALL = "6e7cd1a1-0b1a-4ad5-8a2c-1d1b3b3b3b3b"


def start(*, resumed: bool = False, rate: int = 8000, call_id: str = CALL, **more: Any) -> str:
    """A ``start``, as eslbot sends it."""
    message = {
        "type": "start",
        "version": "1",
        "call_id": call_id,
        "workspace_id": "2b37ba17-7b20-4b3e-b138-1161e351d5c5",
        "did": "00919990152080",
        "crt_object_id": "d444-6a1c8f2e-vce-3883",
        "from": "0401234567",
        "to": "bot",
        "audio": {"encoding": "l16", "sample_rate": rate, "channels": 1},
    }
    return json.dumps({**message, **({"resumed": True} if resumed else {}), **more})


class FakeSocket:
    """An accepted Starlette WebSocket whose peer is the test.

    Attributes:
        sent: what the bot's side has sent: bytes, or a JSON object.
        closed: the code with which the bot's side has closed; None while it has not.
        broken: sending raises, as on a connection that is gone.
    """

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.closed: int | None = None
        self.broken = False
        self._coming: asyncio.Queue[Message] = asyncio.Queue()

    @property
    def starlette(self) -> WebSocket:
        """As what it is used."""
        return cast(WebSocket, self)

    # -- the peer

    def say(self, message: str | bytes | dict[str, Any]) -> None:
        """Send a message to the bot's side."""
        if isinstance(message, bytes):
            self._coming.put_nowait({"type": "websocket.receive", "bytes": message})
            return
        text = message if isinstance(message, str) else json.dumps(message)
        self._coming.put_nowait({"type": "websocket.receive", "text": text})

    def hang_up(self, code: int) -> None:
        """Close, or break (1006)."""
        self.broken = True
        self._coming.put_nowait({"type": "websocket.disconnect", "code": code})

    # -- what is used of Starlette's

    async def receive(self) -> Message:
        return await self._coming.get()

    async def send_bytes(self, data: bytes) -> None:
        self._check()
        self.sent.append(data)

    async def send_text(self, data: str) -> None:
        self._check()
        self.sent.append(json.loads(data))

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.closed = code
        self.hang_up(code)

    def _check(self) -> None:
        if self.broken:
            raise RuntimeError('Unexpected ASGI message "websocket.send"')
