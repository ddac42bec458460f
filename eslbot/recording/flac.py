"""Encodes and decodes FLAC, in files that may be sealed (libsndfile).

FLAC, because it costs 0.016 % of a core for a call of 8,000 Hz in stereo (Opus: 1.1 %), keeps every sample,
and can be read up to where it breaks off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import soundfile

from eslbot.audio import SAMPLE_RATE

#: Caller and bot.
CHANNELS = 2
#: 0 to 1, as libsndfile counts: the least work. More work, half as much again, saves 5 % of the bytes.
COMPRESSION_LEVEL = 0.0
#: Bytes up to the end of the first block of metadata (RFC 9639, sections 6, 8). A shorter file is no FLAC
#: yet.
MIN_SIZE = 42
#: Samples of each side that are read at a time: a block of our files.
BLOCK_SIZE = 1152


#: Reads so many bytes at an offset; fewer only at the file's end. Raises OSError.
ReadAt = Callable[[int, int], bytes]
#: Writes all of some bytes at an offset. Raises OSError.
WriteAt = Callable[[bytes, int], None]


class BadFlac(Exception):
    """It is no FLAC file of ours."""


class _AsFile:
    """A file as soundfile needs it. No exception may leave: libsndfile would go on, and Python print it."""

    def __init__(self, size: int, *, read: ReadAt | None = None, write: WriteAt | None = None) -> None:
        self.size, self._read, self._write = size, read, write
        self._at = 0
        self.error: Exception | None = None

    def write(self, data: bytes) -> int:
        if self.error is not None or self._write is None:
            return 0
        try:
            self._write(data, self._at)
        except Exception as error:  # noqa: BLE001  # raised by _errors_of
            self.error = error
            return 0
        self._at += len(data)
        self.size = max(self.size, self._at)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        if self.error is not None or self._read is None:
            return b""
        try:
            data = self._read(self.size - self._at if size < 0 else size, self._at)
        except Exception as error:  # noqa: BLE001  # raised by _errors_of
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
    """Writes one FLAC file by ``write``. Every method raises what that raises."""

    def __init__(self, write: WriteAt) -> None:
        self._as_file = _AsFile(0, write=write)
        with _errors_of(self._as_file):
            self._sound = soundfile.SoundFile(
                self._as_file,
                "w",
                SAMPLE_RATE,
                CHANNELS,
                "PCM_16",
                format="FLAC",
                compression_level=COMPRESSION_LEVEL,
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
    """Where the file has failed, raises its own error instead of libsndfile's."""
    try:
        yield
    except (soundfile.SoundFileError, AssertionError) as error:
        if file.error is None:
            raise BadFlac(str(error)) from error
    if file.error is not None:
        raise file.error


def decode(
    read: ReadAt, size: int, *, part: bool
) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.int16]]]:
    """The samples of a FLAC file of ours, block by block.

    With ``part`` it may break off anywhere, also before its first byte: libsndfile writes its header with the
    first samples. Raises BadFlac, and what ``read`` raises.
    """
    if part and size < MIN_SIZE:
        return
    as_file = _AsFile(size, read=read)
    with _errors_of(as_file):
        sound = soundfile.SoundFile(as_file)
    with sound:
        if (sound.samplerate, sound.channels, sound.format) != (SAMPLE_RATE, CHANNELS, "FLAC"):
            raise BadFlac("is no FLAC file of two channels at 8,000 Hz")
        while True:
            try:
                with _errors_of(as_file):
                    block = sound.read(BLOCK_SIZE, dtype="int16", always_2d=True)
            except BadFlac:
                if part:
                    return
                raise
            if not len(block):
                return
            yield block
