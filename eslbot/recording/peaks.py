"""The peaks of a recording, for its waveform: each interval's loudest sample of both sides."""

from __future__ import annotations

from typing import Any

import numpy as np

from eslbot.audio import SAMPLE_RATE

#: Samples of an interval at first: a tenth of a second.
PEAK_SAMPLES = SAMPLE_RATE // 10
#: Intervals of a part; where there are more, every two become one.
MAX_PEAKS = 2000


class Peaks:
    """The peaks of one part."""

    def __init__(self) -> None:
        self._interval = PEAK_SAMPLES
        self._peaks: list[np.ndarray[Any, Any]] = []
        self._count = 0
        #: The samples, as absolute values, that fill no interval yet.
        self._rest = np.empty((2, 0), np.int32)

    def add(self, sides: np.ndarray[Any, Any]) -> None:
        """Samples, a row for each side: what is together in memory is compared ten times as fast."""
        loud = np.abs(sides.astype(np.int32))
        if self._rest.shape[1]:
            loud = np.concatenate((self._rest, loud), axis=1)
        intervals = loud.shape[1] // self._interval
        whole, self._rest = loud[:, : intervals * self._interval], loud[:, intervals * self._interval :]
        if not intervals:
            return
        self._peaks.append(whole.reshape(2, intervals, self._interval).max(axis=2))
        self._count += intervals
        while self._count > MAX_PEAKS:
            self._halve()

    def _halve(self) -> None:
        peaks = np.concatenate(self._peaks, axis=1)
        if peaks.shape[1] % 2:  # it waits for its other half
            self._rest = np.concatenate(
                (np.repeat(peaks[:, -1:], self._interval, axis=1), self._rest), axis=1
            )
            peaks = peaks[:, :-1]
        peaks = peaks.reshape(2, -1, 2).max(axis=2)
        self._peaks, self._count = [peaks], peaks.shape[1]
        self._interval *= 2

    def as_json(self) -> dict[str, Any]:
        """``seconds`` of an interval, and ``caller`` and ``bot``: 0 to 255, which is full scale."""
        peaks = self._peaks
        if self._rest.shape[1]:
            peaks = [*peaks, self._rest.max(axis=1, keepdims=True)]
        loud = np.concatenate(peaks, axis=1) if peaks else np.zeros((2, 0), np.int32)
        caller, bot = np.minimum(255, loud >> 7).tolist()
        return {"seconds": self._interval / SAMPLE_RATE, "caller": caller, "bot": bot}
