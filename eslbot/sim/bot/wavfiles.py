"""WAV files: what ``/wav`` speaks, and what callers say."""

from __future__ import annotations

import io
import itertools
import wave
from dataclasses import dataclass
from pathlib import Path

#: Sampling rates of speech that eslbot takes.
SPEECH_RATES = (8000, 16000, 24000)


def wav(l16: bytes, rate: int = 8000, channels: int = 1, width: int = 2) -> bytes:
    """Samples of ``width`` bytes as the bytes of a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(width)
        writer.setframerate(rate)
        writer.writeframes(l16)
    return file.getvalue()


class UnusableFile(Exception):
    """A WAV file that cannot be spoken, or a place where none can be written; the text says why."""


@dataclass(frozen=True, slots=True)
class WavFile:
    """Speech of a file: L16 at ``rate``."""

    l16: bytes
    rate: int

    @classmethod
    def load(cls, path: Path) -> WavFile:
        """A 16-bit mono PCM file of 8,000, 16,000 or 24,000 Hz. Raises :class:`UnusableFile`."""
        try:
            with wave.open(str(path), "rb") as file:
                channels, bits, rate = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
                l16 = file.readframes(file.getnframes())
        except OSError as error:
            raise UnusableFile(f"{path} cannot be read: {error.strerror}") from error
        except (wave.Error, EOFError) as error:
            raise UnusableFile(f"{path} is not a PCM wav file: {str(error) or 'it is cut off'}") from error
        if (channels, bits) != (1, 16) or rate not in SPEECH_RATES:
            rates = ", ".join(map(str, SPEECH_RATES))
            raise UnusableFile(
                f"{path} has {channels} channel(s) of {bits} bits at {rate} Hz; "
                f"it must be 16-bit mono at one of {rates} Hz"
            )
        if not l16:
            raise UnusableFile(f"{path} holds no sound")
        return cls(l16, rate)


class Recorder:
    """Writes what callers say to WAV files: the first to ``path``, the next to ``…-2.wav`` and so on.

    Raises:
        UnusableFile: nothing can be written there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers = itertools.count(1)
        try:
            path.open("ab").close()
        except OSError as error:
            raise UnusableFile(f"{path} cannot be written: {error.strerror}") from error

    def open(self, rate: int) -> tuple[Path, wave.Wave_write]:
        """The next caller's file, for L16 at ``rate``."""
        number = next(self._numbers)
        path = self._path if number == 1 else self._path.with_stem(f"{self._path.stem}-{number}")
        file = wave.open(str(path), "wb")  # noqa: SIM115  # closed with the call
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        return path, file
