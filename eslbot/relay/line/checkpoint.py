"""The checkpoints that one relay leaves the next about a call's lines: a page of memory that is a file.

Each relay that has the call makes rings of its own, a *generation*. The page has a slot for each that may
still be heard, and names the newest one, whose relay has the call. A relay may be killed between any two
instructions, so a slot has room for two checkpoints and each goes into the older one; its number stands
before and behind it, and a half-written one is none. Times are the monotonic clock's, which all processes of
a machine share.

A slot also says of which FreeSWITCH it was, by its Core-UUID: one that has restarted since reads none of it.
"""

from __future__ import annotations

import math
import mmap
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Self

SIZE = 4096
#: Generations that have a slot: the newest one, and those before it.
SLOTS = 4
#: Of all files of a line: FreeSWITCH reads them by their directory's group.
MODE = 0o640
_MAGIC = b"eslbotL3"
_MAX_GENERATION = 1 << 48
_HEAD = struct.Struct("<8sQ")  # magic, newest generation
_NEWEST = slice(8, _HEAD.size)
_CHECKPOINT = struct.Struct("<QQQQdQqQ")  # number, started, tick, written, at, begin, second, number
_FIRST_SLOT = _SLOT = 512
#: In a slot, behind the number of its generation, which is 0 where there is none, and its FreeSWITCH.
_CHECKPOINTS = (64, 128)
_SWITCH = slice(8, 64)


class BadCheckpointPage(Exception):
    """A file that no relay of this version has left."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a generation was at ``at``.

    Attributes:
        started: whether FreeSWITCH has opened the rings.
        tick: the one that FreeSWITCH reads next.
        written: the tick behind the last one that something was written for.
        at: monotonic seconds.
        begin: the tick in which ring A's first frame is read.
        second: the tick in which ring B's is, where that is known.
    """

    started: bool
    tick: int
    written: int
    at: float
    begin: int = 0
    second: int | None = None


class Slot:
    """One generation's part of the page."""

    def __init__(self, page: mmap.mmap, number: int) -> None:
        self._page = page
        self._begin = _FIRST_SLOT + number * _SLOT
        self.checkpoint, self._number = self._newest()

    @property
    def generation(self) -> int:
        """Whose it is; 0 where it is free."""
        return int.from_bytes(self._page[self._begin : self._begin + 8], "little")

    @property
    def switch(self) -> str:
        """The Core-UUID of the FreeSWITCH that was to read it; empty where nobody has said."""
        text = self._page[self._begin + _SWITCH.start : self._begin + _SWITCH.stop]
        return text.rstrip(b"\0").decode("ascii", "replace")

    @switch.setter
    def switch(self, switch: str) -> None:
        text = switch.encode("ascii").ljust(_SWITCH.stop - _SWITCH.start, b"\0")
        self._page[self._begin + _SWITCH.start : self._begin + _SWITCH.stop] = text

    def assign(self, generation: int, switch: str = "") -> None:
        """Have it be a generation's, of which nothing is known."""
        self.release()
        self.switch = switch
        self._page[self._begin : self._begin + 8] = generation.to_bytes(8, "little")

    def release(self) -> None:
        """Have it be free."""
        self._page[self._begin : self._begin + 8] = bytes(8)
        self._page[self._begin : self._begin + _SLOT] = bytes(_SLOT)
        self.checkpoint, self._number = None, 0

    def write(self, checkpoint: Checkpoint) -> None:
        """Leave a checkpoint."""
        self.checkpoint = checkpoint
        self._number = number = self._number + 1
        _CHECKPOINT.pack_into(
            self._page,
            self._begin + _CHECKPOINTS[number % 2],
            number,
            checkpoint.started,
            checkpoint.tick,
            checkpoint.written,
            checkpoint.at,
            checkpoint.begin,
            -1 if checkpoint.second is None else checkpoint.second,
            number,
        )

    def _newest(self) -> tuple[Checkpoint | None, int]:
        newest: Checkpoint | None = None
        number = 0
        for at in _CHECKPOINTS:
            first, started, tick, written, when, begin, second, last = _CHECKPOINT.unpack_from(
                self._page, self._begin + at
            )
            if first == last > number and math.isfinite(when):
                known = None if second < 0 else second
                newest, number = Checkpoint(bool(started), tick, written, when, begin, known), first
        return newest, number


class CheckpointPage:
    """The page itself, which the caller has until another relay opens it."""

    def __init__(self, fd: int, generation: int) -> None:
        """Take over a file's page, for a generation of this number or greater. Raises BadCheckpointPage."""
        if os.fstat(fd).st_size != SIZE:
            raise BadCheckpointPage("size")
        self._page = mmap.mmap(fd, SIZE)
        magic, newest = _HEAD.unpack_from(self._page)
        if magic != _MAGIC or newest > _MAX_GENERATION:
            self._page.close()
            raise BadCheckpointPage("not this version's")
        self.generation: int = newest
        self.succeed(generation)
        self.slots = [Slot(self._page, number) for number in range(SLOTS)]

    def succeed(self, generation: int) -> None:
        """Have the call by another generation, of this number or a greater one."""
        self.generation = max(generation, self.generation + 1)
        self._mine = self.generation.to_bytes(8, "little")
        self._page[_NEWEST] = self._mine

    @classmethod
    def open(cls, path: Path, generation: int) -> Self:
        """Find the page of a call, or make one. Raises OSError."""
        fd = -1
        try:
            fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                raise PermissionError(f"{path.name} is not ours")
            return cls(fd, generation)
        except (FileNotFoundError, BadCheckpointPage):
            if fd >= 0:
                os.close(fd)
            path.unlink(missing_ok=True)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, MODE)
            try:
                # A page without a place on the disk would be SIGBUS at the first checkpoint.
                os.posix_fallocate(fd, 0, SIZE)
            except OSError:
                path.unlink(missing_ok=True)
                raise
            os.pwrite(fd, _HEAD.pack(_MAGIC, 0), 0)
            return cls(fd, generation)
        finally:
            if fd >= 0:
                os.close(fd)

    @property
    def free_slot(self) -> Slot:
        """The first slot that is no generation's; there is one as long as the oldest is released in time."""
        return next(slot for slot in self.slots if not slot.generation)

    @property
    def taken(self) -> bool:
        """Whether another relay has the call by now."""
        return self._page[_NEWEST] != self._mine

    def close(self) -> None:
        """Let go of the page."""
        self._page.close()
