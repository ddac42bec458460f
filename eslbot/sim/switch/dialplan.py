"""What happens to a call: ``freeswitch-conf/dialplan/ameyo.xml``, in code.

It hands the call to a controller, and whenever that one is gone, to the next: for ever, once the call is
answered. Before the answer there are three tries, then the PBX gets a 503.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from .api import Api
from .channel import Channel
from .core import Core
from .event_socket import MAX_LINE, Listener

#: The most seconds one TCP connect may take; FreeSWITCH itself waits as long as the kernel does, two minutes
#: or so.
TCP_WAIT = 45.0

#: Seconds before the last try of a call that is not answered, and before the next round of one that is
#: where no controller has counted its taking over in the last.
LAST_TRY, BREATHE = 0.2, 0.3
#: What a call that nobody wanted is told to wait, in seconds.
RETRY_AFTER = 5

Address = tuple[str, int]


class Dialplan:
    """Runs calls, each in the task that is its session's thread. ``media_timeout`` is in seconds."""

    def __init__(
        self, core: Core, controllers: Sequence[Address], connect_wait: float, media_timeout: float
    ) -> None:
        self._core, self._api = core, Api(core)
        self._controllers = list(controllers)
        self._rotated = self._controllers[1:] + self._controllers[:1]
        self._connect_wait = connect_wait
        self._variables = {
            "max_forwards": "70",
            "socket_resume": "true",
            "playback_terminators": "none",
            "send_silence_when_idle": "-1",
            "rtp_autoflush": "true",
            "rtp_disable_hold": "true",
            "sip_unhold_nosdp": "true",
            "disable_rtp_auto_adjust": "true",
            "sip_rh_X-Dialplan": "true",
            "media_timeout": str(round(media_timeout * 1000)),
        }

    async def run(self, channel: Channel) -> None:
        """Serve ``channel`` until it has hung up; one that was taken up begins its last extension again."""
        try:
            if channel.arrived:
                for name, value in self._variables.items():
                    channel.variables.set(name, value)
                await self._arrival(channel)
            while channel.answered and not channel.down:
                channel.arrived = False
                channel.track()
                await self._round(channel)
        finally:
            await channel.finish()

    async def _arrival(self, channel: Channel) -> None:
        """Until the call is answered, or refused."""
        self._note_the_count(channel)
        await self._socket(channel, self._controllers)
        await self._socket(channel, self._rotated)
        if not channel.answered:
            await channel.dwell(seconds=LAST_TRY)
            await self._socket(channel, self._rotated)
        if not channel.answered:
            channel.variables.set("sip_rh_Retry-After", str(RETRY_AFTER))
            await channel.execute("respond", "503 Service Unavailable")
            await asyncio.sleep(0)  # the hang-up comes right after

    async def _round(self, channel: Channel) -> None:
        """One round with a customer on the line."""
        if channel.variables.get("eslbot_tried", "") == channel.variables.get("eslbot_take_overs", ""):
            await channel.dwell(seconds=BREATHE)
        self._note_the_count(channel)
        for _ in range(2):
            await self._socket(channel, self._controllers)
            await self._socket(channel, self._rotated)

    @staticmethod
    def _note_the_count(channel: Channel) -> None:
        channel.variables.set("eslbot_tried", channel.variables.get("eslbot_take_overs", ""))

    async def _socket(self, channel: Channel, order: Sequence[Address]) -> None:
        """The application ``socket A|B async full``: the first that takes a connection has the call."""
        for host, port in order:
            if channel.down:
                return
            fields = {"controller": f"{host}:{port}", **channel.identity()}
            channel.variables.set("socket_host", host)
            try:
                async with asyncio.timeout(TCP_WAIT):
                    reader, writer = await asyncio.open_connection(host, port, limit=MAX_LINE)
            except (OSError, TimeoutError) as error:
                self._core.emit("controller", {"state": "unreachable", "error": str(error), **fields})
                continue
            listener = Listener(self._core, self._api, channel, reader, writer, self._connect_wait)
            serving = self._core.tasks.start(listener.run(), f"controller of {channel.uuid}")
            connected = await _first(listener.connected, listener.finished)
            self._core.emit("controller", {"state": "connected" if connected else "no connect", **fields})
            await channel.park()
            if connected:
                self._core.emit("controller", {"state": "lost" if serving.done() else "left", **fields})
            return


async def _first(wanted: asyncio.Event, other: asyncio.Event) -> bool:
    """Wait until one of the two is set; whether it was ``wanted``."""
    waits = [asyncio.ensure_future(event.wait()) for event in (wanted, other)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return wanted.is_set()
