"""One call of the PBX, while it is under way."""

from __future__ import annotations

import threading
import time

from eslbot.sim.events import Emit
from eslbot.sim.pbx.control import ACKNOWLEDGED, OFFERED, CallControl
from eslbot.sim.pbx.media import Recording, RtpSession
from eslbot.sim.pbx.results import CallResult


class PbxCall:
    """A call under way, placed by :meth:`Pbx.call`.

    Args:
        key: what SIPp calls it.
        session: its RTP, where Python speaks for the caller.
        control: tells SIPp what to do with it.
        accepts: whether a re-INVITE of the switch's is answered with 200.
        hangup_after: seconds from the answer until the caller hangs up.
    """

    def __init__(
        self,
        key: str,
        did: str,
        crt_object_id: str,
        session: RtpSession | None,
        control: CallControl,
        emit: Emit,
        *,
        accepts: bool,
        hangup_after: float | None,
    ) -> None:
        self.key, self.did, self.crt_object_id, self.session = key, did, crt_object_id, session
        self.recording = session.recording if session is not None else Recording()
        #: Why the PBX hung up, once it does.
        self.cause: str | None = None
        self._control, self._emit = control, emit
        self._accepts, self._hangup_after = accepts, hangup_after
        self._changed = threading.Condition()
        self._answered = False
        self._events: list[str] = []
        self._result: CallResult | None = None

    @property
    def answered(self) -> bool:
        """Whether it was answered and acknowledged."""
        return self._answered

    @property
    def result(self) -> CallResult | None:
        """What became of it, once it is over."""
        return self._result

    def wait_answered(self, timeout: float = 10.0) -> None:
        """Wait for the answer.

        Raises:
            TimeoutError: none in ``timeout`` seconds.
            RuntimeError: the call is over without one.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._answered or self._result is not None, timeout):
                raise TimeoutError(f"{self!r} was not answered within {timeout} s")
        if not self._answered:
            raise RuntimeError(f"{self!r} was not answered: {self._result}")

    def wait(self, timeout: float = 30.0) -> CallResult:
        """What became of the call, when it is over; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._result is not None, timeout):
                raise TimeoutError(f"{self!r} is not over after {timeout} s")
            assert self._result is not None
            return self._result

    def wait_heard(self, frequency: float, seconds: float = 0.1, timeout: float = 10.0) -> None:
        """Wait until the caller has heard ``seconds`` of a tone; raises TimeoutError."""
        deadline = time.monotonic() + timeout
        while (had := self.recording.heard(frequency)) < seconds:
            with self._changed:
                # Measured now and then: packets come every 20 ms, and nobody tells about each.
                over = self._changed.wait_for(lambda: self._result is not None, 0.1)
            if over or time.monotonic() > deadline:
                if self.recording.heard(frequency) >= seconds:
                    return
                raise TimeoutError(f"{self!r} heard {had:.2f} s of {frequency} Hz, not {seconds} s")

    def hang_up(self, delay: float = 0.0) -> None:
        """The caller hangs up: BYE after ``delay`` seconds, or as soon as the call is answered."""
        self.end("hang_up", delay)

    @property
    def taken_up(self) -> int:
        """How often the switch has offered anew within the call, and acknowledged that we accepted.

        Nobody but a switch that was killed and takes up its calls does that here.
        """
        return self._events.count(ACKNOWLEDGED) if self._accepts else 0

    @property
    def offered(self) -> int:
        """How often the switch has offered anew within the call, whatever became of it."""
        return self._events.count(OFFERED)

    def wait_taken_up(self, times: int = 1, timeout: float = 10.0) -> None:
        """Wait until the switch has taken the call up so often; raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.taken_up >= times, timeout):
                raise TimeoutError(f"{self!r} was taken up {self.taken_up} times, not {times}")

    def offer(self, direction: str, timeout: float = 5.0) -> None:
        """A re-INVITE of the PBX's: ``sendonly`` or ``inactive`` is a hold, ``sendrecv`` ends it.

        Returns when it is acknowledged; raises TimeoutError. The caller's RTP goes on meanwhile.
        """
        with self._changed:
            had = self._events.count(direction)
            self._control.offer(self.key, direction)
            if not self._changed.wait_for(lambda: self._events.count(direction) > had, timeout):
                raise TimeoutError(f"{self!r}: no answer to a re-INVITE with {direction}")

    def send_dtmf(self, digits: str, duration_ms: int = 120) -> None:
        """The caller presses keys; RFC 4733, only with ``media="python"``."""
        if self.session is None:
            raise RuntimeError("telephone events need media='python'")
        self.session.send_dtmf(digits, duration_ms)

    def end(self, cause: str, delay: float = 0.0) -> None:
        """The PBX hangs up, and this is why; the first reason is the one that counts."""
        with self._changed:
            self.cause = self.cause or cause
        self._emit("hang_up", {"crt_object_id": self.crt_object_id, "cause": cause, "delay": delay})
        self._control.hang_up(self.key, delay)

    def note_answer(self) -> None:
        """It was answered and acknowledged."""
        with self._changed:
            self._answered = True
            self._changed.notify_all()
        self._emit("answered", {"crt_object_id": self.crt_object_id, "did": self.did})
        if self._hangup_after is not None:
            self.end("hangup_after", self._hangup_after)

    def note_event(self, event: str) -> None:
        """One of :mod:`eslbot.sim.pbx.control`."""
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def finish(self, result: CallResult) -> None:
        """It is over."""
        with self._changed:
            self._result = result
            self._changed.notify_all()

    def __repr__(self) -> str:
        state = "over" if self._result else "answered" if self._answered else "calling"
        return f"<PbxCall {self.did}|{self.crt_object_id} {state}>"
