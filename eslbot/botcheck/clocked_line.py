"""What stands for FreeSWITCH's line: a clock that reads 20 ms of it every 20 ms, and never stalls.

The playout on it is the relay's own, so marks, ``clear`` and holds come out as in a call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from eslbot.audio import SAMPLE_RATE
from eslbot.audio.levels import audible
from eslbot.relay.playout import MAX_QUEUED_SECONDS

#: Samples of a read.
SAMPLES = 160


@dataclass(frozen=True, slots=True)
class Gap:
    """The line ran dry ``at`` a monotonic time within speech, for so many ``seconds``."""

    at: float
    seconds: float


class ClockedLine:
    """A line that the clock reads (:class:`eslbot.relay.playout.PlayoutLine`); its sound is not kept."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._begun = now()
        self.first_free = 0
        self.frame_bytes = 2 * SAMPLES
        self.period = SAMPLES / SAMPLE_RATE
        self.ring_bytes = 2 * SAMPLE_RATE * MAX_QUEUED_SECONDS
        self.taken = False
        self.read_by_freeswitch = True
        self.stalled = False
        #: Where the last utterance ends, while it may go on.
        self._end: int | None = None
        self._ends_loud = False
        #: The pauses that a late bot has made within its utterances, in mid-sound.
        self.gaps: list[Gap] = []

    def utterance_over(self) -> None:
        """The next audio is a new utterance: no gap is noted before it."""
        self._end = None

    def heard_out(self) -> None:
        """The bot was told of a mark: where nothing is behind it, it may have waited for that."""
        if self._end is not None and self._end <= self.tick():
            self.utterance_over()

    def tick(self) -> int:
        """By the clock."""
        return int((self._now() - self._begun) / self.period) + 1

    def at(self, tick: int) -> float:
        """By the clock."""
        return self._begun + tick * self.period

    def first_at(self, when: float) -> int:
        """By the clock."""
        tick = self.tick()
        return tick + max(0, math.ceil((when - self.at(tick)) / self.period))

    def poll_at(self) -> float | None:
        """Nothing is learnt by looking."""
        return None

    def room(self, tick: int) -> int:
        """All that may wait."""
        return self.ring_bytes

    def after(self, tick: int, size: int) -> int:
        """Every tick is heard."""
        return tick + -(-size // self.frame_bytes)

    def write(self, tick: int, linear: bytes, standing: int = 0) -> tuple[int, int]:
        """It stands; and whether there was a gap before it is noted."""
        loud = audible(linear[: self.frame_bytes])
        if self._end is not None and tick > self._end and self._ends_loud and loud:
            self.gaps.append(Gap(self.at(self._end), (tick - self._end) * self.period))
        self._end, self._ends_loud = self.after(tick, len(linear)), audible(linear[-self.frame_bytes :])
        return tick, self._end

    def silence(self, first: int, last: int) -> int:
        """Nothing of it is left."""
        self._end = None
        return self.tick()

    def drop_predecessors(self) -> None:
        """There is nothing of earlier relays."""

    def erase_played(self) -> None:
        """Nothing comes round again."""

    def checkpoint(self, always: bool = True) -> None:
        """There is no next relay."""

    def attach(self, switch: str) -> bool:
        """It is never another FreeSWITCH."""
        return False
