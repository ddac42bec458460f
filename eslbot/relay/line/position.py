"""Which tick FreeSWITCH reads next in a pair of rings: the count of its reads, bounded by the wall clock.

::

    not begun ──(ring A is opened)──▶ started ──(both are read; 20 quiet looks)──▶ aligned

*Aligned*: it is known which tick ring B was begun with, so what it says in ring A's pause. Where events of
the kernel's were dropped, the position is what the wall clock allows since the last look, which FreeSWITCH is
never ahead of, and counted on from there; what FreeSWITCH may be behind by is :attr:`ReadPosition.lag`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from eslbot.relay.line.phase import Phase
from eslbot.relay.line.read_counter import ReadCounter
from eslbot.relay.line.rings import CountedRing, RingPair, find

#: Seconds between two reads that cannot be of the same tick.
_QUIET = 0.002
#: Looks that tell in which tick ring B was begun, until they are enough.
_VOTES = 20
#: Those to be had soon, and the seconds between them: most see nothing read since the last.
_FIRST_VOTES = 3
_VOTE_INTERVAL = 0.006


class ReadPosition:
    """Where FreeSWITCH is in a pair that it reads from tick ``begin`` on; a tick is ``period`` seconds."""

    def __init__(
        self, pair: RingPair, counter: ReadCounter, begin: int, period: float, now: Callable[[], float]
    ) -> None:
        self._a, self._b, self._counter, self._period, self._now = pair.a, pair.b, counter, period, now
        #: The tick of ring A's first read.
        self.begin = self._a.offset = begin
        #: The tick that FreeSWITCH reads next, as of the last look. Never behind FreeSWITCH.
        self.tick = begin
        #: Whether FreeSWITCH has the pair; true from ring A's opening on.
        self.started = False
        #: Ticks by which FreeSWITCH may be behind :attr:`tick`, since events were dropped.
        self.lag = 0
        #: How often events were dropped.
        self.losses = 0
        #: Monotonic times of the last look, and by which the first read had happened: FreeSWITCH is never
        #: ahead of that.
        self.looked_at = self.begun_at = counter.before
        #: And of the last look at which FreeSWITCH had read nothing.
        self._unread_at = counter.before
        self._b_known = False
        self._votes: dict[int, int] = {}
        self._votes_wanted = _VOTES
        self._phase = Phase(period)

    @property
    def b(self) -> CountedRing | None:
        """Ring B, once it is known which tick it was begun with."""
        return self._b if self._b_known else None

    @property
    def stalled(self) -> bool:
        """Whether FreeSWITCH has read nothing for two ticks, as of the last look."""
        return self.looked_at - max(self._a.count.seen, self._b.count.seen) > 2 * self._period

    def find(self, tick: int) -> tuple[CountedRing, int] | tuple[None, int]:
        """Which ring is heard in a tick, and with which frame."""
        return find(self._a, self.b, tick)

    def silent_ticks(self, first: int, last: int) -> list[int]:
        """Ticks from ``first`` to before ``last`` in which neither ring can be heard."""
        whole = self._a.frames + 1
        ends = range(first + (self.begin + whole - 1 - first) % whole, last, whole)
        return [tick for tick in ends if self.find(tick)[0] is None]

    def at(self, tick: int) -> float:
        """Monotonic time at which a tick was read, or is likely to be."""
        known = self._phase.at(tick)
        if known is None:
            return self._now() + (tick - self.begin) * self._period
        if tick < self.tick:
            return known
        expected = self._phase.at(self.tick)  # the next one is overdue while FreeSWITCH stalls
        return known if expected is None else max(known, self._now() + known - expected)

    def first_at(self, when: float) -> int:
        """The first tick that is still to be read, and not before this time."""
        return self.tick + max(0, math.ceil((when - self.at(self.tick)) / self._period))

    def poll_at(self) -> float | None:
        """When a look would tell most about the time of reads; None where that is known."""
        if self.tick == self.begin or self.stalled:
            return None
        if self._votes_wanted > _VOTES - _FIRST_VOTES and self._b.count.opened:
            return self._counter.before + _VOTE_INTERVAL
        return self._phase.poll_at(self.tick, self._now())

    def look(self) -> bool:
        """Take in what was counted. Whether that was the first read."""
        a, b = self._a, self._b
        self.looked_at = self._counter.before
        if a.count.losses == self.losses:
            if not a.reads:
                self._unread_at = self.looked_at
        elif a.count.opened:
            self.losses = a.count.losses
            if self.losses:
                self._go_by_the_clock()
        self.started = self.started or a.count.opened
        if not self.started:
            return False
        if self._votes_wanted:
            self._align()
        ticks, seen = a.ticks, a.count.seen
        if self._b_known:
            ticks, seen = max(ticks, b.ticks), max(seen, b.count.seen)
        new = ticks > self.tick
        first = new and self.tick == self.begin
        if new:
            begun_at = seen - (ticks - self.begin - 1) * self._period
            self.begun_at = begun_at if first else min(begun_at, self.begun_at)
            self.tick = ticks
        if ticks > self.begin and ticks == self.tick and (self._b_known or not a.at_end):
            self._phase.saw(ticks, self._counter.before, seen if new and seen else None)
        return first

    def _align(self) -> None:
        """Find out in which tick ring B was begun. In each both are read, in FreeSWITCH's order."""
        a, b = self._a, self._b
        if not b.count.opened or not b.reads or a.at_end or b.at_end:
            return
        if self.losses:
            self._votes_wanted = 0
            return
        quiet = self._counter.before - max(a.count.seen, b.count.seen) >= _QUIET
        if self._b_known and not quiet:
            return
        offset = a.ticks - (b.ticks - b.offset)
        if quiet:
            self._votes[offset] = self._votes.get(offset, 0) + 1
            self._votes_wanted -= 1
            offset = max(self._votes, key=self._votes.__getitem__)
        self._b_known, b.offset = True, offset

    def _go_by_the_clock(self) -> None:
        """Events were dropped: take FreeSWITCH for as far as it can be, keep what it may be behind by."""
        now = self._now()
        if self.tick > self.begin:
            tick = max(self._a.ticks, self._phase.latest_tick(now))
        else:
            tick = self.begin + int((now - self._unread_at) / self._period) + 1
        self.lag = min(self.lag + tick - self._a.ticks, self._a.frames // 4)
        self.tick = tick
        self._a.go_to(tick)
        if self._b_known:
            self._b.go_to(tick)
