"""The line file: what is written into it is what the caller hears, at the time that its place stands for.

Two rings of L16 at 8,000 Hz a call, displaced onto the channel with ``mfl``: FreeSWITCH reads a frame of each
with every frame that it sends, and begins again at their end. There it reads nothing for one *tick*; in ring
A's ring B speaks, which is longer so that both ends fall together only after hours (nobody can be heard in
that tick, and it is left out). Time is counted in ticks since A's first read: a tick is one read, 20 ms where
FreeSWITCH sends such packets.

The position is the count of the reads (:mod:`eslbot.relay.reads`). Where events were dropped it is what the
wall clock allows since the last look, which FreeSWITCH is never ahead of, and counted on from there; what it
may be behind by is kept until it must have been heard. A relay that takes over a call never
goes on in the rings of the one before: it makes new ones, and speaks behind what is left in the others
(:mod:`eslbot.relay.left`). Nor does a line go on in its rings where FreeSWITCH has restarted, which has none
of them open: what was not read is laid into new ones, and the ticks are counted on.

A frame is written before it is read or somewhere else: whether it was in time is told by the order of
FreeSWITCH's reads and our writes in one queue, and what was not goes to the next frame as long as nothing of
it was heard.

What was heard is overwritten with silence, or a ring would say it again. The files are ours alone to write
and to open; FreeSWITCH reads them by their directory's group. Nothing else may read them: it would be
counted.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from eslbot.relay.control import RATE
from eslbot.relay.left import Left, rings_of
from eslbot.relay.phase import Phase
from eslbot.relay.reads import Count, Reads
from eslbot.relay.ring import Ring, find, read
from eslbot.relay.sidecar import MODE, Note, Place, Sidecar
from eslbot.relay.spoken import Spoken

#: Seconds of a ring; what is more waits in memory.
RING_SECONDS = 60
#: Samples by which ring B is longer, about.
LONGER = 960
#: Samples of the longest packets (120 ms).
LONGEST_READ = 960
#: Ticks behind the position that are left as they are, beside those of which nobody knows.
KEPT = 100
#: Ticks of a ring that hold nothing: what a relay leaves is not said again until the next one takes it to be
#: over, which may be :data:`eslbot.relay.left.LATEST` seconds later than it is.
SPARE = 350
#: Seconds between two reads that cannot be of the same tick.
_QUIET = 0.002
#: Seconds within which the reads need not be fetched again: a write finds out by itself whether it was in
#: time.
_FRESH = 0.001
#: Looks that tell in which tick ring B was begun, until they are enough.
_VOTES = 20
#: Those to be had soon, and the seconds between them: most see nothing read since the last.
_SURE = 3
_BETWEEN = 0.006
#: Seconds between notes for the next relay, while nothing is written.
_NOTED = 0.1
#: Times that FreeSWITCH may be faster than a write before that stays as it is.
_TRIES = 5

_CALL_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


def longer_by(samples: int) -> int:
    """By how many samples ring B is longer: a whole number of reads."""
    return LONGER // samples * samples


class LineFull(Exception):
    """The disk has no room. So many bytes stand, and speech goes on at tick ``next``."""

    def __init__(self, first: int, next_tick: int, written: int) -> None:
        super().__init__("no room for the line file")
        self.first, self.next, self.written = first, next_tick, written


class Counted(Ring):
    """A ring of ours, whose reads are counted."""

    def __init__(self, fd: int, frames: int, count: Count) -> None:
        super().__init__(fd, frames)
        self.count = count
        #: Reads that nobody counted, in whole rounds or not.
        self.uncounted = 0

    @property
    def reads(self) -> int:
        """Reads since the first."""
        return max(0, self.count.reads + self.uncounted)

    @property
    def reads_at_write(self) -> int:
        """Those that had happened when our last write was done."""
        return max(0, self.count.reads_at_write + self.uncounted)

    @property
    def ticks(self) -> int:
        """Ticks that are over for certain; at the end one less than it may be."""
        reads = self.reads
        rounds, frame = divmod(reads, self.frames)
        return self.offset + rounds * (self.frames + 1) + frame - (reads > 0 and not frame)

    @property
    def at_end(self) -> bool:
        """Whether the tick in which nothing is read may be over or not."""
        return self.reads > 0 and self.reads % self.frames == 0

    def reads_before(self, tick: int) -> int:
        """How many reads there are before a tick."""
        rounds, frame = divmod(max(0, tick - self.offset), self.frames + 1)
        return rounds * self.frames + min(frame, self.frames)

    def be_at(self, tick: int) -> None:
        """Count on from here: this tick is the next."""
        self.uncounted = self.reads_before(tick) - self.count.reads


@dataclass(frozen=True, slots=True)
class _Pair:
    """A generation's two rings."""

    paths: tuple[Path, Path]
    a: Counted
    b: Counted

    def forget(self, reads: Reads) -> None:
        """Have their reads be counted no more."""
        for ring in (self.a, self.b):
            reads.forget(ring.count)

    def close(self) -> None:
        """Let go of the files."""
        for ring in (self.a, self.b):
            os.close(ring.fd)

    def remove(self, reads: Reads) -> None:
        """Leave nothing of them."""
        self.forget(reads)
        self.close()
        for path in self.paths:
            path.unlink(missing_ok=True)


