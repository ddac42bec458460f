"""One call's line: speech into the rings, and what FreeSWITCH has read of it (:mod:`eslbot.relay.line`).

A frame is written before it is read or somewhere else: whether it was in time is told by the order of
FreeSWITCH's reads and our writes in one queue, and what was not goes to the next frame as long as nothing of
it was heard. What was heard is overwritten with silence, or a ring would say it again.

A line goes on in new rings, behind what is left in the others, where

* another relay had the call: it may have died in mid-write, and left a :mod:`~eslbot.relay.line.checkpoint`;
* FreeSWITCH has restarted, which has none of them open: what was not read is laid into the new ones, and the
  ticks are counted on.
"""

from __future__ import annotations

import os
import re
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from eslbot.audio import SAMPLE_RATE
from eslbot.relay.line.checkpoint import Checkpoint, CheckpointPage, Slot
from eslbot.relay.line.history import FrameHistory
from eslbot.relay.line.position import ReadPosition
from eslbot.relay.line.predecessor import Predecessor, find_predecessors
from eslbot.relay.line.read_counter import ReadCounter
from eslbot.relay.line.rings import CountedRing, Ring, RingPair, read

#: Seconds of a ring; what is more waits in memory.
RING_SECONDS = 60
#: Samples of the longest packets (120 ms).
MAX_READ_SAMPLES = 960
#: Ticks behind the position that are left as they are, beside those of which nobody knows.
KEPT_TICKS = 100
#: Ticks of a ring that hold nothing: what a relay leaves is not said again until the next one takes it to be
#: over, which may be :data:`eslbot.relay.line.predecessor.MAX_LATENESS` seconds later than it is.
SPARE_TICKS = 350
#: Seconds within which the reads need not be fetched again: a write finds out by itself whether it was in
#: time.
_FRESH = 0.001
#: Seconds between checkpoints for the next relay, while nothing is written.
_CHECKPOINT_INTERVAL = 0.1
#: Times that FreeSWITCH may be faster than a write before that stays as it is.
_MAX_RETRIES = 5

_CALL_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class LineFull(Exception):
    """The disk has no room. So many bytes stand, and speech goes on at tick ``next``."""

    def __init__(self, first: int, next_tick: int, written: int) -> None:
        super().__init__("no room for the line file")
        self.first, self.next, self.written = first, next_tick, written


