"""FLAC into a file that need not be one of the file system's, and out of it again (libsndfile).

FLAC, because a call of 8,000 Hz in stereo costs 0.016 % of a core (Opus: 1.1 %), keeps each sample, and can
be read up to where it breaks off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import soundfile

from eslbot.audio import SAMPLE_RATE

#: Caller and bot.
CHANNELS = 2
#: libsndfile's measure, 0 to 1: the least work. More saves 5 % of the bytes, for half as much work again.
EFFORT = 0.0
#: Bytes up to the end of the first block of metadata (RFC 9639, sections 6, 8): before them it is none yet.
HEADER = 42
#: Samples of each side that are read at a time: a block of such a file.
BLOCK = 1152


class BadSound(Exception):
    """What is there is no FLAC of ours."""


class Bytes(Protocol):
    """A file: bytes at places. Both methods raise OSError."""

    def write(self, data: bytes, at: int) -> None:
        """All of them."""

    def read(self, size: int, at: int) -> bytes:
        """Fewer only at the end."""


class _AsFile:
    """A file as soundfile wants it. No exception may leave: libsndfile would go on, and Python print it."""

    def __init__(self, file: Bytes, size: int) -> None:
        self._file, self.size = file, size
        self._at = 0
        self.error: Exception | None = None

    def write(self, data: bytes) -> int:
        if self.error is not None:
            return 0
        try:
            self._file.write(data, self._at)
        except Exception as error:  # noqa: BLE001  # told by whoever has called libsndfile
            self.error = error
            return 0
        self._at += len(data)
        self.size = max(self.size, self._at)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        if self.error is not None:
            return b""
        try:
            data = self._file.read(self.size - self._at if size < 0 else size, self._at)
        except Exception as error:  # noqa: BLE001  # told by whoever has called libsndfile
            self.error = error
            return b""
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = max(0, offset + (0, self._at, self.size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at


class Encoder:
    """Writes one FLAC file. Every method raises what the file raises."""

    def __init__(self, file: Bytes) -> None:
        self._as_file = _AsFile(file, 0)
        with _errors_of(self._as_file):
            self._sound = soundfile.SoundFile(
                self._as_file,
                "w",
                SAMPLE_RATE,
                CHANNELS,
                "PCM_16",
                format="FLAC",
                compression_level=EFFORT,
            )

    def write(self, samples: np.ndarray[tuple[int, int], np.dtype[np.int16]]) -> None:
        """Samples, a row for each moment, a column for each channel."""
        with _errors_of(self._as_file):
            self._sound.buffer_write(samples.tobytes(), "int16")

    def close(self) -> None:
        """Write what is left, and the header anew."""
        with _errors_of(self._as_file):
            self._sound.close()


@contextmanager
def _errors_of(file: _AsFile) -> Iterator[None]:
    """What libsndfile says where the file has failed is the file's own error."""
    try:
        yield
    except (soundfile.SoundFileError, AssertionError) as error:
        if file.error is None:
            raise BadSound(str(error)) from error
    if file.error is not None:
        raise file.error


def decode(
    file: Bytes, size: int, *, part: bool
) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.int16]]]:
    """The samples of a FLAC file of ours, block by block.

    With ``part`` it may break off anywhere, also before its first byte: libsndfile writes its header with the
    first samples. Raises BadSound, and what the file raises.
    """
    if part and size < HEADER:
        return
    as_file = _AsFile(file, size)
    with _errors_of(as_file):
        sound = soundfile.SoundFile(as_file)
    with sound:
        if (sound.samplerate, sound.channels, sound.format) != (SAMPLE_RATE, CHANNELS, "FLAC"):
            raise BadSound("is no FLAC file of two channels at 8,000 Hz")
        while True:
            try:
                with _errors_of(as_file):
                    block = sound.read(BLOCK, dtype="int16", always_2d=True)
            except BadSound:
                if part:
                    return
                raise
            if not len(block):
                return
            yield block
