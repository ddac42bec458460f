"""Aligns a recording's two sides: where the caller's frames and the line's ticks belong on one time line.

The time line is FreeSWITCH's: in each tick it reads a frame of the caller's and a frame of the line, so each
side grows by a frame a tick. Each side knows when its first sample was read (its *zero*), and so how late it
is:

* The caller's frames have a time of arrival, and a frame may be late for many reasons. A gap is only what a
  frame *and all frames after it* are late by; it becomes silence in front of that frame.
* The line's ticks have the time at which they were read. Ticks that FreeSWITCH has skipped were silence for
  the caller, and are silence here.

A caller's packet waits for its tick for half a tick on average, and the line's frame goes out in that tick:
so a tick's frame of the caller's is half a tick before that of the line.

Pure: no files, loops or clocks. Times are monotonic, in seconds; audio is L16 at 8,000 Hz.
"""

from __future__ import annotations

from eslbot.audio import SAMPLE_RATE

#: Seconds that a side may be late without a gap.
TOLERANCE = 0.015
#: The caller's last frames that are not placed yet: only the next ones tell whether they are just late.
PENDING_FRAMES = 10
#: Seconds that one side waits for the other before that one counts as silent.
SIDE_TIMEOUT = 1.5
#: Seconds of silence of one gap at most: longer than any call is kept without a stream.
MAX_GAP = 60.0
#: Bytes of a second.
_SECOND = 2 * SAMPLE_RATE


class _Side:
    """One side's audio that was not taken yet."""

    def __init__(self) -> None:
        self.audio = bytearray()
        #: When its position 0 was read; None while it has no audio.
        self.zero: float | None = None

    def gap(self, seconds: float, period: float) -> int:
        """Bytes of silence for a gap of so many seconds: whole ticks."""
        ticks = round(min(seconds, MAX_GAP) / period)
        return max(0, ticks) * round(period * SAMPLE_RATE) * 2


class SideAligner:
    """One part of a recording; ``period`` is the length of a tick in seconds."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._caller, self._line = _Side(), _Side()
        #: The caller's frames that are not placed yet, with their times of arrival.
        self._frames: list[tuple[float, bytes]] = []
        #: Bytes of each side that were taken.
        self._taken = 0

    @property
    def began(self) -> float | None:
        """The time of position 0; None while nothing is placed."""
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
            if late > TOLERANCE:
                side.audio += bytes(side.gap(late, self._period))
            elif late < 0:
                side.zero += late  # nothing is read too early: the zero was known too late
        side.audio += linear

    def take(self, *, everything: bool = False) -> tuple[bytes, bytes]:
        """The caller's audio and the line's, as far as both are known: equally long."""
        caller, line = self._caller.audio, self._line.audio
        patience = round(SIDE_TIMEOUT * SAMPLE_RATE) * 2
        # No later frames will tell anything of frames that nothing has followed for so long.
        self._place(everything or len(line) - len(caller) > patience)
        longest = max(len(caller), len(line))
        tick = round(self._period * SAMPLE_RATE) * 2
        for audio in (caller, line):
            if everything:
                audio += bytes(longest - len(audio))
            else:  # in whole ticks, so that what follows is where it would have been
                audio += bytes(max(0, longest - patience - len(audio)) // tick * tick)
        size = min(len(caller), len(line))
        taken = bytes(caller[:size]), bytes(line[:size])
        del caller[:size], line[:size]
        self._taken += size
        return taken

    def _end(self, side: _Side) -> float:
        """Seconds from position 0 to where a side's next sample stands."""
        return (self._taken + len(side.audio)) / _SECOND

    def _begin(self, side: _Side, other: _Side, at: float, ticks: float) -> None:
        """A side's first audio was read at ``at``: it belongs so many ticks behind the other's then."""
        if other.zero is not None:
            place = round((at - other.zero) / self._period) * self._period + ticks * self._period
            place = min(place, MAX_GAP)
            missing = round((place - self._end(side)) * SAMPLE_RATE) * 2
            if missing >= 0:
                side.audio += bytes(missing)
            elif not self._taken and not side.audio:
                other.audio[:0] = bytes(-missing)
                other.zero += missing / _SECOND
        side.zero = at - self._end(side)

    def _place(self, everything: bool) -> None:
        frames = self._frames
        side = self._caller
        count = len(frames) if everything else len(frames) - PENDING_FRAMES
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
        # By how much a frame and all frames after it are late.
        late = float("inf")
        lateness = []
        for time, begin in zip(reversed(at), reversed(begins), strict=True):
            late = min(late, time - side.zero - begin)
            lateness.append(late)
        lateness.reverse()
        if lateness[0] < 0:
            side.zero += lateness[0]
            lateness = [late - lateness[0] for late in lateness]
        if lateness[-1] <= TOLERANCE or max(lateness[:count]) <= TOLERANCE:
            side.audio += b"".join(frame for _, frame in frames[:count])
        else:
            put = 0.0
            for (_, frame), late in zip(frames[:count], lateness[:count], strict=True):
                if late - put > TOLERANCE:
                    gap = side.gap(late - put, self._period)
                    side.audio += bytes(gap)
                    put += gap / _SECOND
                side.audio += frame
        del frames[:count]
