"""Whether the caller speaks."""

from __future__ import annotations

from array import array


class Ears:
    """Whether the caller speaks, by loudness; a pause of PAUSE seconds ends it."""

    LOUD = 1500  # of 32,767, a frame's peak
    PAUSE = 0.4

    def __init__(self) -> None:
        self.speaking = False
        self._loud_at = 0.0

    def hear(self, frame: bytes, now: float) -> bool:
        """Take a frame of L16; whether the caller has just begun or stopped."""
        loud = max(array("h", frame[: len(frame) // 2 * 2]), default=0) > self.LOUD
        if loud:
            self._loud_at = now
        before, self.speaking = self.speaking, loud or (self.speaking and now - self._loud_at < self.PAUSE)
        return before != self.speaking
