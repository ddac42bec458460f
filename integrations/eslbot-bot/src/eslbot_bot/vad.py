"""Whether the caller speaks, by energy: enough for barge-in on a quiet line.

A line with noise or with echo of the bot (loudspeaker telephones) wants a real detector, which is used the
same way.
"""

from __future__ import annotations

import math
import struct
from operator import mul

#: Of so many frames of 20 ms, how many have to be loud until it is speech; and quiet ones that end it.
WINDOW, LOUD, QUIET = 6, 5, 20


class EnergyVad:
    """One caller. ``level``: the RMS (of 32,767) from which on 20 ms are loud; -36 dB by default."""

    def __init__(self, level: float = 500.0) -> None:
        self.level = level
        self.speaking = False
        self._recent: list[bool] = []
        self._quiet = 0

    def begins(self, frame: bytes) -> bool:
        """Take 20 ms of L16; whether the caller has begun to speak in this very frame."""
        before = self.speaking
        loud = rms(frame) >= self.level
        self._recent = [*self._recent[1 - WINDOW :], loud]
        self._quiet = 0 if loud else self._quiet + 1
        if self.speaking:
            self.speaking = self._quiet < QUIET
        else:
            self.speaking = sum(self._recent) >= LOUD
        return self.speaking and not before


def rms(l16: bytes) -> float:
    """The root mean square of L16; 0 for nothing."""
    count = len(l16) // 2
    if not count:
        return 0.0
    samples = struct.unpack(f"<{count}h", l16[: 2 * count])
    return math.sqrt(sum(map(mul, samples, samples)) / count)
