"""What stands in a line, frame by frame, for whoever wants to know what FreeSWITCH has read of it."""

from __future__ import annotations


class FrameHistory:
    """By tick; a frame has ``frame_bytes``. It holds what the rings do, a minute at most."""

    def __init__(self, frame_bytes: int) -> None:
        self._frame_bytes = frame_bytes
        self._silence = bytes(frame_bytes)
        self._frames: dict[int, bytes] = {}

    def __len__(self) -> int:
        return len(self._frames)

    def put(self, tick: int, linear: bytes) -> None:
        """This stands from a tick on, instead of what stood there."""
        size, frames = self._frame_bytes, self._frames
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
        frames = (found(tick, self._silence) for tick in range(first, last))
        return b"".join(frame.ljust(self._frame_bytes, b"\0") for frame in frames)
