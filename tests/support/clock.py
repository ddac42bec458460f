"""A monotonic clock that a test moves."""

from __future__ import annotations


class Clock:
    """Stands in for the module ``time`` where no other clock is asked."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
