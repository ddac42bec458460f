"""Between 8,000 Hz and the rates of bots, as a stream, by a windowed-sinc low-pass in numpy.

It is 2 ms late, and each frame gives its samples at once. soxr keeps a frame for 15 to 150 ms
(``docs/line-file.md``, "Rates"); the caller's whole way to the bot has 25.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from eslbot.audio import SAMPLE_RATE

#: Taps of the low-pass, per sample at 8,000 Hz: it delays speech by half of them, 2 ms.
TAPS = 32
#: Hz, and the window's shape (Kaiser): flat up to 3,400, 60 dB down from 4,600 on, where the telephone band
#: begins to be folded into.
_CUTOFF, _BETA = 4000.0, 6.0


class Downsampler:
    """L16 at 8,000, 16,000 or 24,000 Hz to 8,000 Hz: one sample out for each ``rate / 8000``."""

    def __init__(self, rate: int) -> None:
        self._step = rate // SAMPLE_RATE
        self._phases = _low_pass(self._step)
        self._memory = np.zeros((TAPS - 1) * self._step, np.float32)

    def resample(self, linear: bytes) -> bytes:
        """What these samples make known; those that do not make a whole one wait for the next."""
        step = self._step
        if step == 1:
            return linear
        samples = np.concatenate((self._memory, np.frombuffer(linear, "<i2")), dtype=np.float32)
        count = len(samples) // step - (TAPS - 1)
        self._memory = samples[max(count, 0) * step :]
        if count < 1:
            return b""
        end = (count + TAPS - 1) * step  # samples that are `step` apart meet taps that are
        sums = [np.convolve(samples[n:end:step], taps, "valid") for n, taps in enumerate(self._phases)]
        return _as_l16(sum(sums[1:], sums[0]))


class Upsampler:
    """L16 at 8,000 Hz to 8,000, 16,000 or 24,000 Hz: ``rate / 8000`` samples out for each."""

    def __init__(self, rate: int) -> None:
        self._step = rate // SAMPLE_RATE
        self._phases = _low_pass(self._step)
        self._memory = np.zeros(TAPS - 1, np.float32)

    def resample(self, linear: bytes) -> bytes:
        """The frame, 2 ms later."""
        if self._step == 1 or len(linear) < 2:
            return linear
        own = np.frombuffer(linear, "<i2", len(linear) // 2)
        samples = np.concatenate((self._memory, own), dtype=np.float32)
        self._memory = samples[len(own) :]
        out = np.empty((len(own), self._step), np.float32)
        for phase, taps in enumerate(reversed(self._phases)):
            out[:, phase] = np.convolve(samples, taps, "valid")
        return _as_l16(out.ravel() * self._step)


def _as_l16(samples: np.ndarray[Any, Any]) -> bytes:
    return bytes(np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes())


@lru_cache(maxsize=4)
def _low_pass(step: int) -> tuple[np.ndarray[Any, Any], ...]:
    """The low-pass for ``step`` times 8,000 Hz, gain 1, as ``step`` filters of :data:`TAPS` taps each."""
    taps = TAPS * step
    n = np.arange(taps) - (taps - 1) / 2
    cutoff = _CUTOFF / (SAMPLE_RATE * step)
    whole = np.sinc(2 * cutoff * n) * np.kaiser(taps, _BETA)
    whole /= math.fsum(whole)
    # Turned round, as a convolution that is to decimate wants them; to interpolate, they stand the other way.
    return tuple(np.ascontiguousarray(whole[phase::step][::-1], np.float32) for phase in range(step))
