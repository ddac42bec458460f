"""What one relay leaves the next about a line: a page of memory that is a file.

A relay may be killed between any two instructions, so there are two places and each note goes into the older
one; its number stands before and behind it, and a half-written one is none. Times are the monotonic clock's, which
all processes of a machine share.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from typing import Self

SIZE = 4096
_MAGIC = b"eslbotL1"
_HEAD = struct.Struct("<8sIIQ")  # magic, samples a read, samples of ring A, relays so far
_NOTE = struct.Struct("<QQQdddqQQQ")
_PLACES = (512, 1024)


class BadSidecar(Exception):
    """A file that no relay of this version has left."""


@dataclass(frozen=True, slots=True)
class Note:
    """How far a line was. Ticks are FreeSWITCH's reads; times monotonic seconds, ``low`` and ``high`` of tick 0."""

    started: bool
    tick: int
    at: float
    low: float
    high: float
    #: Tick in which ring B was begun; -1 is not known.
    offset: int
    #: Everything before this tick is silence again, everything from ``written`` on is silence yet.
    cleared: int
    written: int


class Sidecar:
    """The page itself."""

    def __init__(self, fd: int, samples: int, ring_samples: int) -> None:
        """Take over a file's page; the descriptor stays the caller's. Raises BadSidecar."""
        if os.fstat(fd).st_size != SIZE:
            raise BadSidecar("size")
        self._page = mmap.mmap(fd, SIZE)
        self.note, self._number = self._newest()
        magic, *geometry, self.epoch = _HEAD.unpack_from(self._page)
        if magic != _MAGIC or geometry != [samples, ring_samples]:
            self._page.close()
            raise BadSidecar("not this version's, or of another line")

    @classmethod
    def make(cls, fd: int, samples: int, ring_samples: int) -> Self:
        """Begin a page in an empty file. Raises OSError where the disk is full."""
        os.posix_fallocate(
            fd, 0, SIZE
        )  # a page without a place on the disk would be SIGBUS at the first note
        os.pwrite(fd, _HEAD.pack(_MAGIC, samples, ring_samples, 0), 0)
        return cls(fd, samples, ring_samples)

    def take(self) -> None:
        """From now on the line is the caller's, and nobody's who had it before."""
        self.epoch += 1
        magic, samples, ring_samples, _ = _HEAD.unpack_from(self._page)
        _HEAD.pack_into(self._page, 0, magic, samples, ring_samples, self.epoch)

    @property
    def taken(self) -> bool:
        """Whether another relay has the line by now."""
        epoch = _HEAD.unpack_from(self._page)[3]
        return bool(epoch != self.epoch)

    def write(self, note: Note) -> None:
        """Leave a note."""
        self.note = note
        self._number += 1
        _NOTE.pack_into(
            self._page,
            _PLACES[self._number % 2],
            self._number,
            note.started,
            note.tick,
            note.at,
            note.low,
            note.high,
            note.offset,
            note.cleared,
            note.written,
            self._number,
        )

    def close(self) -> None:
        """Let go of the page."""
        self._page.close()

    def _newest(self) -> tuple[Note | None, int]:
        newest: Note | None = None
        number = 0
        for place in _PLACES:
            first, started, *facts, last = _NOTE.unpack_from(self._page, place)
            if first == last > number:
                newest, number = Note(bool(started), *facts), first
        return newest, number
