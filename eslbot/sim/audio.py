"""Tones and what became of them: the measurements behind "the caller heard the bot".

Linear audio is L16 little-endian, one channel, as in :mod:`eslbot.audio.g711`. A minute of a call is measured
in a fraction of a second, because the inner loops run in C (``map``, ``sum``, ``re``). Speech is a pure tone,
so that presence, order, gaps and cuts can be told exactly.
"""

from __future__ import annotations

import math
import re
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from operator import mul
from sys import byteorder

#: Samples a second of the telephone network.
RATE = 8000

#: Seconds over which a tone is looked for: one RTP packet at ptime 20.
WINDOW = 0.020

#: Share of a window's power from which on a tone counts as heard. A pure tone has 1.0; a tone 90 Hz away
#: (350 against 440 Hz) leaks about 0.1 into a 20 ms window.
SHARE = 0.6

#: Peak level (of 32,767) up to which a sample is silence. G.711 keeps silence within ±8.
SILENCE = 64


def tone(frequency: float, seconds: float, rate: int = RATE, amplitude: int = 8000) -> bytes:
    """A sine of ``frequency`` hertz and peak ``amplitude`` (of 32,767), starting at phase 0."""
    step = 2 * math.pi * frequency / rate
    samples = round(seconds * rate)
    return struct.pack(f"<{samples}h", *[round(amplitude * math.sin(step * n)) for n in range(samples)])


def silence(seconds: float, rate: int = RATE) -> bytes:
    """Digital silence."""
    return bytes(2 * round(seconds * rate))


def seconds(l16: bytes, rate: int = RATE) -> float:
    """How long ``l16`` lasts."""
    return len(l16) / 2 / rate


def samples(l16: bytes) -> array[int]:
    """The samples of ``l16`` as numbers; a trailing odd byte is dropped."""
    numbers = array("h", l16[: len(l16) & ~1])
    if byteorder == "big":
        numbers.byteswap()
    return numbers


def tone_power(l16: bytes, frequency: float, rate: int = RATE) -> float:
    """The share of ``l16``'s power that is at ``frequency``: 1.0 for that tone alone, 0.0 for silence.

    One bin of a discrete Fourier transform, which is what Goertzel's recurrence computes; multiplying with
    a kept table is several times faster in Python than the recurrence.
    """
    return _share(samples(l16), frequency, rate)


def heard(l16: bytes, frequency: float, rate: int = RATE) -> float:
    """Seconds of ``l16`` in which ``frequency`` is the tone that is heard, counted in windows of 20 ms."""
    return WINDOW * sum(1 for _ in heard_at(l16, frequency, rate))


def heard_at(l16: bytes, frequency: float, rate: int = RATE) -> Iterator[float]:
    """The positions, in seconds, of the windows of 20 ms in which ``frequency`` is heard."""
    numbers = samples(l16)
    window = round(WINDOW * rate)
    for start in range(0, len(numbers) - window + 1, window):
        part = numbers[start : start + window]
        if max(part) > SILENCE and _share(part, frequency, rate) >= SHARE:
            yield start / rate


@dataclass(frozen=True, slots=True)
class Gap:
    """A hole in speech: ``start`` and ``length`` in seconds."""

    start: float
    length: float


def gaps(
    l16: bytes,
    rate: int = RATE,
    *,
    shortest: float = 0.010,
    longest: float = math.inf,
    level: int = SILENCE,
) -> list[Gap]:
    """Runs of silence within speech, from ``shortest`` to ``longest`` seconds.

    Silence before the first and after the last sound is none of them. ``longest`` leaves out the pauses
    between utterances, where those are longer than any hole worth counting.
    """
    loud = bytes([not -level <= sample <= level for sample in samples(l16)])
    first, last = loud.find(1), loud.rfind(1)
    if first < 0:
        return []
    run = re.compile(rb"\0{%d,}" % max(1, round(shortest * rate)))
    found = (
        Gap(hole.start() / rate, (hole.end() - hole.start()) / rate)
        for hole in run.finditer(loud, first, last)
    )
    return [gap for gap in found if gap.length <= longest]


def speech(l16: bytes, rate: int = RATE, *, level: int = SILENCE) -> tuple[float, float] | None:
    """Where sound begins and ends in ``l16``, in seconds; None where there is none."""
    loud = bytes([not -level <= sample <= level for sample in samples(l16)])
    first = loud.find(1)
    return None if first < 0 else (first / rate, (loud.rfind(1) + 1) / rate)


@lru_cache(maxsize=32)
def _waves(length: int, frequency: float, rate: int) -> tuple[list[float], list[float]]:
    step = 2 * math.pi * frequency / rate
    return [math.cos(step * n) for n in range(length)], [math.sin(step * n) for n in range(length)]


def _share(numbers: array[int], frequency: float, rate: int) -> float:
    energy: int = sum(map(mul, numbers, numbers))
    if not energy:
        return 0.0
    cosine, sine = _waves(len(numbers), frequency, rate)
    real: float = sum(map(mul, numbers, cosine))
    imaginary: float = sum(map(mul, numbers, sine))
    # Leakage of the tone's own mirror image makes a short window exceed 1 by a few per cent.
    return min(1.0, 2 * (real * real + imaginary * imaginary) / (len(numbers) * energy))
