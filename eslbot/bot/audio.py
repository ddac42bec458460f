"""From what a bot sends to what a telephone line carries: one chunk of speech as G.711 at 8,000 Hz.

mod_audio_stream has taken the base64 off and written the bytes to a file; what they are is in the file's name
and in the ``::play`` event.
"""

from __future__ import annotations

import io
import math
import wave
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import gevent

from eslbot import g711

if TYPE_CHECKING:
    import numpy as np

#: Sampling rates a bot may speak at, in Hz.
RATES = (8000, 16000, 24000)
#: ``audioDataType`` of a ``streamAudio`` message.
KINDS = ("raw", "wav", "pcmu", "pcma")

#: Bytes that are resampled at a time: some 10 ms of work. A bot may send megabytes at once.
PIECE = 512 * 1024

#: Taps of the low-pass filter, per output sample's worth of input: it delays speech by some 2 ms.
_TAPS_A_STEP = 32
#: Hz. The telephone band ends at 3,400; what lies above 4,000 would fold back into it.
_CUTOFF = 3600.0


class UnusableAudio(Exception):
    """Speech that cannot be played; the text names what was sent and what would be right."""


class Decoder:
    """Turns the chunks of one bot into bytes of the line's law; keeps the filter's memory between chunks."""

    def __init__(self) -> None:
        self._resamplers: dict[int, Resampler] = {}
        self._odd = b""  # half a sample, where a bot cuts its stream of raw bytes anywhere

    def decode(self, content: bytes, kind: str, rate: int, law: str) -> bytes:
        """``content`` as G.711 bytes of ``law``, 8,000 a second. Raises :class:`UnusableAudio`."""
        if kind not in KINDS:
            raise UnusableAudio(
                f"audioDataType {kind[:20]!r} is not supported; send one of {', '.join(KINDS)}"
            )
        if kind in ("pcmu", "pcma"):
            if rate not in (0, 8000):
                raise UnusableAudio(f"{kind} has 8000 samples a second, not {rate}")
            own = kind.upper()
            return content if own == law else g711.encode(law, g711.decode(own, content))
        if kind == "wav":
            content, rate = _unwrap(content)
        if rate not in RATES:
            supported = ", ".join(str(known) for known in RATES)
            raise UnusableAudio(f"sampleRate {rate} is not supported; send one of {supported}")
        if kind == "raw":
            content = self._odd + content
            self._odd = content[len(content) & ~1 :]
            content = content[: len(content) & ~1]
        if rate != 8000:
            resampler = self._resamplers.setdefault(rate, Resampler(rate))
            pieces = range(0, len(content), PIECE)
            content = b"".join(_in_turn(resampler.resample, content, pieces))
        return g711.encode(law, content)

    def reset(self) -> None:
        """Forget what came before: the next chunk begins a new utterance."""
        self._resamplers.clear()
        self._odd = b""


def _in_turn(work: Callable[[bytes], bytes], content: bytes, pieces: range) -> Iterator[bytes]:
    """The work on each piece; in between others have a turn."""
    for start in pieces:
        if start:
            gevent.sleep(0)
        yield work(content[start : start + PIECE])


def _unwrap(content: bytes) -> tuple[bytes, int]:
    """Samples and rate of a RIFF/WAVE file, which must be 16-bit PCM, mono."""
    try:
        with wave.open(io.BytesIO(content)) as file:
            if file.getnchannels() != 1 or file.getsampwidth() != 2:
                form = f"{file.getnchannels()} channels of {8 * file.getsampwidth()} bits"
                raise UnusableAudio(f"wav with {form}; send 16-bit mono")
            return file.readframes(file.getnframes()), file.getframerate()
    except (wave.Error, EOFError, RuntimeError) as error:  # the last where a chunk is longer than the file
        raise UnusableAudio(f"not a PCM wav file: {str(error) or 'it breaks off'}") from error


class Resampler:
    """16,000 or 24,000 Hz down to 8,000: a windowed-sinc low-pass, then every second or third sample."""

    def __init__(self, rate: int) -> None:
        import numpy as np

        self._step = rate // 8000
        self._filter = _low_pass(self._step)
        self._memory: Any = np.zeros(len(self._filter) - 1)
        self._skip = 0

    def resample(self, linear: bytes) -> bytes:
        """L16 at 8,000 Hz of L16 at the resampler's rate, continuing where the chunk before ended."""
        import numpy as np

        samples = np.concatenate((self._memory, np.frombuffer(linear, "<i2")))
        if len(samples) < len(self._filter):
            self._memory = samples
            return b""
        filtered = np.convolve(samples, self._filter, "valid")
        taken = filtered[self._skip :: self._step]
        self._memory = samples[len(filtered) :]
        self._skip = (self._skip - len(filtered)) % self._step
        return bytes(np.clip(np.rint(taken), -32768, 32767).astype("<i2").tobytes())


@lru_cache(maxsize=4)
def _low_pass(step: int) -> np.ndarray[Any, Any]:
    """Coefficients for an input of ``step`` times 8,000 Hz, a Blackman window over a sinc, gain 1."""
    import numpy as np

    taps = _TAPS_A_STEP * step + 1
    n = np.arange(taps) - (taps - 1) / 2
    cutoff = _CUTOFF / (8000.0 * step)
    coefficients = 2 * cutoff * np.sinc(2 * cutoff * n) * np.blackman(taps)
    return np.asarray(coefficients / math.fsum(coefficients))
