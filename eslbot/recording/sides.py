"""Two sides on one time line: where a caller's frame and a tick of the line stand in the recording.

The time line is FreeSWITCH's: in each tick it reads a frame of the caller's and a frame of the line, so each
side goes on by a frame a tick, sample behind sample. Each side knows when its first sample was read (its
*zero*), and so by how much it is later than the clock:

* the caller's frames come with their time of arrival, which may be late for many reasons; only what *all*
  frames behind one are late by is a hole, and becomes silence in front of it.
* the line's ticks have the time at which they were read. Ticks that FreeSWITCH has left out were silence for
  the caller, and are here.

A caller's packet waits for its tick half a tick on average, and the line's goes out in it: so a tick's frame
of the caller's stands half a tick before that of the line.

Nothing here knows files, loops or clocks. Times are monotonic, in seconds; sound is L16 at 8,000 Hz.
"""

from __future__ import annotations

from eslbot.audio import SAMPLE_RATE

#: Seconds that a side may be late and still be in its place.
IN_TIME = 0.015
#: The last frames of the caller's are not placed yet: what they are late by the next ones may tell.
UNDECIDED = 10
#: Seconds that one side waits for the other before the other is taken to be silent.
PATIENCE = 1.5
#: Seconds of silence that are put in at a time: longer than any call is kept without a stream.
LONGEST_HOLE = 60.0
#: Bytes of a second.
_SECOND = 2 * SAMPLE_RATE


class _Side:
    """One side's sound that was not taken yet."""

    def __init__(self) -> None:
        self.sound = bytearray()
        #: When its position 0 was read; None while nobody has spoken on it.
        self.zero: float | None = None

    def hole(self, seconds: float, quantum: float) -> int:
        """Bytes of silence that make good for so many seconds: whole ticks."""
        ticks = round(min(seconds, LONGEST_HOLE) / quantum)
        return max(0, ticks) * round(quantum * SAMPLE_RATE) * 2


class Sides:
    """One part of a recording; ``period`` is the length of a tick in seconds."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._caller, self._line = _Side(), _Side()
        #: The caller's frames that have no place yet, with their times of arrival.
        self._frames: list[tuple[float, bytes]] = []
        #: Bytes of each side that were taken.
        self._taken = 0

    @property
    def began(self) -> float | None:
        """When position 0 was; None while nothing has a place."""
        zeros = [side.zero for side in (self._caller, self._line) if side.zero is not None]
        return min(zeros, default=None)

    def caller(self, frame: bytes, at: float) -> None:
        """A frame of the caller's has arrived."""
        self._frames.append((at, frame))

    def line(self, linear: bytes, at: float) -> None:
        """Ticks of the line, of which the first was read at this time."""
        side = self._line
        if side.zero is None:
            self._begin(side, self._caller, at, 0.5)
        else:
            late = at - side.zero - self._end(side)
            if late > IN_TIME:
                side.sound += bytes(side.hole(late, self._period))
            elif late < 0:
                side.zero += late  # nobody reads too early: it was known too late
        side.sound += linear

    def take(self, *, all_of_it: bool = False) -> tuple[bytes, bytes]:
        """The caller's sound and the line's, as far as both are known: equally long."""
        caller, line = self._caller.sound, self._line.sound
        patience = round(PATIENCE * SAMPLE_RATE) * 2
        # Frames that nothing has followed for so long will not be told by others where they stand.
        self._place(all_of_it or len(line) - len(caller) > patience)
        longest = max(len(caller), len(line))
        tick = round(self._period * SAMPLE_RATE) * 2
        for sound in (caller, line):
            if all_of_it:
                sound += bytes(longest - len(sound))
            else:  # in whole ticks: what comes behind stands where it would have
                sound += bytes(max(0, longest - patience - len(sound)) // tick * tick)
        size = min(len(caller), len(line))
        taken = bytes(caller[:size]), bytes(line[:size])
        del caller[:size], line[:size]
        self._taken += size
        return taken

    def _end(self, side: _Side) -> float:
        """Seconds from position 0 to where a side's next sample stands."""
        return (self._taken + len(side.sound)) / _SECOND

    def _begin(self, side: _Side, other: _Side, at: float, ticks: float) -> None:
        """A side's first sound was read at ``at``: it stands so many ticks behind the other's of then."""
        if other.zero is not None:
            place = round((at - other.zero) / self._period) * self._period + ticks * self._period
            place = min(place, LONGEST_HOLE)
            missing = round((place - self._end(side)) * SAMPLE_RATE) * 2
            if missing >= 0:
                side.sound += bytes(missing)
            elif not self._taken and not side.sound:
                other.sound[:0] = bytes(-missing)
                other.zero += missing / _SECOND
        side.zero = at - self._end(side)

    def _place(self, all_of_it: bool) -> None:
        frames = self._frames
        side = self._caller
        count = len(frames) if all_of_it else len(frames) - UNDECIDED
        if count <= 0:
            return
        at, begins = [], []
        passed = self._end(side)
        for arrived, frame in frames:
            at.append(arrived)
            begins.append(passed)
            passed += len(frame) / _SECOND
        if side.zero is None:
            offset = self._end(side)
            first = min(time - begin for time, begin in zip(at, begins, strict=True)) + offset
            self._begin(side, self._line, first, -0.5)
            shift = self._end(side) - offset
            begins = [begin + shift for begin in begins]
        assert side.zero is not None
        # By how much a frame and all that have come behind it are late.
        late = float("inf")
        lateness = []
        for time, begin in zip(reversed(at), reversed(begins), strict=True):
            late = min(late, time - side.zero - begin)
            lateness.append(late)
        lateness.reverse()
        if lateness[0] < 0:
            side.zero += lateness[0]
            lateness = [late - lateness[0] for late in lateness]
        if lateness[-1] <= IN_TIME or max(lateness[:count]) <= IN_TIME:
            side.sound += b"".join(frame for _, frame in frames[:count])
        else:
            put = 0.0
            for (_, frame), late in zip(frames[:count], lateness[:count], strict=True):
                if late - put > IN_TIME:
                    hole = side.hole(late - put, self._period)
                    side.sound += bytes(hole)
                    put += hole / _SECOND
                side.sound += frame
        del frames[:count]