class Line:
    """A call's line. One relay has the call; whether another one has it by now is told by :attr:`taken`."""

    def __init__(
        self,
        page_path: Path,
        page: CheckpointPage,
        pair: RingPair,
        old: list[Predecessor],
        counter: ReadCounter,
        now: Callable[[], float],
        *,
        samples: int,
        switch: str,
        history: FrameHistory | None,
    ) -> None:
        """For :meth:`open`. All that is given is the line's from now on."""
        self._history = history
        self._page_path = page_path
        self._page = page
        self._old = old
        #: The tick with which what earlier relays have left was heard; 0 where nothing is left.
        self.first_free = max((one.unread for one in old), default=0)
        self._counter = counter
        self._now = now
        self.frame_bytes = 2 * samples
        self.period = samples / SAMPLE_RATE
        self.ring_bytes = pair.a.frames * self.frame_bytes
        self._kept = min(KEPT_TICKS, pair.a.frames // 4)
        self._spare = min(SPARE_TICKS, pair.a.frames // 4)
        #: Whether another relay has the call by now: nothing of ours is written any more.
        self.taken = False
        #: Samples of speech that FreeSWITCH was faster than: not heard.
        self.missed = 0
        #: Seconds of speech that found no room when they were laid into other rings.
        self.lost = 0.0
        self._begin_with(pair, 0, switch)

    def _begin_with(self, pair: RingPair, begin: int, switch: str) -> None:
        """Go on in rings that nobody has read yet, with this tick."""
        self._pair = pair
        self._slot: Slot = self._page.free_slot
        self._slot.assign(self._page.generation, switch)
        self._position = ReadPosition(pair, self._counter, begin, self.period, self._now)
        self._checkpointed_at = 0.0
        #: The tick behind the last one that something was written for.
        self.written = begin
        self._erased = begin
        #: Stretches of ticks that something was written for and that are not silent again.
        self._dirty: deque[tuple[int, int]] = deque()

    @classmethod
    def open(
        cls,
        directory: Path,
        call_id: str,
        counter: ReadCounter,
        now: Callable[[], float] = time.monotonic,
        *,
        samples: int = 160,
        ring_seconds: float = RING_SECONDS,
        switch: str = "",
        kept: bool = False,
    ) -> Self:
        """Make a call's line, and find what other relays have left in theirs.

        ``samples`` are those of one read: of the packets that FreeSWITCH sends; ``switch`` is its Core-UUID,
        where that is known. With ``kept``, :meth:`played` is going to be asked. Raises OSError where files
        cannot be made or watched, ValueError for a call id that is none.
        """
        if not _CALL_ID.fullmatch(call_id):
            raise ValueError("not a call id")
        if not 0 < samples <= MAX_READ_SAMPLES:
            raise ValueError(f"reads of {samples} samples are no packets")
        ring_samples = round(ring_seconds * SAMPLE_RATE / samples) * samples
        page_path = directory / f"{call_id}.line"
        with ExitStack() as undo:
            page = CheckpointPage.open(page_path, int(now() * 1000))
            undo.callback(page.close)
            old = find_predecessors(page, directory, call_id, samples=samples, now=now(), switch=switch)
            for one in old:
                undo.callback(one.close)
            unheard = b"".join(one.rest(0, 0.0) for one in old if one.orphaned)
            if len(old) == len(page.slots):
                old.pop(0).remove()
            over = [one for one in old if one.orphaned or not one.unread]
            old = [one for one in old if one not in over]
            pair = RingPair.make(directory, call_id, page.generation, counter, samples, ring_samples)
            undo.callback(pair.remove, counter)
            history = FrameHistory(2 * samples) if kept else None
            line = cls(
                page_path, page, pair, old, counter, now, samples=samples, switch=switch, history=history
            )
            undo.pop_all()
        unheard = unheard[max(0, len(unheard) - line.room(line.first_free)) :]
        if unheard:
            line._fill(line.first_free, unheard)
            line.first_free = line.written
        line.checkpoint()
        for one in over:
            one.remove()
        return line

    def attach(self, switch: str) -> bool:
        """Have the line be read by the FreeSWITCH of this Core-UUID. Whether that has restarted.

        One that has restarted gets new rings, and what the one before had not read is laid into them. Raises
        OSError where they cannot be made.
        """
        known = self._slot.switch
        if not known:
            self._slot.switch = switch
        if not known or switch in ("", known):
            return False
        self._look(within=0.0)
        self.taken = self._page.taken
        if self.taken:
            return True
        self._page.succeed(int(self._now() * 1000))
        before, slot = self._pair, self._slot
        with ExitStack() as undo:
            directory, call_id, samples = self._page_path.parent, self._page_path.stem, self.frame_bytes // 2
            pair = RingPair.make(
                directory, call_id, self._page.generation, self._counter, samples, self.ring_bytes // 2
            )
            undo.callback(pair.remove, self._counter)
            before.forget(self._counter)  # we are going to read them ourselves
            begin, unheard = self._unheard()
            undo.pop_all()
        self.drop_predecessors()
        if self._history is not None:
            self._history.drop(self._position.tick)
        self._begin_with(pair, begin, switch)
        self._fill(begin, unheard)
        self.checkpoint()
        before.remove(self._counter)
        slot.release()
        return True

    def _unheard(self) -> tuple[int, bytes]:
        """What was not read of our rings and those that are left, and the first tick of it."""
        position, a, size = self._position, self._pair.a, self.frame_bytes
        tick, last = position.tick, self.written
        first = next((max(tick, first) for first, behind in self._dirty if behind > tick), tick)
        if not self._old:
            return first, read(a, position.b, first, last, size)
        # Ours begins behind what is left, which is less than was waited for: FreeSWITCH may have been late.
        behind = max(tick, *(one.unread for one in self._old))
        left = b"".join(one.rest(tick - position.begin, position.begun_at) for one in self._old)
        first = max(tick, behind - len(left) // size)
        left = left[len(left) - (behind - first) * size :]
        return first, left + read(a, position.b, behind, last, size)

    # -- what is asked of it --------------------------------------------------------------------------------

    @property
    def first(self) -> int:
        """The tick of the first read of :attr:`paths`: another one for each FreeSWITCH."""
        return self._position.begin

    def played(self, first: int, last: int) -> bytes:
        """What FreeSWITCH has read from tick ``first`` to before ``last``, once; of a line that is kept.

        Of the files themselves nobody may ask it: a read of ours would be counted.
        """
        return b"" if self._history is None else self._history.take(first, last)

    def keep_no_more(self) -> None:
        """Nobody is going to ask :meth:`played`."""
        self._history = None

    @property
    def paths(self) -> tuple[Path, Path]:
        """The files that FreeSWITCH is to read."""
        return self._pair.paths

    @property
    def predecessor_paths(self) -> tuple[Path, ...]:
        """The files of earlier relays that are to be heard yet; FreeSWITCH has them."""
        return tuple(path for one in self._old for path in one.paths)

    @property
    def read_by_freeswitch(self) -> bool:
        """Whether FreeSWITCH has the line; true from ring A's opening on."""
        return self._position.started

    @property
    def opened(self) -> tuple[bool, bool]:
        """Which of :attr:`paths` FreeSWITCH has; a controller may have died between the two."""
        return self._pair.a.count.opened, self._pair.b.count.opened

    @property
    def stalled(self) -> bool:
        """Whether FreeSWITCH has read nothing for two ticks, as of the last look."""
        return self._position.stalled

    def tick(self) -> int:
        """The tick that FreeSWITCH reads next, as of a millisecond ago at most. Never behind FreeSWITCH."""
        self._look(within=_FRESH)
        return self._position.tick

    def at(self, tick: int) -> float:
        """Monotonic time at which a tick was read, or is likely to be."""
        return self._position.at(tick)

    def first_at(self, when: float) -> int:
        """The first tick that is still to be read, and not before this time."""
        return self._position.first_at(when)

    def poll_at(self) -> float | None:
        """When a :meth:`tick` would tell most about the time of reads; None where that is known."""
        return self._position.poll_at()

    def room(self, tick: int) -> int:
        """How many bytes may be written from a tick on."""
        return max(0, self._erased + self._pair.a.frames + 1 - self._spare - tick) * self.frame_bytes

    def after(self, tick: int, size: int) -> int:
        """The tick behind the last one that so many bytes need from this tick on."""
        end = tick + -(-size // self.frame_bytes)
        for silent in self._position.silent_ticks(tick, end + 2):
            end += silent < end
        return end

    # -- what is said ---------------------------------------------------------------------------------------

    def write(self, tick: int, linear: bytes, standing: int = 0) -> tuple[int, int]:
        """Have this be heard from a tick on; of the first frame so many bytes stand there already.

        Returns the tick at which it begins, later than asked for where FreeSWITCH was faster and ``standing``
        was heard alone, and the one behind its last. Raises LineFull.
        """
        self.taken = self._page.taken
        if self.taken:
            return tick, self.after(tick, len(linear))
        first: int | None = None
        done, retries, begun = 0, _MAX_RETRIES, tick
        try:
            while done < len(linear):
                ring, frame = self._position.find(tick)
                if ring is None:
                    tick += 1
                    continue
                first = tick if first is None else first
                frames = ring.frames - frame if ring is self._pair.a else 1
                piece = linear[done : done + frames * self.frame_bytes]
                stands = self._put(ring, frame, piece)
                if stands < len(piece):
                    self._keep(tick, piece[:stands])
                    self._wrote(begun, tick + -(-stands // self.frame_bytes))
                    raise LineFull(first, self.written, done + stands)
                late = self._read_before_write(ring, tick)
                taken, tick = self._settle(ring, tick, piece, late, 0 if done else standing, retries > 0)
                retries -= late > 0
                if not taken and not done:
                    linear, standing, first = linear[standing:], 0, None
                done += taken
        finally:
            self._wrote(begun, tick)
        return (tick if first is None else first), tick

    def _settle(
        self, ring: CountedRing, tick: int, piece: bytes, late: int, standing: int, retry: bool
    ) -> tuple[int, int]:
        """A piece was written of which FreeSWITCH had read so many frames before: ``late``.

        Take it back if it may be said again, and nothing of it was heard. Returns how many of its bytes are
        done, none where they are to be said again, and the tick for what is next.
        """
        frames = -(-len(piece) // self.frame_bytes)
        behind = tick + frames
        if late and retry:
            # Whatever FreeSWITCH reads from now on is silence, and it is told what it had read.
            self._zero(tick, behind, piece[:standing])
            heard = min(frames, self._read_before_write(ring, tick))
            behind = max(tick + late, self._position.tick)
            if heard <= late:
                return 0, behind
            piece = piece[: heard * self.frame_bytes]
        self._keep(tick, piece, late)
        self.missed += max(0, min(len(piece), late * self.frame_bytes) - standing) // 2
        return len(piece), behind

    def silence(self, first: int, last: int) -> int:
        """Have nothing be heard from tick ``first`` to before ``last``. Returns the tick that is next behind.

        Raises LineFull where a file system needs room for that.
        """
        if not self.taken:
            begin = max(self._position.begin, first - self._position.lag)
            self._zero(begin, last)
            if last >= self.written:
                self.written = max(min(first, self.written), self._erased)
                while self._dirty and self._dirty[-1][1] > begin:
                    dirty, _ = self._dirty.pop()
                    if dirty < begin:
                        self._dirty.append((dirty, begin))
        self._look(within=0.0)
        if self._history is not None and not self.taken:
            a = self._pair.a
            too_soon = max(0, a.reads_at_write - a.reads_before(first)) if first < last else 0
            self._history.drop(first + too_soon)
        return self._position.tick

    def drop_predecessors(self) -> None:
        """Have nothing more be heard of what earlier relays have left."""
        if not self.taken:
            for one in self._old:
                one.remove()
            self._old = []

    def erase_played(self) -> None:
        """Make silence of what was heard a while ago, or the ring would say it again. Raises LineFull."""
        if self.taken:
            return
        tick = self._position.tick
        for one in [one for one in self._old if one.unread <= tick]:
            one.remove()
            self._old.remove(one)
        upto = tick - self._kept - self._position.lag
        if upto - self._erased < self._kept // 8:
            return
        while self._dirty and self._dirty[0][0] < upto:
            first, last = self._dirty[0]
            self._zero(first, min(last, upto))
            if last <= upto:
                self._dirty.popleft()
            else:
                self._dirty[0] = (upto, last)
        self._erased = max(self._erased, upto)

    # -- the next relay -------------------------------------------------------------------------------------

    def checkpoint(self, always: bool = True) -> None:
        """Leave a checkpoint for the next relay, if one is due; and find out whether there is one."""
        now = self._counter.before
        if not always and now - self._checkpointed_at < _CHECKPOINT_INTERVAL:
            return
        self._checkpointed_at = now
        self.taken = self._page.taken  # cheap, but not for every look
        if self.taken:
            return
        position = self._position
        second = None if position.b is None else position.b.offset
        self._slot.write(
            Checkpoint(position.started, position.tick, self.written, now, position.begin, second)
        )
        for one in self._old:
            one.checkpoint(position.tick - position.begin, now, position.begun_at)

    def checkpoint_now(self) -> None:
        """Leave word of where FreeSWITCH is in this moment: it may have died, and we may be next."""
        self._look(within=0.0)
        self.checkpoint()

    def close(self, remove: bool) -> None:
        """Let go of the line; ``remove`` takes the names away: FreeSWITCH goes on with what it has opened."""
        self._pair.forget(self._counter)
        self._pair.close()
        for one in self._old:
            one.close()
        remove = remove and not self._page.taken
        self._page.close()
        if remove:
            for path in (*self.paths, *self.predecessor_paths, self._page_path):
                path.unlink(missing_ok=True)

    # -- the files ------------------------------------------------------------------------------------------

    def _look(self, *, within: float) -> None:
        """Find out where FreeSWITCH is, as of so many seconds ago at most."""
        self._counter.drain(within)
        position = self._position
        if within and self._counter.before == position.looked_at:
            return
        started = position.started
        begins = position.look()
        if position.started and not started:
            self._checkpointed_at = 0.0  # the next relay must not say again what FreeSWITCH reads
        if begins and self._history is not None:
            for one in self._old:  # FreeSWITCH reads theirs from our first tick on, too
                with suppress(OSError):  # it is heard all the same, and not recorded
                    self._history.put(position.begin, one.rest(0, position.begun_at))

    def _fill(self, tick: int, linear: bytes) -> None:
        """Have this be heard from a tick on, of rings that nobody reads yet."""
        stands = self._put(self._pair.a, tick - self._position.begin, linear)
        self.lost += (len(linear) - stands) / (2 * SAMPLE_RATE)
        self._keep(tick, linear[:stands])
        self._wrote(tick, tick - (-len(linear) // self.frame_bytes))

    def _keep(self, tick: int, linear: bytes, unheard: int = 0) -> None:
        """Remember what stands from a tick on, but for so many frames, which were read before they did."""
        if self._history is not None:
            self._history.put(tick + unheard, linear[unheard * self.frame_bytes :])

    def _put(self, ring: Ring, frame: int, linear: bytes) -> int:
        """How many bytes stand there now: fewer where the disk has no room."""
        start = frame * self.frame_bytes
        stands = 0
        with suppress(OSError):  # told by what stands
            while stands < len(linear):
                stands += os.pwrite(ring.fd, linear[stands:] if stands else linear, start + stands)
        return stands

    def _read_before_write(self, ring: CountedRing, tick: int) -> int:
        """How many frames from a tick on FreeSWITCH had read when our last write was done."""
        losses = self._position.losses
        self._look(within=0.0)
        known = self._position.losses == losses
        return max(0, ring.reads_at_write - ring.reads_before(tick)) if known else 0

    def _wrote(self, first: int, last: int) -> None:
        self.written = max(self.written, last)
        if last <= first:
            return
        if self._dirty and first <= self._dirty[-1][1]:
            first, last = min(first, self._dirty[-1][0]), max(last, self._dirty[-1][1])
            self._dirty.pop()
        self._dirty.append((first, last))
        self.checkpoint()

    def _zero(self, first: int, last: int, but: bytes = b"") -> None:
        """Silence from tick ``first`` to before ``last``, but for what was heard already in the first."""
        tick = first
        while tick < last:
            ring, frame = self._position.find(tick)
            frames = 1
            if ring is not None:
                frames = min(last - tick, ring.frames - frame) if ring is self._pair.a else 1
                silence = (but if tick == first else b"").ljust(frames * self.frame_bytes, b"\0")
                if self._put(ring, frame, silence) < len(silence):
                    raise LineFull(first, last, 0)
            tick += frames
