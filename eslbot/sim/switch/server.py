"""The switch: its settings, its parts put together, its start and its end."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from eslbot.sim.events import Emit, silent

from .applications import APPLICATIONS
from .capture import Capture
from .channel import Channel
from .core import Core
from .dialplan import Dialplan
from .event_socket import CONNECT_WAIT
from .inbound import Inbound
from .media import RtpPorts
from .recovery import Row, RowError, Tracking
from .sip import SipEndpoint
from .sip_dialog import SipCall
from .sip_transaction import T1
from .tasks import Tasks

#: Seconds from the re-INVITE by which a call is taken up to its dialplan: one that is refused at once never
#: comes to a controller (measured).
SETTLE = 0.02
#: Seconds live calls get to end by themselves when the switch stops.
GRACE = 1.0


@dataclass(frozen=True)
class SwitchSettings:
    """What a switch needs to know.

    ``controllers`` are the outbound event socket's hosts and ports in order; ``rtp_ports`` the first and last
    UDP port. ``sip_t1`` (RFC 3261, 17.1.1.1), ``connect_wait`` (how long a controller may take to say
    ``connect``) and ``media_timeout`` (how long a PBX may send no RTP at all before its call is ended) are
    seconds, shorter in tests. ``capture`` gets copies of SIP messages. In ``core_db``, a directory, are the
    rows of the calls that are up: those that a process before has left are taken up at the start. Who knows
    ``event_socket_password`` may ask at ``event_socket``.
    """

    sip_listen: tuple[str, int]
    allow: Sequence[IPv4Network | IPv6Network]
    controllers: Sequence[tuple[str, int]]
    rtp_ports: tuple[int, int]
    sip_t1: float = T1
    connect_wait: float = CONNECT_WAIT
    media_timeout: float = 300.0
    capture: tuple[str, int] | None = None
    core_db: Path | None = None
    event_socket: tuple[str, int] | None = None
    event_socket_password: str = ""


class Switch:
    """FreeSWITCH and mod_audio_stream, as far as eslbot and a PBX can tell."""

    def __init__(self, settings: SwitchSettings, emit: Emit = silent) -> None:
        if not settings.controllers:
            raise ValueError("a switch needs at least one controller")
        self._emit = emit
        self._tasks = Tasks(emit)
        self._tracking = Tracking(settings.core_db)
        self._core = Core(emit, self._tasks, RtpPorts(*settings.rtp_ports), self._tracking)
        self._dialplan = Dialplan(
            self._core, settings.controllers, settings.connect_wait, settings.media_timeout
        )
        self._capture = Capture(settings.capture)
        self._sip = SipEndpoint(
            settings.sip_listen, settings.allow, self._call, emit, settings.sip_t1, self._capture
        )
        self._inbound: Inbound | None = None
        if settings.event_socket is not None:
            self._inbound = Inbound(self._core, settings.event_socket, settings.event_socket_password)
        self._clock: asyncio.Task[None] | None = None
        self._sessions: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def sip_address(self) -> tuple[str, int]:
        """Host and port of SIP, UDP and TCP alike, once started."""
        return self._sip.address

    @property
    def calls(self) -> int:
        """How many channels are up."""
        return len(self._core.channels)

    async def start(self) -> None:
        """Open the ports. Raises OSError where one is taken."""
        if self._inbound is not None:
            await self._inbound.start()
        await self._sip.start()
        self._clock = self._tasks.start(self._core.clock.run(), "the 20 ms clock")
        self._emit("ready", {"sip": "{}:{}".format(*self.sip_address)})
        for row in self._tracking.take():
            self._recover(row)

    async def stop(self) -> None:
        """End every call, as FreeSWITCH does when it shuts down (with BYE), and close everything."""
        self._stopping = True
        for channel in list(self._core.channels.values()):
            channel.hangup("SYSTEM_SHUTDOWN")
        if self._sessions:
            await asyncio.wait(self._sessions, timeout=GRACE)
        for sink in list(self._core.sinks):
            sink.shut_down()
        if self._clock is not None:
            self._clock.cancel()
        await self._tasks.stop(GRACE)
        self._tracking.flush()
        self._sip.close()
        if self._inbound is not None:
            self._inbound.close()
        self._capture.close()
        self._emit("stopped", {"clock_ticks_skipped": self._core.clock.skipped})

    def _call(self, call: SipCall) -> None:
        """A new INVITE with an offer that suits, or with none."""
        source = f"{call.peer.host}:{call.peer.port}"
        display = {"from_display": call.sender.display, "transport": call.peer.transport}
        self._emit("invite", {"call_id": call.call_id, **display, "source": source})
        if self._stopping:
            call.refuse(503, "Service Unavailable")
            return
        try:
            channel = Channel(self._core, call, APPLICATIONS)
        except OSError as error:
            call.refuse(502, "Bad Gateway")
            self._emit(
                "refused", {"status": 502, "reason": str(error), "call_id": call.call_id, "source": source}
            )
            return
        call.handler = channel
        self._run(channel)

    def _recover(self, row: Row | RowError) -> None:
        """Take up a call of the process before this one."""
        try:
            if isinstance(row, RowError):
                raise row
            row.check()
            invite, peer = row.request(), (row.host, row.port)
            offer = replace(row.offer, direction="sendrecv")  # nothing is held any more (measured)
            call = self._sip.restore(invite, peer, row.local_tag, row.remote_cseq, offer)
            channel = Channel(self._core, call, APPLICATIONS, row)
        except (RowError, OSError) as error:
            about = {"uuid": row.uuid} if isinstance(row, Row) else {}
            self._emit("not_recovered", {"reason": str(error), **about})
            return
        call.handler = channel
        self._emit("recovered", channel.identity())
        channel.take_up()
        asyncio.get_running_loop().call_later(SETTLE, self._run, channel)

    def _run(self, channel: Channel) -> None:
        session = self._tasks.start(self._dialplan.run(channel), f"call {channel.uuid}")
        self._sessions.add(session)
        session.add_done_callback(self._sessions.discard)


async def run(settings: SwitchSettings, emit: Emit) -> None:
    """Run a switch until SIGINT or SIGTERM, then stop it cleanly."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    switch = Switch(settings, emit)
    await switch.start()
    try:
        await ended.wait()
    finally:
        await switch.stop()
