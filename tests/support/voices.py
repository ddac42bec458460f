"""Sounds as they come down a telephone line, made with numpy: L16 at 8,000 Hz, in whole frames of 20 ms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

RATE, FRAME = 8000, 160
Samples = NDArray[np.float64]


def silence(seconds: float) -> Samples:
    """Nothing."""
    return np.zeros(round(seconds * RATE))


def speech(seconds: float, seed: int = 0, level: float = 3000.0, pitch: float = 120.0) -> Samples:
    """A voice that says four syllables a second, each with formants and a loudness of its own."""
    random = np.random.default_rng(seed)
    count = round(seconds * RATE)
    time = np.arange(count) / RATE
    wandering = pitch * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * time) + 0.03 * np.sin(2 * np.pi * 3 * time))
    phase = 2 * np.pi * np.cumsum(wandering) / RATE
    source = np.sum([np.cos(harmonic * phase) / harmonic for harmonic in range(1, 25)], axis=0)
    said = np.zeros(count)
    for start in range(0, count, RATE // 4):
        syllable = source[start : start + RATE // 4]
        first, second = random.choice([300, 500, 700, 900]), random.choice([1100, 1500, 1900, 2300])
        frequencies = np.fft.rfftfreq(len(syllable), 1 / RATE)
        formants = sum(
            gain / (1 + ((frequencies - centre) / width) ** 2)
            for centre, width, gain in ((first, 120, 1.0), (second, 150, 0.5), (2800, 200, 0.2))
        )
        shape = np.sqrt(np.hanning(len(syllable) + 2)[1:-1]) * random.uniform(0.5, 1)
        said[start : start + len(syllable)] = (
            np.fft.irfft(np.fft.rfft(syllable) * formants, len(syllable)) * shape
        )
    return at_level(said, level)


def noise(seconds: float, level: float, seed: int = 0, colour: float = 0.0) -> Samples:
    """White, or with a ``colour`` of 1 pink and of 2 brown, in the telephone's band."""
    white = np.random.default_rng(seed).normal(size=round(seconds * RATE))
    frequencies = np.fft.rfftfreq(len(white), 1 / RATE)
    band = (frequencies > 300) & (frequencies < 3400)
    spectrum = np.fft.rfft(white) * band / np.maximum(1, frequencies) ** (colour / 2)
    return at_level(np.fft.irfft(spectrum, len(white)), level)


def tones(seconds: float, *hertz: float, level: float = 3000.0) -> Samples:
    """Some together: a key is two."""
    time = np.arange(round(seconds * RATE)) / RATE
    return at_level(np.sum([np.sin(2 * np.pi * one * time) for one in hertz], axis=0), level)


def music(seconds: float, seed: int = 0, level: float = 3000.0) -> Samples:
    """Notes of an eighth each, two voices and their overtones, without a rest."""
    random = np.random.default_rng(seed)
    played = silence(seconds)
    length = round(0.25 * RATE)
    time = np.arange(length) / RATE
    for start in range(0, len(played), length):
        root = random.choice([262.0, 294.0, 330.0, 349.0, 392.0, 440.0, 494.0])
        note = sum(np.sin(2 * np.pi * root * times * time) / times for times in (1.0, 1.5, 2.0, 3.0, 4.0)) * (
            0.4 + 0.6 * np.exp(-time * 4)
        )
        played[start : start + length] += note[: len(played) - start]
    return at_level(played, level)


def at_level(samples: Samples, level: float) -> Samples:
    """So loud: ``level`` is the root mean square, of 32,768."""
    return samples * (level / max(1e-9, float(np.sqrt(np.mean(samples**2)))))


def frames(*pieces: Samples) -> Iterator[bytes]:
    """All of it, one behind the other, a frame at a time."""
    whole = np.clip(np.concatenate(pieces), -32768, 32767).astype("<i2")
    for start in range(0, len(whole) - FRAME + 1, FRAME):
        yield whole[start : start + FRAME].tobytes()
