"""The caller's signal of the benchmark of reliability: numbered frames.

Audio is L16 little-endian, one channel, 8,000 samples a second. Each 20 ms frame is three tones out of three
banks, all of them whole periods to a frame, so that a frame that arrives says which it is, through either law
of G.711. A stand-in PBX repeats them for ever, for which marked sound (:mod:`benchmarks.speech.marks`) is too
long.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

#: Samples of a frame; the banks' tones in multiples of 50 Hz, one period to a frame.
FRAME = 160
BANKS = (range(7, 19), range(20, 32), range(33, 45))
#: Frames until the numbers start again: 34.56 s.
NUMBERS = len(BANKS[0]) * len(BANKS[1]) * len(BANKS[2])
#: Peak level of each of the caller's three tones.
CALLER_LEVEL = 1500.0

#: Share of a frame's power that its three tones must have to be believed.
CLEAR = 0.8


@lru_cache(maxsize=1)
def numbered_frames() -> bytes:
    """All of the caller's frames in order, L16; to be repeated."""
    n = np.arange(FRAME)
    tones = np.stack([np.sin(2 * np.pi * k * n / FRAME) for k in range(FRAME // 2)])
    numbers = np.arange(NUMBERS)
    first, second, third = len(BANKS[0]), len(BANKS[1]), len(BANKS[2])
    frames = CALLER_LEVEL * (
        tones[BANKS[0].start + numbers % first]
        + tones[BANKS[1].start + numbers // first % second]
        + tones[BANKS[2].start + numbers // (first * second) % third]
    )
    linear: bytes = np.round(frames).astype("<i2").tobytes()
    return linear


def numbers_of(l16: bytes) -> NDArray[np.int64]:
    """The number of each whole frame of ``l16``; -1 for silence, -2 for what is no numbered frame."""
    frames = np.frombuffer(l16[: len(l16) // (2 * FRAME) * 2 * FRAME], "<i2").reshape(-1, FRAME).astype(float)
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    picked = [bank.start + np.argmax(power[:, bank.start : bank.stop], axis=1) for bank in BANKS]
    rows = np.arange(len(frames))
    clear = sum(power[rows, bins] for bins in picked) >= CLEAR * np.maximum(power.sum(axis=1), 1.0)
    numbers, step = np.zeros(len(frames), np.int64), 1
    for bank, bins in zip(BANKS, picked, strict=True):
        numbers += step * (bins - bank.start)
        step *= len(bank)
    silent = np.abs(frames).max(axis=1, initial=0) <= 64
    return np.where(silent, -1, np.where(clear, numbers, -2))
