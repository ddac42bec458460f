"""When FreeSWITCH reads: learnt from nothing but moments at which so many reads had, and had not yet,
happened.

Reads are 20 ms apart. Where ``n`` had happened at ``t``, tick 0 was after ``t - n * 20 ms`` and not after
``t - (n - 1) * 20 ms``. Each look narrows this, at the right moment by half (:meth:`Phase.poll_at`). A stall,
a take-over or a hold moves the reads for good: what contradicts the newest look is dropped.
"""

from __future__ import annotations

#: Seconds. Contradictions up to this are FreeSWITCH's own unevenness.
_UNEVEN = 0.003
_SLACK = 0.0005
#: Seconds to which the phase is learnt.
_ENOUGH = 0.002


class Phase:
    """Bounds of the (monotonic) time of tick 0, as the newest reads tell it."""

    def __init__(self, period: float) -> None:
        self.period = period
        self.low: float | None = None
        self.high: float | None = None

    def saw(self, ticks: int, before: float, last: float | None) -> None:
        """At ``before`` not more than so many ticks had happened; by ``last``, if told, so many had."""
        low = before - ticks * self.period
        high = low + self.period if last is None else last - (ticks - 1) * self.period
        if self.low is None or self.high is None:
            self.low, self.high = low, max(high, low)
            return
        if low > self.high:
            self.low, self.high = low, low + (self.period if low - self.high > _UNEVEN else _SLACK)
        else:
            self.low = max(self.low, low)
        if last is None:
            return
        if high < self.low:
            self.low, self.high = high - (self.period if self.low - high > _UNEVEN else _SLACK), high
        else:
            self.high = min(self.high, high)

    def at(self, tick: int) -> float | None:
        """When a tick is likely to be read; None while nothing was."""
        if self.low is None or self.high is None:
            return None
        return (self.low + self.high) / 2 + tick * self.period

    def latest_tick(self, now: float) -> int:
        """The tick that is read next, where nobody counts. Never too small while reads come evenly."""
        return 0 if self.low is None else max(0, int((now - self.low + _SLACK) / self.period) + 1)

    def poll_at(self, tick: int, now: float) -> float | None:
        """When a look tells most, if the next tick is this; None where enough is known."""
        middle = self.at(tick)
        if middle is None or self.low is None or self.high is None or self.high - self.low <= _ENOUGH:
            return None
        return middle if middle > now else middle + self.period * (int((now - middle) / self.period) + 1)
