"""What stands in a line, frame by frame, for whoever wants to know what FreeSWITCH has read of it."""

from __future__ import annotations


class Spoken:
    """By tick; a frame has ``size`` bytes. It holds what the rings do, a minute at most."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._silence = bytes(size)
        self._frames: dict[int, bytes] = {}

    def put(self, tick: int, linear: bytes) -> None:
        """This stands from a tick on, instead of what stood there."""
        size, frames = self._size, self._frames
        for begin in range(0, len(linear), size):
            frames[tick] = linear[begin : begin + size]
            tick += 1

    def drop(self, first: int) -> None:
        """From this tick on nothing stands."""
        for tick in [tick for tick in self._frames if tick >= first]:
            del self._frames[tick]

    def take(self, first: int, last: int) -> bytes:
        """What stands from tick ``first`` to before ``last``; it is known no more."""
        found = self._frames.pop
        return b"".join(found(tick, self._silence).ljust(self._size, b"\0") for tick in range(first, last))
