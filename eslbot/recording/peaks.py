"""What is to be seen of a recording: the loudest sample of each bit of time, of both sides."""

from __future__ import annotations

from typing import Any

import numpy as np

from eslbot.relay.control import RATE

#: Samples of a bit at the beginning: a tenth of a second.
BIT = RATE // 10
#: Bits that are kept of a recording; where there are more, two and two become one.
MOST = 2000


class Peaks:
    """Of one part."""

    def __init__(self) -> None:
        self._bit = BIT
        self._seen: list[np.ndarray[Any, Any]] = []
        self._count = 0
        #: How loud the samples are that make no whole bit yet.
        self._rest = np.empty((0, 2), np.int32)

    def add(self, samples: np.ndarray[Any, Any]) -> None:
        """Samples, a row for each moment."""
        loud = np.abs(samples.astype(np.int32))
        if len(self._rest):
            loud = np.concatenate((self._rest, loud))
        bits = len(loud) // self._bit
        whole, self._rest = loud[: bits * self._bit], loud[bits * self._bit :]
        if not bits:
            return
        self._seen.append(whole.reshape(bits, self._bit, 2).max(axis=1))
        self._count += bits
        while self._count > MOST:
            self._halve()

    def _halve(self) -> None:
        seen = np.concatenate(self._seen)
        if len(seen) % 2:  # it waits for its other half
            self._rest = np.concatenate((np.repeat(seen[-1:], self._bit, axis=0), self._rest))
            seen = seen[:-1]
        seen = seen.reshape(-1, 2, 2).max(axis=1)
        self._seen, self._count = [seen], len(seen)
        self._bit *= 2

    def facts(self) -> dict[str, Any]:
        """``seconds`` of each bit, and ``caller`` and ``bot``: 0 to 255, which is full scale."""
        seen = self._seen
        if len(self._rest):
            seen = [*seen, self._rest.max(axis=0, keepdims=True)]
        loud = np.concatenate(seen) if seen else np.zeros((0, 2), np.int32)
        scaled = np.minimum(255, loud >> 7)
        return {
            "seconds": self._bit / RATE,
            "caller": [int(one) for one in scaled[:, 0]],
            "bot": [int(one) for one in scaled[:, 1]],
        }
