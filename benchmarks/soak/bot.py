"""The soak's voice bot: asyncio, hundreds of calls, and nothing kept of them but how they ended.

``python -m benchmarks.soak.bot PORT`` (0 takes a free one) writes a line of JSON for each thing that happens.
A call's path says how it goes: ``/speak`` and ``/drone`` speak and pause by turns, ``/interrupt`` says a lot
at once and takes it back when the caller speaks, ``/keys`` speaks until it is told ``#``.

A connection that continues an old call (``"resumed": true``) goes on as if it were new, and where this
process has said ``end`` in that call already, says it again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from eslbot.sim.events import JsonLines
from eslbot.sim.loadtest.bot import CHUNK_MS, chunk

PROPERTIES = {"agent_group": "soak"}
#: Calls of which it is remembered that they were finished.
REMEMBERED = 1000
#: Seconds for the other side to close behind ``end``.
PART_LIMIT = 60.0

Tell = Callable[[str, dict[str, Any]], None]


class Server:
    """All calls of the process."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._finished: OrderedDict[str, None] = OrderedDict()

    async def answer(self, connection: ServerConnection) -> None:
        """One connection."""
        request = connection.request
        assert request is not None  # the handler runs after the upgrade
        url = urlsplit(request.path)
        crt = request.headers.get("X-CRT-Object-ID") or ""
        call = Call(
            connection,
            dict(parse_qsl(url.query)),
            lambda event, fields: self._tell(event, {"crt": crt, **fields}),
        )
        way = {"/interrupt": call.interrupt, "/keys": call.keys}.get(url.path, call.speak)
        reader = asyncio.create_task(call.read())
        # Of what goes on without the peer: it left, and ``closed`` tells.
        with contextlib.suppress(ConnectionClosed, asyncio.TimeoutError):
            start = await asyncio.wait_for(call.started, 10)
            if not (start.get("resumed") and crt in self._finished):
                await way()
            await connection.send(json.dumps({"type": "end", "properties": PROPERTIES, "reason": "done"}))
            self._finished[crt] = None
            if len(self._finished) > REMEMBERED:
                self._finished.popitem(last=False)
            self._tell("end", {"crt": crt})
            await asyncio.wait_for(connection.wait_closed(), PART_LIMIT)
        await connection.close()
        reader.cancel()
        self._tell("closed", {"crt": crt})


class Call:
    """One connection: what the caller does, and ways to speak with him."""

    def __init__(self, connection: ServerConnection, wanted: dict[str, str], tell: Tell) -> None:
        self._connection, self._wanted, self._tell = connection, wanted, tell
        self.started: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._keys = ""
        self._pressed = asyncio.Event()
        self._chunk = chunk()

    async def read(self) -> None:
        """Take what comes until the connection is closed."""
        with contextlib.suppress(ConnectionClosed):
            async for message in self._connection:
                if isinstance(message, str):
                    self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "start" if not self.started.done():
                self.started.set_result(message)
            case "dtmf":
                self._keys = (self._keys + message["digit"])[-32:]
                self._pressed.set()
                self._tell("key", {"key": message["digit"]})  # at once: it may be killed before the end
            case "hold" if message["on"]:
                self._tell("hold", {})
            case "cleared":
                self._tell("cleared", {})

    def _number(self, name: str, default: float) -> float:
        return float(self._wanted.get(name, default))

    async def speak(self) -> None:
        """Speak and pause by turns, in real time, until the seconds are over; for ever without any."""
        begun, total = time.monotonic(), self._number("seconds", float("inf"))
        speak, pause = self._number("speak_ms", 1000) / 1000, self._number("pause_ms", 0) / 1000
        elapsed = 0.0
        while elapsed < total:
            if elapsed % (speak + pause) < speak:
                await self._connection.send(self._chunk)
            elapsed += CHUNK_MS / 1000
            await asyncio.sleep(begun + elapsed - time.monotonic())

    async def interrupt(self) -> None:
        """Say a lot at once, hear the caller, drop it, and begin again."""
        until = time.monotonic() + self._number("seconds", 10)
        while time.monotonic() < until:
            for _ in range(int(self._number("speak_ms", 3000) // CHUNK_MS)):
                await self._connection.send(self._chunk)
            await asyncio.sleep(self._number("after_ms", 800) / 1000)
            self._tell("clear", {})
            await self._connection.send('{"type": "clear"}')
            await asyncio.sleep(0.5)

    async def keys(self) -> None:
        """Speak until ``#``, or the seconds are over."""
        until = time.monotonic() + self._number("seconds", 20)
        while "#" not in self._keys and time.monotonic() < until:
            await self._connection.send(self._chunk)
            self._pressed.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._pressed.wait(), CHUNK_MS / 1000)


async def run(port: int, tell: Tell) -> None:
    """Serve until SIGTERM."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    async with serve(
        Server(tell).answer, "127.0.0.1", port, compression=None, ping_interval=None, close_timeout=1.0
    ) as server:
        tell("ready", {"port": server.sockets[0].getsockname()[1]})
        await stopped.wait()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the soak, which ends this one
    asyncio.run(run(int(sys.argv[1]), JsonLines(sys.stdout, "bot")))
