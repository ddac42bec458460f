"""One connection of FreeSWITCH's outbound event socket: what is read, sent and waited for on it.

* The event loop reads, parses and hands over, in no greenlet; nothing polls.
* Commands are collected, and go out together when their greenlet waits for anything
(:meth:`Connection.post`).
* Every wait is bounded, and ends at once with :class:`CallerHungUp` or :class:`ConnectionLost` (both are
  greenswitch's ``OutboundSessionHasGoneAway``) when the channel or the socket goes.

What is asked of the channel is :mod:`eslbot.esl.session`'s.
"""

from __future__ import annotations

import socket as std_socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any

import gevent
import structlog
from gevent.event import Event as Flag
from gevent.socket import wait_write
from greenswitch.esl import OutboundSession, OutboundSessionHasGoneAway

from eslbot.esl.commands import check_line
from eslbot.esl.errors import CommandFailed, CommandTimeout, EslError, ProtocolError
from eslbot.esl.events import Event
from eslbot.esl.executions import Execution, RefusalOnly
from eslbot.esl.frames import Frame, FrameReader
from eslbot.esl.gone import CallerHungUp, ConnectionLost
from eslbot.esl.waiting import Future, Wakeup
from eslbot.runtime.greenlets import spawn
from eslbot.telemetry import redaction

log = structlog.get_logger()

#: gevent's word for a watcher of what can be read.
READ = 1
#: Seconds FreeSWITCH may take for a reply. It polls the socket every 20 ms; much more is a fault.
TIMEOUT = 5.0
#: Variables that one ``uuid_setvar_multi`` takes; FreeSWITCH puts all further ones into the last one's value.
MAX_PAIRS = 64
#: Commands that may wait for a FreeSWITCH that does not read.
MAX_UNSENT = 10_000
#: Events waiting for the call's story, and their bytes; a bot that floods loses the rest, and the story goes
#: on.
MAX_INBOX = 1000
MAX_INBOX_BYTES = 8 * 1024 * 1024
#: Beyond that, what must not be lost (:attr:`Session.keeps`) is kept as often as this.
MAX_KEPT = 16
#: Bytes of one turn: a peer with more has to wait for the others' turns. (With 64 kB a call beside four
#: peers that flooded waited for up to a second for an answer, with 16 kB for a tenth.)
READ_BYTES = 16 * 1024
#: Frames of a peer's that FreeSWITCH would not send.
MAX_STRANGE = 100
#: Seconds that one story may take events without letting the others have a turn.
SLICE = 0.01


def _shown(command: str) -> str:
    """What of a command is ever told: its first words; the rest may hold a secret."""
    return " ".join(command.split(maxsplit=2)[:2])


