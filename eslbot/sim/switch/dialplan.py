"""What happens to a call: the loop of ``socket`` actions that never lets go of a customer.

It is the dialplan of the facts, in code: the controllers in order, then in the other order, with pauses of
100 and 400 ms, for ever once the call is answered. Before the answer, every controller gets two chances, then
the PBX gets a 503.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Sequence

from .api import Api
from .channel import Channel
from .core import Core
from .event_socket import CONNECT_WAIT, MAX_LINE, Listener

#: The most seconds one TCP connect may take; FreeSWITCH itself waits as long as the kernel does, two minutes
#: or so.
TCP_WAIT = 45.0

PAUSES = (0.1, 0.4)

_VARIABLES = {
    "socket_resume": "true",
    "playback_terminators": "none",
    "rtp_autoflush": "true",
    "send_silence_when_idle": "-1",
    "max_forwards": "70",
}

Address = tuple[str, int]


class Dialplan:
    """Runs calls, each in the task that is its session's thread."""

    def __init__(
        self, core: Core, controllers: Sequence[Address], connect_wait: float = CONNECT_WAIT
    ) -> None:
        self._core, self._api, self._controllers = core, Api(core), list(controllers)
        self._connect_wait = connect_wait

    async def run(self, channel: Channel) -> None:
        """Serve ``channel`` until it has hung up."""
        try:
            for name, value in _VARIABLES.items():
                channel.variables.set(name, value)
            await self._rounds(channel)
        finally:
            channel.finish()

    async def _rounds(self, channel: Channel) -> None:
        misses: Counter[Address] = Counter()
        for number in itertools.count():
            count = len(self._controllers)
            order = [self._controllers[(number + n) % count] for n in range(count)]
            reached = await self._socket(channel, order, misses)
            if channel.down:
                return
            if reached:
                misses.clear()
            elif not channel.answered and all(misses[address] >= 2 for address in self._controllers):
                channel.variables.set("sip_rh_Retry-After", "5")
                await channel.execute("respond", "503 Service Unavailable")
            await channel.dwell(seconds=PAUSES[number % len(PAUSES)])
            if channel.down:
                return

    async def _socket(self, channel: Channel, order: Sequence[Address], misses: Counter[Address]) -> bool:
        """The application ``socket A|B async full``; whether a controller took the call with ``connect``."""
        for address in order:
            host, port = address
            fields = {"controller": f"{host}:{port}", **channel.identity()}
            channel.variables.set("socket_host", host)
            try:
                async with asyncio.timeout(TCP_WAIT):
                    reader, writer = await asyncio.open_connection(host, port, limit=MAX_LINE)
            except (OSError, TimeoutError) as error:
                misses[address] += 1
                self._core.emit("controller", {"state": "unreachable", "error": str(error), **fields})
                continue
            listener = Listener(self._core, self._api, channel, reader, writer, self._connect_wait)
            serving = self._core.tasks.start(listener.run(), f"controller of {channel.uuid}")
            if await _first(listener.connected, listener.finished):
                self._core.emit("controller", {"state": "connected", **fields})
            else:
                misses[address] += 1
                self._core.emit("controller", {"state": "no connect", **fields})
            await channel.park()
            if listener.connected.is_set():
                self._core.emit("controller", {"state": "lost" if serving.done() else "left", **fields})
            return listener.connected.is_set()
        return False


async def _first(wanted: asyncio.Event, other: asyncio.Event) -> bool:
    """Wait until one of the two is set; whether it was ``wanted``."""
    waits = [asyncio.ensure_future(event.wait()) for event in (wanted, other)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return wanted.is_set()
