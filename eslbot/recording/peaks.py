"""What is to be seen of a recording: the loudest sample of each bit of time, of both sides."""

from __future__ import annotations

from typing import Any

import numpy as np

from eslbot.audio import SAMPLE_RATE

#: Samples of a bit at the beginning: a tenth of a second.
BIT = SAMPLE_RATE // 10
#: Bits that are kept of a recording; where there are more, two and two become one.
MOST = 2000


class Peaks:
    """Of one part."""

    def __init__(self) -> None:
        self._bit = BIT
        self._seen: list[np.ndarray[Any, Any]] = []
        self._count = 0
        #: How loud the samples are that make no whole bit yet.
        self._rest = np.empty((2, 0), np.int32)

    def add(self, sides: np.ndarray[Any, Any]) -> None:
        """Samples, a row for each side: what stands together is compared ten times as fast."""
        loud = np.abs(sides.astype(np.int32))
        if self._rest.shape[1]:
            loud = np.concatenate((self._rest, loud), axis=1)
        bits = loud.shape[1] // self._bit
        whole, self._rest = loud[:, : bits * self._bit], loud[:, bits * self._bit :]
        if not bits:
            return
        self._seen.append(whole.reshape(2, bits, self._bit).max(axis=2))
        self._count += bits
        while self._count > MOST:
            self._halve()

    def _halve(self) -> None:
        seen = np.concatenate(self._seen, axis=1)
        if seen.shape[1] % 2:  # it waits for its other half
            self._rest = np.concatenate((np.repeat(seen[:, -1:], self._bit, axis=1), self._rest), axis=1)
            seen = seen[:, :-1]
        seen = seen.reshape(2, -1, 2).max(axis=2)
        self._seen, self._count = [seen], seen.shape[1]
        self._bit *= 2

    def facts(self) -> dict[str, Any]:
        """``seconds`` of each bit, and ``caller`` and ``bot``: 0 to 255, which is full scale."""
        seen = self._seen
        if self._rest.shape[1]:
            seen = [*seen, self._rest.max(axis=1, keepdims=True)]
        loud = np.concatenate(seen, axis=1) if seen else np.zeros((2, 0), np.int32)
        caller, bot = np.minimum(255, loud >> 7).tolist()
        return {"seconds": self._bit / SAMPLE_RATE, "caller": caller, "bot": bot}
