"""Where a tick's samples stand in the two files of a line (:mod:`eslbot.relay.line`)."""

from __future__ import annotations

import os
from typing import TypeVar

R = TypeVar("R", bound="Ring")


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
    """Who is heard in a tick, and with which frame; ``b`` is None where it is not known when it was begun."""
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
