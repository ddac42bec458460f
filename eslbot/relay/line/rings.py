"""A call's two ring files: where a tick's samples stand in them, how often they were read; made, removed."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from eslbot.relay.line.checkpoint import MODE
from eslbot.relay.line.read_counter import ReadCount, ReadCounter

#: Samples by which ring B is longer, about.
EXTRA_SAMPLES = 960

R = TypeVar("R", bound="Ring")


def ring_paths(directory: Path, call_id: str, generation: int) -> tuple[Path, Path]:
    """The paths of a generation's rings. No two generations of a call have the same ones: FreeSWITCH knows
    what it displaces by its path, and refuses a second one.
    """
    return (directory / f"{call_id}.{generation}.a.r8", directory / f"{call_id}.{generation}.b.r8")


def extra_samples(samples: int) -> int:
    """By how many samples ring B is longer: a whole number of reads of so many ``samples``."""
    return EXTRA_SAMPLES // samples * samples


class Ring:
    """One file that FreeSWITCH reads round and round: ``frames`` reads, and a tick without one."""

    def __init__(self, fd: int, frames: int) -> None:
        self.fd = fd
        self.frames = frames
        #: Tick in which the ring's first frame was read.
        self.offset = 0

    def frame(self, tick: int) -> int | None:
        """The frame that is read in a tick; None where nothing is."""
        frame = (tick - self.offset) % (self.frames + 1)
        return frame if tick >= self.offset and frame < self.frames else None


def find(a: R, b: R | None, tick: int) -> tuple[R, int] | tuple[None, int]:
    """Which ring is heard in a tick, and with which frame; ``b`` is None where its offset is not known."""
    frame = a.frame(tick)
    if frame is not None:
        return a, frame
    frame = None if b is None else b.frame(tick)
    return (None, 0) if b is None or frame is None else (b, frame)


def read(a: Ring, b: Ring | None, first: int, last: int, frame_bytes: int) -> bytes:
    """What is heard from tick ``first`` to before ``last``. Raises OSError."""
    pieces = []
    tick = first
    while tick < last:
        ring, frame = find(a, b, tick)
        frames = min(last - tick, ring.frames - frame) if ring is a else 1
        piece = b"" if ring is None else os.pread(ring.fd, frames * frame_bytes, frame * frame_bytes)
        pieces.append(piece.ljust(frames * frame_bytes, b"\0"))
        tick += frames
    return b"".join(pieces)


class CountedRing(Ring):
    """A ring of ours, whose reads are counted."""

    def __init__(self, fd: int, frames: int, count: ReadCount) -> None:
        super().__init__(fd, frames)
        self.count = count
        #: Reads that nobody counted, in whole rounds or not.
        self._uncounted = 0

    @property
    def reads(self) -> int:
        """Reads since the first."""
        return max(0, self.count.reads + self._uncounted)

    @property
    def reads_at_write(self) -> int:
        """Those that had happened when our last write was done."""
        return max(0, self.count.reads_at_write + self._uncounted)

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

    def go_to(self, tick: int) -> None:
        """Count on from here: this tick is the next."""
        self._uncounted = self.reads_before(tick) - self.count.reads


@dataclass(frozen=True, slots=True)
class RingPair:
    """One generation's two rings."""

    paths: tuple[Path, Path]
    a: CountedRing
    b: CountedRing

    @classmethod
    def make(
        cls,
        directory: Path,
        call_id: str,
        generation: int,
        counter: ReadCounter,
        samples: int,
        ring_samples: int,
    ) -> RingPair:
        """New files of silence, whose reads are counted. Raises OSError; then there are none."""
        paths = ring_paths(directory, call_id, generation)
        group = directory.stat().st_gid
        with ExitStack() as undo:
            rings = []
            for path, length in zip(
                paths, (ring_samples, ring_samples + extra_samples(samples)), strict=True
            ):
                fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
                undo.callback(path.unlink, missing_ok=True)
                undo.callback(os.close, fd)
                if os.fstat(fd).st_gid != group:
                    os.fchown(fd, -1, group)
                os.fchmod(fd, MODE)
                os.truncate(fd, 2 * length)
                count = counter.watch(path, length)
                undo.callback(counter.forget, count)
                rings.append(CountedRing(fd, length // samples, count))
            undo.pop_all()
        return cls(paths, rings[0], rings[1])

    def forget(self, counter: ReadCounter) -> None:
        """Have their reads be counted no more."""
        for ring in (self.a, self.b):
            counter.forget(ring.count)

    def close(self) -> None:
        """Let go of the files."""
        for ring in (self.a, self.b):
            os.close(ring.fd)

    def remove(self, counter: ReadCounter) -> None:
        """Leave nothing of them."""
        self.forget(counter)
        self.close()
        for path in self.paths:
            path.unlink(missing_ok=True)
