"""A voice bot for hundreds of calls, as ``eslbot.sim.bot`` with its two threads a call is not.

``python -m eslbot.sim.loadtest.bot`` listens on a free port of loopback and writes a line of JSON for each
thing that happens. A call's URL says how it goes: ``/?seconds=10&speak_ms=2000&pause_ms=1000``: it speaks and
pauses by turns, and says ``end`` so many seconds behind ``start``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import signal
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from eslbot.sim.audio import tone
from eslbot.sim.events import JsonLines

RATE, CHUNK_MS, TONE = 8000, 100, 440
PROPERTIES = {"agent_group": "load"}

Tell = Callable[[str, dict[str, Any]], None]


def chunk() -> str:
    """100 ms of a tone as ``streamAudio``; as it holds whole periods, any number of them is one tone."""
    audio = base64.b64encode(tone(TONE, CHUNK_MS / 1000, RATE)).decode()
    data = {"audioDataType": "raw", "sampleRate": RATE, "audioData": audio}
    return json.dumps({"type": "streamAudio", "data": data})


async def talk(connection: ServerConnection, seconds: float, speak: float, pause: float, text: str) -> None:
    """Speak and pause until the call's seconds are over, in real time against its beginning."""
    begun = time.monotonic()
    elapsed = 0.0
    while elapsed < seconds:
        if elapsed % (speak + pause) < speak:
            await connection.send(text)
        elapsed += CHUNK_MS / 1000
        await asyncio.sleep(begun + elapsed - time.monotonic())


async def answer(connection: ServerConnection, tell: Tell, text: str) -> None:
    """One call."""
    request = connection.request
    assert request is not None  # the handler runs after the upgrade
    wanted = {"seconds": 10.0, "speak_ms": 2000.0, "pause_ms": 1000.0}
    wanted |= {name: float(value) for name, value in parse_qsl(urlsplit(request.path).query)}
    crt = request.headers.get("X-CRT-Object-ID")
    received = 0
    talking: asyncio.Task[None] | None = None

    async def whole_talk() -> None:
        speak, pause = wanted["speak_ms"] / 1000, wanted["pause_ms"] / 1000
        with contextlib.suppress(ConnectionClosed):  # the caller left; "closed" tells
            await talk(connection, wanted["seconds"], speak, pause, text)
            tell("end", {"crt": crt})
            await connection.send(json.dumps({"type": "end", "properties": PROPERTIES, "reason": "done"}))

    try:
        async for message in connection:
            if isinstance(message, bytes):
                received += len(message)
            elif talking is None:  # "start"
                tell("start", {"crt": crt})
                talking = asyncio.create_task(whole_talk())
    except ConnectionClosed:
        pass  # without a close frame: what is counted is told all the same
    finally:
        if talking is not None:
            talking.cancel()
        tell("closed", {"crt": crt, "heard": received / 2 / RATE})


async def run(tell: Tell) -> None:
    """Serve until SIGTERM."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    text = chunk()
    async with serve(
        lambda connection: answer(connection, tell, text),
        "127.0.0.1",
        0,
        compression=None,
        ping_interval=None,
        close_timeout=1.0,
    ) as server:
        tell("ready", {"port": server.sockets[0].getsockname()[1]})
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(run(JsonLines(sys.stdout, "bot")))
