"""What all calls share: the registry, the event bus, the clock and the ports."""

from __future__ import annotations

import itertools
import socket
import time
import uuid
from typing import TYPE_CHECKING, Protocol

from eslbot.sim.events import Emit

from .media import Clock, RtpPorts
from .recovery import Tracking
from .tasks import Tasks
from .wire import Event

if TYPE_CHECKING:
    from .channel import Channel


class EventSink(Protocol):
    """Whoever gets every event offered; it decides whether it subscribed to it."""

    def deliver(self, event: Event) -> None:
        """Take ``event``, or leave it."""

    def shut_down(self) -> None:
        """The switch stops."""


class Core:
    """The heart of one switch."""

    def __init__(self, emit: Emit, tasks: Tasks, ports: RtpPorts, tracking: Tracking) -> None:
        self.tracking = tracking
        self.uuid = str(uuid.uuid4())
        self.emit, self.tasks, self.ports = emit, tasks, ports
        self.clock = Clock()
        #: Channels that are up, by their UUID; one that hung up is no longer found, like a session in
        #: FreeSWITCH.
        self.channels: dict[str, Channel] = {}
        self.sinks: set[EventSink] = set()
        self.globals = {"hostname": socket.gethostname(), "core_uuid": self.uuid}
        self.started = time.time()
        self._sequence = itertools.count(1)

    def event(self, name: str, headers: list[tuple[str, str]], body: str = "", subclass: str = "") -> Event:
        """An event with the headers every event has (``switch_event_prep_for_delivery``) before its own."""
        now = time.time()
        local, utc = time.localtime(now), time.gmtime(now)
        common = [
            ("Event-Name", name),
            ("Core-UUID", self.uuid),
            ("FreeSWITCH-Hostname", self.globals["hostname"]),
            ("FreeSWITCH-Switchname", self.globals["hostname"]),
            ("Event-Date-Local", time.strftime("%Y-%m-%d %H:%M:%S", local)),
            ("Event-Date-GMT", time.strftime("%a, %d %b %Y %H:%M:%S GMT", utc)),
            ("Event-Date-Timestamp", str(int(now * 1_000_000))),
            ("Event-Sequence", str(next(self._sequence))),
        ]
        if subclass:
            common.append(("Event-Subclass", subclass))
        return Event(name, common + headers, body, subclass)

    def fire(self, event: Event) -> None:
        """Offer ``event`` to every listener."""
        for sink in list(self.sinks):
            sink.deliver(event)
