"""What one greenlet waits for, and the event loop brings.

gevent's AsyncResult and Queue serve many waiters and end a wait by raising a Timeout; a call waits some ten
times, always alone, and this is a fifth of the work.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import gevent

T = TypeVar("T")


class Wakeup:
    """Wakes the greenlet that sleeps on it; where none does, nothing is kept."""

    __slots__ = ("_waiter", "_woken")

    def __init__(self) -> None:
        self._waiter: Any = None
        self._woken: Any = None

    def wake(self) -> None:
        """Let who waits go on, when the loop turns."""
        if self._waiter is not None and self._woken is None:
            self._woken = gevent.get_hub().loop.run_callback(self._waiter.switch)

    def sleep(self, seconds: float) -> None:
        """Sleep until it is woken, for at most ``seconds``."""
        hub: Any = gevent.get_hub()
        assert self._waiter is None, "somebody waits already"
        self._waiter = gevent.getcurrent()
        timer = hub.loop.timer(max(0.0, seconds))
        # From now, and not from when the loop began its turn.
        timer.start(self._time_is_over, update=True)
        try:
            hub.switch()
        finally:
            self._waiter = None
            timer.close()
            if self._woken is not None:  # by both, or somebody else has ended the wait
                self._woken.stop()
                self._woken = None

    def _time_is_over(self) -> None:
        if self._waiter is not None and self._woken is None:  # else it goes on anyway
            self._waiter.switch()


class Future(Wakeup, Generic[T]):
    """Something that comes once, or never will."""

    __slots__ = ("_error", "_value", "ready")

    def __init__(self) -> None:
        super().__init__()
        self._value: T | None = None
        self._error: BaseException | None = None
        #: Whether there is nothing to wait for any more.
        self.ready = False

    def set(self, value: T) -> None:
        """Here it is; only the first counts."""
        if not self.ready:
            self._value, self.ready = value, True
            self.wake()

    def set_exception(self, error: BaseException) -> None:
        """It will not come: ``error`` is raised where it is waited for."""
        if not self.ready:
            self._error, self.ready = error, True
            self.wake()

    def wait(self, seconds: float) -> T | None:
        """It, or None where it has not come within ``seconds``. Raises what it was given instead."""
        if not self.ready:
            self.sleep(seconds)
        if self._error is not None:
            raise self._error.with_traceback(None)
        return self._value
