"""A WebSocket client, as the stand-in bot's tests need it."""

from __future__ import annotations

import base64
import json

from websockets.sync.client import ClientConnection, connect

from eslbot.sim.bot import Bot


def join(bot: Bot, behaviour: str, **headers: str) -> ClientConnection:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    # No bound on what waits to be read: a client that has stopped reading cannot close.
    return connect(bot.url(behaviour), additional_headers=named, proxy=None, compression=None, max_queue=None)


def until(ws: ClientConnection, kind: str) -> tuple[bytes, dict]:
    """The raw speech up to a message of type ``kind``, and that message."""
    speech = b""
    while True:
        message = json.loads(ws.recv(timeout=5))
        if message["type"] == kind:
            return speech, message
        if message["type"] == "streamAudio":
            assert message["data"]["audioDataType"] == "raw"
            speech += base64.b64decode(message["data"]["audioData"])
