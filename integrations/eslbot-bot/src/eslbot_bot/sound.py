"""Sounds to say: L16 little-endian, one channel."""

from __future__ import annotations

import io
import math
import struct
import wave
from dataclasses import dataclass
from operator import mul
from pathlib import Path

from eslbot_bot.messages import RATES

#: Hz of a WAV file that is read.
LOWEST, HIGHEST = 8000, 48000
#: Zero crossings of the filter on each side, and the share of the band that it lets through.
CROSSINGS, BAND = 12, 0.92


class UnusableSound(ValueError):
    """A file or a rate that cannot be said; the text tells what can."""


@dataclass(frozen=True, slots=True)
class Sound:
    """``l16``, at ``rate`` Hz."""

    l16: bytes
    rate: int

    @classmethod
    def wav(cls, source: str | Path | bytes) -> Sound:
        """A WAV file, by its path or its bytes: PCM, 16 bits, one channel, 8 to 48 kHz.

        Raises :class:`UnusableSound` and OSError.
        """
        name = "the WAV file" if isinstance(source, bytes) else str(source)
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
        try:
            with wave.open(io.BytesIO(content)) as file:
                channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
                l16 = file.readframes(file.getnframes())
        except (wave.Error, EOFError) as error:
            raise UnusableSound(f"{name} is no WAV file of PCM: {error}") from error
        if (channels, width) != (1, 2) or not LOWEST <= rate <= HIGHEST:
            raise UnusableSound(
                f"{name} has {channels} channels of {8 * width} bits at {rate} Hz; "
                f"make it one of 16 bits at {LOWEST} to {HIGHEST} Hz"
            )
        return cls(l16, rate)

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.l16) / 2 / self.rate

    def at(self, rate: int) -> Sound:
        """The same at another ``rate`` (8000, 16000, 24000), filtered. Costs CPU: do it before the call."""
        if rate == self.rate:
            return self
        if rate not in RATES:
            raise UnusableSound(f"{rate} Hz; eslbot takes {', '.join(map(str, RATES))}")
        return Sound(_resampled(self.l16, self.rate, rate), rate)


def tone(hertz: float, seconds: float, rate: int, amplitude: int = 8000) -> Sound:
    """A sine of peak ``amplitude`` (of 32,767)."""
    step = 2 * math.pi * hertz / rate
    samples = round(seconds * rate)
    sine = [round(amplitude * math.sin(step * number)) for number in range(samples)]
    return Sound(struct.pack(f"<{samples}h", *sine), rate)


def _resampled(l16: bytes, before: int, after: int) -> bytes:
    """By a windowed sinc; one set of coefficients for each place of a sample between two others."""
    samples = struct.unpack(f"<{len(l16) // 2}h", l16[: len(l16) // 2 * 2])
    cutoff = BAND * min(1.0, after / before)
    half = math.ceil(CROSSINGS / cutoff)
    padded = (0,) * half + samples + (0,) * (half + 1)
    divisor = math.gcd(before, after)
    up, down = after // divisor, before // divisor
    filters = [_coefficients(phase / up, half, cutoff) for phase in range(up)]
    resampled = []
    for number in range(len(samples) * up // down):
        whole, phase = divmod(number * down, up)
        value = sum(map(mul, filters[phase], padded[whole + 1 : whole + 1 + 2 * half]))
        resampled.append(max(-32768, min(32767, round(value))))
    return struct.pack(f"<{len(resampled)}h", *resampled)


def _coefficients(fraction: float, half: int, cutoff: float) -> list[float]:
    """Of the ``2 * half`` samples around a place that is ``fraction`` behind one."""
    taps = []
    for number in range(1 - half, half + 1):
        at = number - fraction
        sinc = cutoff if at == 0 else math.sin(math.pi * cutoff * at) / (math.pi * at)
        taps.append(sinc * 0.5 * (1 + math.cos(math.pi * at / half)) if abs(at) < half else 0.0)
    total = sum(taps)
    return [tap / total for tap in taps]
