"""A web server that is nothing but a bot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from pipecat_eslbot.calls import Bot, Calls

#: Bytes of a message of eslbot's; what is longer is none.
MAX_MESSAGE = 64 * 1024


def application(bot: Bot, *, authorization: str | None = None, patience: float = 10.0) -> Starlette:
    """An ASGI application that takes calls on every path; the arguments are those of :class:`Calls`."""
    calls = Calls(bot, authorization=authorization, patience=patience)

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        yield
        await calls.close()

    return Starlette(routes=[WebSocketRoute("/{path:path}", calls.handle)], lifespan=life)


def run(bot: Bot, host: str = "127.0.0.1", port: int = 7860, *, authorization: str | None = None) -> None:
    """Serve ``bot`` by uvicorn until the process is stopped; ``authorization`` as of :class:`Calls`."""
    app = application(bot, authorization=authorization)
    uvicorn.run(app, host=host, port=port, ws_per_message_deflate=False, ws_max_size=MAX_MESSAGE)
