"""``uuid_displace``: files that are mixed into what the caller hears (``switch_ivr_async.c``, mod_sndfile).

One frame of the file is read with each frame that the channel writes, by a ``read`` of its own, so that
whoever watches the file sees what he would see of FreeSWITCH: the start reads it once through, 1,024 samples
at a time (libsndfile looks for the loudest); then comes a read a frame; and none in the one frame behind the
end, in which a loop goes back and nothing is said. Silence (``silence_stream://1``, mod_tone_stream) is no
file: it ends by itself, and what it is good for is its start, which flushes.
"""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import numpy as np

from eslbot.sim.rtp import FRAME_SAMPLES

#: Bytes of the reads that the start makes, and of those behind it.
SCAN, FRAME = 2 * 1024, 2 * FRAME_SAMPLES
#: Raw L16 at 8,000 Hz. FreeSWITCH has more formats, which nobody displaces here.
SUFFIX = ".r8"
#: Silence instead of a file, of so many milliseconds.
_SILENCE = re.compile(r"silence_stream://([1-9]\d{0,8})")
#: What is in the place of audio that was replaced.
REPLACED = b"\xff" * FRAME

_L16 = np.iinfo(np.int16)


class Displace:
    """One file on one channel.

    Args:
        flags: ``m`` mixes the file with what is written, and leaves the caller's audio alone; ``l`` begins
            again at its end; ``f`` is the channel's business: before the others.
        limit: seconds after which it ends; 0 is never.

    Raises:
        OSError: there is no such file.
    """

    def __init__(self, path: str, flags: str = "", limit: int = 0) -> None:
        self.path = path
        self.mixes, self._loops = "m" in flags, "l" in flags
        self._ends = time.monotonic() + limit if limit else None
        self._position = 0
        self._file: int | None = None
        if silence := _SILENCE.fullmatch(path):
            self._samples = int(silence[1]) * FRAME_SAMPLES // 20
            return
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        # libsndfile counts at the open; what is appended later is not heard.
        self._samples = os.fstat(self._file).st_size // 2
        while os.read(self._file, SCAN):
            pass
        os.lseek(self._file, 0, os.SEEK_SET)

    def write(self, frame: bytes) -> bytes | None:
        """What becomes of ``frame``, L16 on its way to the caller; None where the file is at its end."""
        if self._ends is not None and time.monotonic() >= self._ends:
            return None
        samples = self._read()
        if not samples:
            if not self._loops:
                return None
            if self._file is not None:  # as of FreeSWITCH's silence, which is over once it is over
                os.lseek(self._file, 0, os.SEEK_SET)
                self._position = 0
        if not self.mixes:
            return samples.ljust(FRAME, b"\0")
        return mixed(frame, samples)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)

    def _read(self) -> bytes:
        """The next frame's samples; of one that the end cuts off, what there is."""
        left = 2 * (self._samples - self._position)
        if left <= 0:
            return b""
        data = (bytes(FRAME) if self._file is None else os.read(self._file, FRAME))[:left]
        data = data[: len(data) & ~1]
        self._position += len(data) // 2
        return data


def mixed(frame: bytes, samples: bytes) -> bytes:
    """Their sum, saturated; behind the end of ``samples`` it is ``frame``."""
    if not samples.strip(b"\0"):
        return frame
    both = np.frombuffer(frame, "<i2").astype(np.int32)
    both[: len(samples) // 2] += np.frombuffer(samples, "<i2")
    return both.clip(_L16.min, _L16.max).astype("<i2").tobytes()


def is_a_sound(path: str) -> bool:
    """Whether FreeSWITCH finds it: a relative path is looked up where its sounds are, and there are none."""
    if _SILENCE.fullmatch(path):
        return True
    return path.startswith("/") and path.endswith(SUFFIX) and Path(path).is_file()
