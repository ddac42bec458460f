"""A semaphore for greenlets that serves them in the order in which they came."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
from gevent.event import Event as Flag


class FifoSemaphore:
    """``number`` slots for greenlets of one thread. One that is given back goes to who has waited longest.

    gevent's own semaphore lets a newcomer overtake those who wait, and cannot be left when a call is over.
    """

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: deque[Flag] = deque()

    @contextmanager
    def slot(self, over: Flag) -> Iterator[bool]:
        """Wait for a slot and hold it; False, and none held, where ``over`` was set first."""
        if not self._get(over):
            yield False
            return
        try:
            yield True
        finally:
            self._give_back()

    def _get(self, over: Flag) -> bool:
        if self._free:  # then nobody waits
            self._free -= 1
            return True
        turn = Flag()
        self._waiting.append(turn)
        try:
            gevent.wait([turn, over], count=1)
        except BaseException:  # killed, or a time-out of the caller's
            if turn.is_set():
                self._give_back()
            else:
                self._waiting.remove(turn)
            raise
        if turn.is_set():
            return True
        self._waiting.remove(turn)
        return False

    def _give_back(self) -> None:
        if self._waiting:
            self._waiting.popleft().set()
        else:
            self._free += 1