class Line:
    """A call's line. One relay has the call; whether another one has it by now is told by :attr:`taken`."""

    def __init__(
        self,
        side_path: Path,
        sidecar: Sidecar,
        place: Place,
        old: list[Left],
        pair: _Pair,
        reads: Reads,
        now: Callable[[], float],
        samples: int,
        ring_samples: int,
        spoken: Spoken | None,
    ) -> None:
        """For :meth:`open`. All that is given is the line's from now on."""
        self._spoken = spoken
        self._side_path = side_path
        self._sidecar = sidecar
        self._old = old
        #: The tick with which what earlier relays have left was heard; 0 where nothing is left.
        self.behind = max((left.unread for left in old), default=0)
        self._reads = reads
        self._now = now
        self.samples = samples
        self.frame_bytes = 2 * samples
        self.period = samples / RATE
        self.ring_bytes = 2 * ring_samples
        self._kept = min(KEPT, pair.a.frames // 4)
        self._spare = min(SPARE, pair.a.frames // 4)
        self._noted = 0.0
        #: Whether another relay has the call by now: nothing of ours is written any more.
        self.taken = False
        #: Samples of speech that FreeSWITCH was faster than: not heard.
        self.missed = 0
        #: Seconds of speech that found no room when they were laid into other rings.
        self.lost = 0.0
        self._begin_with(pair, place, 0)

    def _begin_with(self, pair: _Pair, place: Place, begin: int) -> None:
        """Go on in rings that nobody has read yet, with this tick."""
        self._pair, self._a, self._b = pair, pair.a, pair.b
        self._place_in_page = place
        #: The tick of ring A's first read.
        self._begin = self._a.offset = begin
        self._started = self._b_known = False
        self._votes: dict[int, int] = {}
        self._votes_wanted = _VOTES
        self._losses = 0
        #: Monotonic times of the last look, and of the last at which FreeSWITCH had read nothing.
        self._looked = self._unread = self._reads.before
        #: And that by which the first read had happened: FreeSWITCH is never ahead of it.
        self._begun_at = self._reads.before
        self._tick = begin
        #: Ticks by which FreeSWITCH may be behind that, since events were dropped.
        self._unsure = 0
        #: The tick behind the last one that something was written for.
        self.written = begin
        self._cleared = begin
        self._dirty: deque[tuple[int, int]] = deque()
        self._phase = Phase(self.period)

    @classmethod
    def open(
        cls,
        directory: Path,
        call_id: str,
        reads: Reads,
        now: Callable[[], float] = time.monotonic,
        *,
        samples: int = 160,
        ring_seconds: float = RING_SECONDS,
        switch: str = "",
        kept: bool = False,
    ) -> Self:
        """Make a call's line, and find what other relays have left in theirs.

        ``samples`` are those of one read: of the packets that FreeSWITCH sends; ``switch`` is its Core-UUID,
        where that is known. With ``kept``, :meth:`heard` is going to be asked. Raises OSError where files
        cannot be made or watched, ValueError for a call id that is none.
        """
        if not _CALL_ID.fullmatch(call_id):
            raise ValueError("not a call id")
        if not 0 < samples <= LONGEST_READ:
            raise ValueError(f"reads of {samples} samples are no packets")
        ring_samples = round(ring_seconds * RATE / samples) * samples
        side_path = directory / f"{call_id}.line"
        with ExitStack() as undo:
            sidecar = Sidecar.open(side_path, int(now() * 1000))
            undo.callback(sidecar.close)
            old = []
            for place in sorted(sidecar.places, key=lambda place: place.generation):
                if place.generation:
                    paths = rings_of(directory, call_id, place.generation)
                    old.append(Left(place, paths, samples, now(), switch))
                    undo.callback(old[-1].close)
            unheard = b"".join(left.rest(0, 0.0) for left in old if left.over)
            if len(old) == len(sidecar.places):
                old.pop(0).remove()
            nobodys = [left for left in old if left.over or not left.unread]
            old = [left for left in old if left not in nobodys]
            pair = _make_pair(directory, call_id, sidecar.generation, reads, samples, ring_samples)
            undo.callback(pair.remove, reads)
            place = next(place for place in sidecar.places if not place.generation)
            place.begin(sidecar.generation, switch)
            spoken = Spoken(2 * samples) if kept else None
            line = cls(side_path, sidecar, place, old, pair, reads, now, samples, ring_samples, spoken)
            undo.pop_all()
        unheard = unheard[max(0, len(unheard) - line.room(line.behind)) :]
        if unheard:
            line._lay(line.behind, unheard)
            line.behind = line.written
        line.note()
        for left in nobodys:
            left.remove()
        return line

    def read_by(self, switch: str) -> bool:
        """Have the line be read by the FreeSWITCH of this Core-UUID. Whether that has restarted.

        One that has restarted gets new rings, and what the one before had not read is laid into them. Raises
        OSError where they cannot be made.
        """
        known = self._place_in_page.switch
        if not known:
            self._place_in_page.switch = switch
        if not known or switch in ("", known):
            return False
        self._reads.drain()
        self._look()
        self.taken = self._sidecar.taken
        if self.taken:
            return True
        self._sidecar.succeed(int(self._now() * 1000))
        before, place = self._pair, self._place_in_page
        directory, call_id = self._side_path.parent, self._side_path.stem
        generation, ring_samples = self._sidecar.generation, self.ring_bytes // 2
        with ExitStack() as undo:
            pair = _make_pair(directory, call_id, generation, self._reads, self.samples, ring_samples)
            undo.callback(pair.remove, self._reads)
            before.forget(self._reads)  # we are going to read them ourselves
            begin, unheard = self._unheard()
            undo.pop_all()
        self.drop_old()
        if self._spoken is not None:
            self._spoken.drop(self._tick)
        self._begin_with(pair, next(free for free in self._sidecar.places if not free.generation), begin)
        self._place_in_page.begin(generation, switch)
        self._lay(begin, unheard)
        self.note()
        before.remove(self._reads)
        place.begin(0)
        return True

    def _unheard(self) -> tuple[int, bytes]:
        """What was not read of our rings and those that are left, and the first tick of it."""
        tick, last = self._tick, self.written
        b = self._b if self._b_known else None
        first = next((max(tick, first) for first, behind in self._dirty if behind > tick), tick)
        if not self._old:
            return first, read(self._a, b, first, last, self.frame_bytes)
        # Ours begins behind what is left, which is less than was waited for: FreeSWITCH may have been late.
        behind = max(tick, *(left.unread for left in self._old))
        left = b"".join(left.rest(tick - self._begin, self._begun_at) for left in self._old)
        first = max(tick, behind - len(left) // self.frame_bytes)
        left = left[len(left) - (behind - first) * self.frame_bytes :]
        return first, left + read(self._a, b, behind, last, self.frame_bytes)

    @property
    def first(self) -> int:
        """The tick of the first read of :attr:`paths`: another one for each FreeSWITCH."""
        return self._begin

    def heard(self, first: int, last: int) -> bytes:
        """What FreeSWITCH has read from tick ``first`` to before ``last``, once; of a line that is kept.

        Of the files themselves nobody may ask it: a read of ours would be counted.
        """
        return b"" if self._spoken is None else self._spoken.take(first, last)

    def keep_no_more(self) -> None:
        """Nobody is going to ask :meth:`heard`."""
        self._spoken = None

    @property
    def paths(self) -> tuple[Path, Path]:
        """The files that FreeSWITCH is to read."""
        return self._pair.paths

    @property
    def old_paths(self) -> tuple[Path, ...]:
        """The files of earlier relays that are to be heard yet; FreeSWITCH has them."""
        return tuple(path for left in self._old for path in left.paths)

    @property
    def read_by_freeswitch(self) -> bool:
        """Whether FreeSWITCH has the line; true from ring A's opening on."""
        return self._started

    @property
    def opened(self) -> tuple[bool, bool]:
        """Which of :attr:`paths` FreeSWITCH has; a controller may have died between the two."""
        return self._a.count.opened, self._b.count.opened

    @property
    def stands(self) -> bool:
        """Whether FreeSWITCH has read nothing for two ticks, as of the last look."""
        return self._looked - max(self._a.count.seen, self._b.count.seen) > 2 * self.period

    def tick(self) -> int:
        """The tick that FreeSWITCH reads next, as of a millisecond ago at most. Never behind FreeSWITCH."""
        self._reads.drain(_FRESH)
        if self._reads.before != self._looked:
            self._look()
        return self._tick

    def at(self, tick: int) -> float:
        """Monotonic time at which a tick was read, or is likely to be."""
        known = self._phase.at(tick)
        if known is None:
            return self._now() + (tick - self._begin) * self.period
        if tick < self._tick:
            return known
        expected = self._phase.at(self._tick)  # the next one is overdue while FreeSWITCH stalls
        return known if expected is None else max(known, self._now() + known - expected)

    def first_at(self, when: float) -> int:
        """The first tick that is still to be read, and not before this time."""
        return self._tick + max(0, math.ceil((when - self.at(self._tick)) / self.period))

    def look_at(self) -> float | None:
        """When a :meth:`tick` would tell most about the time of reads; None where that is known."""
        if self._tick == self._begin or self.stands:
            return None
        if self._votes_wanted > _VOTES - _SURE and self._b.count.opened:
            return self._reads.before + _BETWEEN
        return self._phase.look_at(self._tick, self._now())

    def room(self, tick: int) -> int:
        """How many bytes may be written from a tick on."""
        return max(0, self._cleared + self._a.frames + 1 - self._spare - tick) * self.frame_bytes

    def after(self, tick: int, size: int) -> int:
        """The tick behind the last one that so many bytes need from this tick on."""
        end = tick + -(-size // self.frame_bytes)
        for mute in self._mute(tick, end + 2):
            end += mute < end
        return end

    def write(self, tick: int, linear: bytes, standing: int = 0) -> tuple[int, int]:
        """Have this be heard from a tick on; of the first frame so many bytes stand there already.

        Returns the tick at which it begins, later than asked for where FreeSWITCH was faster and ``standing``
        was heard alone, and the one behind its last. Raises LineFull.
        """
        self.taken = self._sidecar.taken
        if self.taken:
            return tick, self.after(tick, len(linear))
        first: int | None = None
        done = 0
        tries = _TRIES
        begun = tick
        try:
            while done < len(linear):
                ring, frame = self._place(tick)
                if ring is None:
                    tick += 1
                    continue
                first = tick if first is None else first
                frames = ring.frames - frame if ring is self._a else 1
                piece = linear[done : done + frames * self.frame_bytes]
                stands = self._put(ring, frame, piece)
                if stands < len(piece):
                    self._keep(tick, piece[:stands])
                    self._wrote(begun, tick + -(-stands // self.frame_bytes))
                    raise LineFull(first, self.written, done + stands)
                size = -(-len(piece) // self.frame_bytes)
                late = self._read_before_write(ring, tick)
                if late and tries:
                    # Take it back: whatever FreeSWITCH reads from now on is silence, and it is told what it
                    # had read.
                    tries -= 1
                    self._zero(tick, tick + size, b"" if done else linear[:standing])
                    heard = min(size, self._read_before_write(ring, tick))
                    behind = max(tick + late, self._tick)
                    if heard <= late:
                        if not done:
                            linear, standing, first = linear[standing:], 0, None
                        tick = behind
                        continue
                    piece = piece[: heard * self.frame_bytes]
                    self._keep(tick, piece, late)
                    tick = behind
                else:
                    self._keep(tick, piece, late)
                    tick += size
                if late:
                    self.missed += (
                        max(0, min(len(piece), late * self.frame_bytes) - (0 if done else standing)) // 2
                    )
                done += len(piece)
        finally:
            self._wrote(begun, tick)
        return (tick if first is None else first), tick

    def silence(self, first: int, last: int) -> int:
        """Have nothing be heard from tick ``first`` to before ``last``. Returns the tick that is next behind
        it.

        Raises LineFull where a file system needs room for that.
        """
        if not self.taken:
            begin = max(self._begin, first - self._unsure)
            self._zero(begin, last)
            if last >= self.written:
                self.written = max(min(first, self.written), self._cleared)
                while self._dirty and self._dirty[-1][1] > begin:
                    dirty, _ = self._dirty.pop()
                    if dirty < begin:
                        self._dirty.append((dirty, begin))
        self._reads.drain()
        self._look()
        if self._spoken is not None and not self.taken:
            too_soon = max(0, self._a.reads_at_write - self._a.reads_before(first)) if first < last else 0
            self._spoken.drop(first + too_soon)
        return self._tick

    def drop_old(self) -> None:
        """Have nothing more be heard of what earlier relays have left."""
        if not self.taken:
            for left in self._old:
                left.remove()
            self._old = []

    def tidy(self) -> None:
        """Make silence of what was heard a while ago, or the ring would say it again. Raises LineFull."""
        if self.taken:
            return
        for left in [left for left in self._old if left.unread <= self._tick]:
            left.remove()
            self._old.remove(left)
        upto = self._tick - self._kept - self._unsure
        if upto - self._cleared < self._kept // 8:
            return
        while self._dirty and self._dirty[0][0] < upto:
            first, last = self._dirty[0]
            self._zero(first, min(last, upto))
            if last <= upto:
                self._dirty.popleft()
            else:
                self._dirty[0] = (upto, last)
        self._cleared = max(self._cleared, upto)

    def note(self, always: bool = True) -> None:
        """Leave word for the next relay; and find out whether there is one."""
        if not always and self._reads.before - self._noted < _NOTED:
            return
        self._noted = self._reads.before
        self.taken = self._sidecar.taken  # cheap, but not for every look
        if self.taken:
            return
        second = self._b.offset if self._b_known else None
        self._place_in_page.write(
            Note(self._started, self._tick, self.written, self._reads.before, self._begin, second)
        )
        for left in self._old:
            left.note(self._tick - self._begin, self._reads.before, self._begun_at)

    def note_now(self) -> None:
        """Leave word of where FreeSWITCH is in this moment: it may have died, and we may be next."""
        self._reads.drain()
        self._look()
        self.note()

    def close(self, remove: bool) -> None:
        """Let go of the line; ``remove`` takes the names away: FreeSWITCH goes on with what it has opened."""
        self._pair.forget(self._reads)
        self._pair.close()
        for left in self._old:
            left.close()
        remove = remove and not self._sidecar.taken
        self._sidecar.close()
        if remove:
            for path in (*self.paths, *self.old_paths, self._side_path):
                path.unlink(missing_ok=True)

    # ---- the position

    def _look(self) -> None:
        a, b = self._a, self._b
        self._looked = self._reads.before
        if a.count.losses == self._losses:
            if not a.reads:
                self._unread = self._looked
        elif a.count.opened:
            self._losses = a.count.losses
            if self._losses:
                self._lose_count()
        if not self._started and a.count.opened:
            self._started = True
            self._noted = 0.0  # the next relay must not say again what FreeSWITCH reads
        if not self._started:
            return
        if self._votes_wanted:
            self._align()
        ticks = a.ticks
        seen = a.count.seen
        if self._b_known:
            ticks = max(ticks, b.ticks)
            seen = max(seen, b.count.seen)
        new = ticks > self._tick
        if new:
            begun_at = seen - (ticks - self._begin - 1) * self.period
            first = self._tick == self._begin
            self._begun_at = begun_at if first else min(begun_at, self._begun_at)
            self._tick = ticks
            if first and self._old:
                self._keep_left()
        if ticks > self._begin and ticks == self._tick and (self._b_known or not a.at_end):
            self._phase.saw(ticks, self._reads.before, seen if new and seen else None)

    def _align(self) -> None:
        """Find out in which tick ring B was begun. In each both are read, in FreeSWITCH's order."""
        a, b = self._a, self._b
        if not b.count.opened or not b.reads or a.at_end or b.at_end:
            return
        if self._losses:
            self._votes_wanted = 0
            return
        quiet = self._reads.before - max(a.count.seen, b.count.seen) >= _QUIET
        if self._b_known and not quiet:
            return
        offset = a.ticks - (b.ticks - b.offset)
        if quiet:
            self._votes[offset] = self._votes.get(offset, 0) + 1
            self._votes_wanted -= 1
            offset = max(self._votes, key=self._votes.__getitem__)
        self._b_known, b.offset = True, offset

    def _lose_count(self) -> None:
        """Events were dropped: take FreeSWITCH for as far as it can be, keep what it may be behind by."""
        now = self._now()
        if self._tick > self._begin:
            tick = max(self._a.ticks, self._phase.latest_tick(now))
        else:
            tick = self._begin + int((now - self._unread) / self.period) + 1
        self._unsure = min(self._unsure + tick - self._a.ticks, self._a.frames // 4)
        self._tick = tick
        self._a.be_at(tick)
        if self._b_known:
            self._b.be_at(tick)

    # ---- the files

    def _place(self, tick: int) -> tuple[Counted, int] | tuple[None, int]:
        """Who is heard in a tick, and with which frame."""
        return find(self._a, self._b if self._b_known else None, tick)

    def _mute(self, first: int, last: int) -> list[int]:
        """Ticks in which nobody can be heard."""
        whole = self._a.frames + 1
        ends = range(first + (self._begin + whole - 1 - first) % whole, last, whole)
        return [tick for tick in ends if self._place(tick)[0] is None]

    def _lay(self, tick: int, linear: bytes) -> None:
        """Have this be heard from a tick on, of rings that nobody reads yet."""
        stands = self._put(self._a, tick - self._begin, linear)
        self.lost += (len(linear) - stands) / (2 * RATE)
        self._keep(tick, linear[:stands])
        self._wrote(tick, tick - (-len(linear) // self.frame_bytes))

    def _keep(self, tick: int, linear: bytes, unheard: int = 0) -> None:
        """Remember what stands from a tick on, but for so many frames, which were read before they did."""
        if self._spoken is not None:
            self._spoken.put(tick + unheard, linear[unheard * self.frame_bytes :])

    def _keep_left(self) -> None:
        """Remember what FreeSWITCH reads in the rings of the relay before, from our first tick on."""
        if self._spoken is not None:
            for left in self._old:
                with suppress(OSError):  # it is heard all the same, and not recorded
                    self._spoken.put(self._begin, left.rest(0, self._begun_at))

    def _put(self, ring: Ring, frame: int, linear: bytes) -> int:
        """How many bytes stand there now: fewer where the disk has no room."""
        start = frame * self.frame_bytes
        stands = 0
        with suppress(OSError):  # told by what stands
            while stands < len(linear):
                stands += os.pwrite(ring.fd, linear[stands:] if stands else linear, start + stands)
        return stands

    def _read_before_write(self, ring: Counted, tick: int) -> int:
        """How many frames from a tick on FreeSWITCH had read when our last write was done."""
        self._reads.drain()
        losses = self._losses
        self._look()
        return 0 if self._losses != losses else max(0, ring.reads_at_write - ring.reads_before(tick))

    def _wrote(self, first: int, last: int) -> None:
        self.written = max(self.written, last)
        if last <= first:
            return
        if self._dirty and first <= self._dirty[-1][1]:
            first, last = min(first, self._dirty[-1][0]), max(last, self._dirty[-1][1])
            self._dirty.pop()
        self._dirty.append((first, last))
        self.note()

    def _zero(self, first: int, last: int, but: bytes = b"") -> None:
        """Silence from tick ``first`` to before ``last``, but for what was heard already in the first."""
        tick = first
        while tick < last:
            ring, frame = self._place(tick)
            frames = 1
            if ring is not None:
                frames = min(last - tick, ring.frames - frame) if ring is self._a else 1
                silence = (but if tick == first else b"").ljust(frames * self.frame_bytes, b"\0")
                if self._put(ring, frame, silence) < len(silence):
                    raise LineFull(first, last, 0)
            tick += frames


def _make_pair(
    directory: Path, call_id: str, generation: int, reads: Reads, samples: int, ring_samples: int
) -> _Pair:
    """A generation's rings, whose reads are counted. Raises OSError; then there are none."""
    paths = rings_of(directory, call_id, generation)
    group = directory.stat().st_gid
    with ExitStack() as undo:
        rings = []
        for path, length in zip(paths, (ring_samples, ring_samples + longer_by(samples)), strict=True):
            fd = _make(path)
            undo.callback(path.unlink, missing_ok=True)
            undo.callback(os.close, fd)
            _shape(fd, 2 * length, group)
            count = reads.watch(path, length)
            undo.callback(reads.forget, count)
            rings.append(Counted(fd, length // samples, count))
        undo.pop_all()
    return _Pair(paths, rings[0], rings[1])


def _make(path: Path) -> int:
    """A new file's descriptor. Raises OSError."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)


def _shape(fd: int, size: int, group: int) -> None:
    """So many bytes of silence, for a group to read. Raises OSError."""
    if os.fstat(fd).st_gid != group:
        os.fchown(fd, -1, group)
    os.fchmod(fd, MODE)
    os.truncate(fd, size)