class Connection(OutboundSession):  # type: ignore[misc]  # greenswitch has no types
    """The socket of one call's session, and everybody who waits for something on it."""

    sock: std_socket.socket

    def __init__(self, client_address: tuple[str, int], sock: std_socket.socket, timeout: float = TIMEOUT):
        # greenswitch's own constructor makes a buffered file (which hides half-read frames), queues and
        # handlers. This is what of it is needed by those of its methods that are not replaced here.
        self.sock = sock
        self.session_data: Mapping[str, str] = {}
        self.expected_events: dict[str, list[Any]] = {}
        self.event_handlers: dict[str, list[Any]] = {}
        self._run = self.connected = True
        self._lingering = self._outbound_connected = False
        self.client_address = client_address
        self.timeout = timeout
        #: Set when there is no channel or no socket to talk to any more; ``reason`` then says which.
        self.gone = Flag()
        self.reason: OutboundSessionHasGoneAway | None = None
        #: Set when the channel is gone; where only the socket is, nobody knows.
        self.hung_up = Flag()
        #: Whether it was us who closed the socket.
        self.stopped = False
        #: Set when CHANNEL_HANGUP_COMPLETE is there, or cannot come any more.
        self.finished = Flag()
        #: The headers of CHANNEL_HANGUP, and of CHANNEL_HANGUP_COMPLETE once it is there: FreeSWITCH sends
        #: the first at once, and the second when the channel's thread has left its modules.
        self.hangup: Mapping[str, str] = {}
        self.lost_events = 0
        self._strange_frames = 0
        self._logged_kinds: set[str] = set()
        #: Whether an event must not be lost, however many are waiting: what ends something.
        self.keeps: Callable[[Event], bool] = lambda event: False
        self._uuid = ""
        self._inbox: deque[Event] = deque()
        self._inbox_bytes = self._kept = 0
        self._arrival = Wakeup()
        #: When the greenlet that takes the events last waited, on the monotonic clock.
        self._woken = 0.0
        #: Who wants the reply to each command under way, None where nobody does.
        self._pending: deque[Future[Event] | RefusalOnly | None] = deque()
        self._executions: dict[str, Execution] = {}
        self._jobs: dict[str, Future[str]] = {}
        #: What is not on the wire yet: variables that can share a command, then commands before them.
        self._pairs: list[str] = []
        self._unsent: list[bytes] = []
        self._turning = False
        self._writer: gevent.Greenlet[..., None] | None = None
        self.start_event_handlers()

    @property
    def uuid(self) -> str:
        """The channel's UUID; empty before it is known."""
        return self._uuid

    # -- reading ------------------------------------------------------------------------------------------

    def start_event_handlers(self) -> None:
        """Let the loop read whenever there is something: greenswitch's two greenlets are not needed."""
        self.sock.setblocking(False)
        self._frames = FrameReader()
        self._readable = gevent.get_hub().loop.io(self.sock.fileno(), READ)
        # What is logged there says for whom, as the lines of whoever made the session do.
        self._readable.start(copy_context().run, self.receive_events)

    def receive_events(self) -> None:
        """Read what there is, and at the end of the socket let every waiter know. Never waits."""
        ended: str | None = "a fault of ours"
        try:
            data = self.sock.recv(READ_BYTES)
            for frame in self._frames.feed(data):
                self._take(frame)
            ended = None if data else "FreeSWITCH closed the connection"
        except BlockingIOError:
            ended = None
        except (OSError, EslError) as error:
            ended = f"{type(error).__name__}: {error}"
        finally:
            if ended is not None:
                self._readable.stop()
                self.connected = False
                self._leave(ConnectionLost(ended))
                self.finished.set()

    def _take(self, frame: Frame) -> None:
        kind = frame.content_type
        if kind in ("command/reply", "api/response"):
            if self._pending:
                wants = self._pending.popleft()
                if wants is None or (type(wants) is RefusalOnly and wants.passes(frame)):
                    return
                if frame.oversized:
                    wants.set_exception(ProtocolError(f"a reply of {frame.oversized} bytes is too long"))
                else:
                    wants.set(Event.of(frame))
            elif self.reason is None:  # else whoever waited for it was told that the session is over
                self._strange("esl_reply_without_command", kind)
        elif kind == "text/event-plain":
            self.handle_event(Event.of(frame))
        elif kind == "text/disconnect-notice":
            # With linger the channel is gone and its last events are still to come; without, all is over.
            if frame.headers.get("Content-Disposition") == "linger":
                self._lingering = True
                self._leave(CallerHungUp("the channel was hung up"))
        elif kind == "text/rude-rejection":
            self._leave(ConnectionLost("FreeSWITCH's ACL does not let us in"))
        else:
            self._strange("esl_unknown_frame", kind)

    def _strange(self, what: str, kind: str) -> None:
        """FreeSWITCH never says this. Of a kind it is logged once; who goes on with it is no FreeSWITCH.

        Raises :class:`ProtocolError` then: thousands of such frames fit into one read, and everybody waits
        for each of them.
        """
        self._strange_frames += 1
        if what not in self._logged_kinds:
            self._logged_kinds.add(what)
            log.warning(what, content_type=kind[:80])
        if self._strange_frames > MAX_STRANGE:
            raise ProtocolError(f"over {MAX_STRANGE} frames that nobody asked for, the last {kind[:80]!r}")

    def handle_event(self, event: Event) -> None:
        """One event: completions, hang-ups and jobs are the session's own, the rest waits for the story."""
        name = event.name
        if name == "CHANNEL_EXECUTE_COMPLETE":
            execution = self._executions.pop(event.headers.get("Application-UUID", ""), None)
            if execution:
                execution._completion.set(event)
                if execution.tell:
                    self._arrive(event)
        elif name == "BACKGROUND_JOB":
            job = self._jobs.pop(event.headers.get("Job-UUID", ""), None)
            if job is not None:
                job.set(event.data)
        elif name == "CHANNEL_HANGUP":
            if not self.finished.is_set():
                self.hangup = event.headers
            self._leave(CallerHungUp(event.headers.get("Hangup-Cause", "")))
        elif name == "CHANNEL_HANGUP_COMPLETE":
            self.hangup = event.headers
            self._leave(CallerHungUp(event.headers.get("Hangup-Cause", "")))
            self.finished.set()
        elif len(self._inbox) < MAX_INBOX and self._inbox_bytes + event.size <= MAX_INBOX_BYTES:
            self._arrive(event)
        elif self._kept < MAX_KEPT and self.keeps(event):
            self._kept += 1
            self._arrive(event)
        else:
            self.lost_events += 1

    def _arrive(self, event: Event) -> None:
        self._inbox.append(event)
        self._inbox_bytes += event.size
        self._arrival.wake()

    def _leave(self, reason: OutboundSessionHasGoneAway) -> None:
        """Nothing more can be asked of the channel: every waiter fails, now."""
        if self.reason is None:
            self.reason = reason
            self._outbound_connected = False
            if isinstance(reason, CallerHungUp):
                self.hung_up.set()
            self.gone.set()
            self._arrival.wake()
        while self._pending:
            wants = self._pending.popleft()
            if wants is not None:
                wants.set_exception(self.reason)
        while self._executions:
            self._executions.popitem()[1]._completion.set_exception(self.reason)
        while self._jobs:
            self._jobs.popitem()[1].set_exception(self.reason)

    # -- sending ------------------------------------------------------------------------------------------

    def post(self, data: str) -> None:
        """Send a command whose reply nobody reads.

        Commands of one moment go out together, in their order: at the latest when their greenlet waits for
        anything, since what they are about must not happen before FreeSWITCH has them. Where it happens
        without a wait, :meth:`flush`. Raises OutboundSessionHasGoneAway.
        """
        self._post(data, None)

    @property
    def unanswered(self) -> int:
        """How many commands FreeSWITCH has not replied to: whatever is posted now waits behind them."""
        return len(self._pending)

    def ask(self, data: str) -> Future[Event]:
        """The same with a command whose reply the answer will hold: many take one round trip."""
        answer: Future[Event] = Future()
        self._post(data, answer)
        return answer

    def _post(self, data: str, wants: Future[Event] | RefusalOnly | None) -> None:
        if self.reason is not None:
            raise self._gone_away()
        if self._pairs:
            self._join_pairs()
        self._unsent.append(data.encode("utf-8", "replace"))  # half a surrogate pair is no reason to fail
        self._pending.append(wants)
        self._send_soon()

    def _send_soon(self) -> None:
        if not self._turning:
            self._turning = True
            gevent.get_hub().loop.run_callback(self._turn)

    def _turn(self) -> None:
        """The loop turns: whoever has posted waits now."""
        self._turning = False
        self._push()

    def flush(self) -> None:
        """Have all that was posted on the wire. Raises OutboundSessionHasGoneAway where it cannot be."""
        self._push()
        if self._writer is not None:
            self._writer.join()  # no longer than ``timeout``
        self.raise_if_disconnected()

    def _push(self) -> None:
        """Give the kernel what it takes now. Where FreeSWITCH does not read, a greenlet gives it the rest."""
        if self._pairs:
            self._join_pairs()
        if len(self._unsent) > MAX_UNSENT:
            self._leave(ConnectionLost(f"cannot send: FreeSWITCH has not read {len(self._unsent)} commands"))
            self._unsent.clear()
        if not self._unsent or self._writer is not None:
            return
        wire = self._take_unsent()
        try:
            sent = self.sock.send(wire)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._leave(ConnectionLost(f"cannot send: {type(error).__name__}"))
            return
        if sent < len(wire):
            self._writer = spawn(self._write, wire[sent:])

    def _write(self, wire: bytes) -> None:
        """Wait for FreeSWITCH to read, for ``timeout`` seconds: half a command is on the wire."""
        try:
            with gevent.Timeout(self.timeout):
                rest = memoryview(wire)
                while rest:
                    wait_write(self.sock.fileno())
                    rest = rest[self.sock.send(rest) :] or memoryview(self._take_unsent())
        except (OSError, gevent.Timeout) as error:
            self._leave(ConnectionLost(f"cannot send: {type(error).__name__}"))
        finally:
            self._writer = None

    def _take_unsent(self) -> bytes:
        if not self._unsent:
            return b""
        wire = b"\n\n".join([*self._unsent, b""])
        self._unsent.clear()
        return wire

    def send(self, data: str) -> Event:
        """Send a command and wait for its reply.

        Raises :class:`CommandTimeout`, :class:`CommandFailed` on ``-ERR``, OutboundSessionHasGoneAway.
        """
        return self._reply(self.ask(data), data)

    def _reply(self, answer: Future[Event], command: str) -> Event:
        reply = self._awaited(answer, command)
        if not reply.body and reply.data.startswith("-"):
            raise CommandFailed(f"{_shown(command)!r}: {redaction.beginning(reply.data, 200)}")
        return reply

    def _awaited(self, answer: Future[Event], command: str) -> Event:
        self.flush()
        reply = answer.wait(self.timeout)
        self._woken = time.monotonic()  # the others have had their turn
        if reply is None:
            raise CommandTimeout(f"no reply to {_shown(command)!r} within {self.timeout:g} s")
        return reply

    def api(self, command: str) -> str:
        """The answer to an API command, ``-ERR …`` included: what that means, the caller knows."""
        return self.ask_api(command)()

    def ask_api(self, command: str) -> Callable[[], str]:
        """The same in two steps, so that more can be posted in between: what is returned waits."""
        line = f"api {check_line(command)}"
        reply = self.ask(line)
        return lambda: self._reply(reply, line).data

    def raise_if_disconnected(self) -> None:
        """Raise what ended the session, if it has ended."""
        if self.reason is not None:
            raise self._gone_away()

    def _gone_away(self) -> OutboundSessionHasGoneAway:
        assert self.reason is not None
        return type(self.reason)(*self.reason.args)

    def _join_pairs(self) -> None:
        """Make commands of the variables that were set since the last command."""
        for start in range(0, len(self._pairs), MAX_PAIRS):
            listed = ";".join(self._pairs[start : start + MAX_PAIRS])
            self._unsent.append(f"api uuid_setvar_multi {self.uuid} {listed}".encode("utf-8", "replace"))
            self._pending.append(None)
        self._pairs.clear()

    # -- events -----------------------------------------------------------------------------------------

    def next_event(self, timeout: float) -> Event | None:
        """The next subscribed event, None after ``timeout`` seconds.

        Raises OutboundSessionHasGoneAway once there are no more.
        """
        if self.reason is None:
            if not self._inbox:
                self._arrival.sleep(timeout)
                self._woken = time.monotonic()
            elif time.monotonic() - self._woken > SLICE:
                gevent.sleep(0)
                self._woken = time.monotonic()
        if self._inbox:
            event = self._inbox.popleft()
            self._inbox_bytes -= event.size
            if not self._inbox:
                self._kept = 0
            return event
        self.raise_if_disconnected()
        return None

    def has_events(self) -> bool:
        """Whether :meth:`next_event` would have one at once, of all that FreeSWITCH has sent by now.

        Who was kept from running finds the time over before the loop has read what came in it.
        """
        if not self._inbox and self.reason is None:
            self.receive_events()
        return bool(self._inbox)

    def drop_events(self, which: Callable[[Event], bool]) -> None:
        """Forget those that wait and are such."""
        self._inbox = deque(event for event in self._inbox if not which(event))
        self._inbox_bytes = sum(event.size for event in self._inbox)
        if not self._inbox:
            self._kept = 0

    def stop(self) -> None:
        """Close the socket; whoever still waits fails with :class:`ConnectionLost`. Safe to call twice."""
        self._push()  # what was posted counts, though nobody waits for it any more
        self.stopped = self.reason is None
        self._leave(ConnectionLost("closed by eslbot"))
        self.finished.set()
        self.connected = False
        self._run = False
        self._readable.stop()
        self._readable.close()
        if self._writer is not None:
            self._writer.kill()
        self.sock.close()
