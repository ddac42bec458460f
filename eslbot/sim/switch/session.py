"""The session's thread: the queue of commands, and the applications that it executes."""

from __future__ import annotations

import asyncio
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .wire import Variables, expand, is_true

if TYPE_CHECKING:
    from .core import Core

#: The commands a session may have waiting (SWITCH_EVENT_QUEUE_LEN).
MAX_QUEUE = 256


@dataclass(frozen=True)
class Command:
    """One ``sendmsg``: ``execute`` an application, or ``hangup``; ``locked`` is ``event-lock: true``."""

    kind: str
    app: str = ""
    argument: str = ""
    event_uuid: str = ""
    locked: bool = False
    loops: int = 1
    cause: str = "NORMAL_CLEARING"


class Session(ABC):
    """What a channel executes, one thing after the other; everybody else queues, and wakes it.

    ``applications`` get what stands behind their name in the dialplan.
    """

    def __init__(self, core: Core, applications: dict[str, Callable[[str], Awaitable[None]]]) -> None:
        self.core = core
        self.variables = Variables()
        self.answered = self.early = self.down = self.parked = False
        self._applications = applications
        self._queue: deque[Command] = deque()
        self.wake = asyncio.Event()
        self._locks = 0
        self._broken = self._reset = False

    @abstractmethod
    def fire(self, name: str, extra: Iterable[tuple[str, str | None]] = ()) -> None:
        """Fire an event about this channel."""

    @abstractmethod
    def hangup(self, cause: str, disposition: str | None = "") -> None:
        """Hang up."""

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """Whose report this is."""

    @abstractmethod
    def begin_park(self) -> None:
        """Media is up, and the session parks."""

    def enqueue(self, command: Command) -> bool:
        """Queue a command; False where 256 are waiting already."""
        if len(self._queue) >= MAX_QUEUE:
            return False
        self._queue.append(command)
        self.wake.set()
        return True

    def stop_application(self, flush: bool = False) -> None:
        """``uuid_break``: end what is playing; with ``flush`` drop what is queued, which gets no event at
        all."""
        if flush:
            self._queue.clear()
        self._broken = True
        self.wake.set()

    def unbreak(self) -> None:
        """Forget a break: the next sound begins."""
        self._broken = False

    def take_over(self) -> None:
        """A controller with ``socket_resume`` has gone: leave the park, cutting what is playing
        (CS_RESET)."""
        if not self.down:
            self._reset = True
            self.wake.set()

    async def park(self) -> None:
        """Execute what is queued until hang-up or take-over."""
        if not self._reset and not self.down:
            self.parked = True
            if self.answered or self.early:
                self.begin_park()
            self.fire("CHANNEL_PARK")
            while not self.down and not self._reset:
                if self._queue:
                    await self._run(self._queue.popleft())
                else:
                    self.wake.clear()
                    await self.wake.wait()
            self.parked = False
            self.fire("CHANNEL_UNPARK")
        # switch_ivr_parse_all_events after the park: what was queued still runs, but nothing plays any more.
        while self._queue and not self.down:
            await self._run(self._queue.popleft())
        self._reset = False

    async def dwell(self, seconds: float | None = None, until: asyncio.Future[None] | None = None) -> str:
        """Stay in an application; returns why it ended: ``done``, ``break``, ``reset`` or ``hangup``.

        Meanwhile commands are executed inside it, as FreeSWITCH does, unless the running one has
        ``event-lock``.
        """
        loop = asyncio.get_running_loop()
        deadline = None if seconds is None else loop.time() + seconds
        if until is not None:
            until.add_done_callback(lambda _: self.wake.set())
        while True:
            if self.down:
                return "hangup"
            if self._reset:
                return "reset"
            if self._broken:
                return "break"
            if until is not None and until.done():
                return "done"
            left = None if deadline is None else deadline - loop.time()
            if left is not None and left <= 0:
                return "done"
            if self._queue and not self._locks:
                await self._run(self._queue.popleft())
                continue
            self.wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self.wake.wait()
            except TimeoutError:
                return "done"

    async def execute(self, app: str, argument: str = "", event_uuid: str = "") -> None:
        """Execute one application with its two events (``switch_core_session_exec``)."""
        app = app.lower()
        application = self._applications.get(app)
        if self.down:
            return
        if application is None:
            # switch_core_session_execute_application_get_flags: no event at all, and the call is gone.
            self.core.emit("error", {"error": f"Invalid Application {app}", **self.identity()})
            self.hangup("DESTINATION_OUT_OF_ORDER")
            return
        argument = expand(argument, self.variables)
        headers = [("Application", app), ("Application-Data", argument or None)]
        identifier = ("Application-UUID", event_uuid or str(uuid.uuid4()))
        self.variables.set("current_application", app)
        self.variables.set("current_application_data", argument)
        self.variables.set("current_application_response", None)
        self.fire("CHANNEL_EXECUTE", [*headers, identifier])
        self._broken = False
        await application(argument)
        response = self.variables.get("current_application_response") or "_none_"
        self.fire("CHANNEL_EXECUTE_COMPLETE", [*headers, ("Application-Response", response), identifier])

    async def _run(self, command: Command) -> None:
        self._locks += command.locked
        try:
            if command.kind == "hangup":
                self.hangup(command.cause)
                return
            loop, runs = asyncio.get_running_loop(), 0
            while runs < command.loops or command.loops < 0:
                began = loop.time()
                await self.execute(command.app, command.argument, command.event_uuid if not runs else "")
                runs += 1
                if self.down or self._broken or self._reset or loop.time() - began < 0.5:
                    return  # FreeSWITCH ends a loop of something that takes less than half a second
        finally:
            self._locks -= command.locked

    def resumes(self, asked: bool) -> bool:
        """Whether the dialplan goes on when a controller goes (``resume`` or the variable
        ``socket_resume``)."""
        return asked or is_true(self.variables.get("socket_resume"))
