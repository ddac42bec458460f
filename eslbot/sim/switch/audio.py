"""What can be heard: files and generated sounds, a frame at a time, and the change of sample rates.

A frame is 20 ms at 8,000 Hz: 160 samples, which are 320 bytes of L16, or 160 of G.711 on the wire.
"""

from __future__ import annotations

import math
import re
import struct
import wave
from pathlib import Path
from typing import Protocol

from eslbot.sim.rtp import FRAME_SAMPLES

#: The most bytes of one sound file the stand-in reads into memory.
MAX_FILE = 64 << 20
#: A frame of it.
SILENCE = bytes(2 * FRAME_SAMPLES)

_RAW = re.compile(r"\.r(8|16|24|32|48)$")
_TONE = re.compile(r"%\((\d{1,6}),(\d{1,6}),(\d{1,5})(?:,(\d{1,5}))?\)")
_VOLUME = re.compile(r"(?:^|;)v=(-?\d{1,2})")
_LOOPS = re.compile(r";loops=(-?\d{1,2})", re.I | re.A)


class Sound(Protocol):
    """Something ``playback`` can play. ``played`` counts the samples read of it (``playback_samples``)."""

    played: int

    def frame(self) -> bytes | None:
        """The next 320 bytes of L16, or None at the end."""


class Silence:
    """``silence_stream://<milliseconds>``; a negative number never ends."""

    def __init__(self, milliseconds: int) -> None:
        self._left = -1 if milliseconds < 0 else -(-milliseconds // 20)
        self.played = 0

    def frame(self) -> bytes | None:
        """The next 20 ms."""
        if self._left == 0:
            return None
        self._left -= 1 if self._left > 0 else 0
        self.played += FRAME_SAMPLES
        return SILENCE


class Linear:
    """L16 at 8,000 Hz from memory; ``loops`` times, for ever where negative."""

    def __init__(self, samples: bytes, loops: int = 1) -> None:
        self._samples, self._position = samples[: len(samples) & ~1], 0
        self._loops = loops
        self.played = 0

    def frame(self) -> bytes | None:
        """The next 20 ms, the last one filled up with silence."""
        chunk = b""
        while self._samples and len(chunk) < 2 * FRAME_SAMPLES:
            if self._position >= len(self._samples):
                if self._loops == 1:
                    break
                self._loops -= 1 if self._loops > 0 else 0
                self._position = 0
            part = self._samples[self._position : self._position + 2 * FRAME_SAMPLES - len(chunk)]
            self._position += len(part)
            chunk += part
        if not chunk:
            return None
        self.played += len(chunk) // 2
        return chunk.ljust(2 * FRAME_SAMPLES, b"\0")


class Sequence:
    """``file_string://a!b``: one sound after the other, each opened when its turn comes."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._current: Sound | None = None
        self.played = 0

    def frame(self) -> bytes | None:
        """The next 20 ms of whichever sound is on."""
        while True:
            if self._current is not None:
                frame = self._current.frame()
                if frame is not None:
                    self.played += FRAME_SAMPLES
                    return frame
            if not self._names:
                return None
            self._current = open_sound(self._names.pop(0))


def open_sound(name: str) -> Sound | None:
    """The sound called ``name``, or None where FreeSWITCH would not find it."""
    name = re.sub(r"^\{[^}]*\}", "", name.strip())  # {timer_name=soft}: parameters of the file handle
    scheme, separator, rest = name.partition("://")
    if separator:
        if scheme == "silence_stream" and re.match(r"-?\d{1,9}(,|$)", rest, re.A):
            return Silence(int(rest.partition(",")[0]))
        if scheme == "tone_stream":
            return _tone_stream(rest)
        if scheme == "file_string":
            return Sequence(rest.split("!")[:128])
        return None
    path = Path(name)
    try:
        if not path.is_absolute() or path.stat().st_size > MAX_FILE:
            return None
        raw = _RAW.search(name)
        if raw:
            return Linear(resample(path.read_bytes(), int(raw[1]) * 1000, 8000))
        if path.suffix == ".wav":
            return Linear(_wav(path))
    except (OSError, EOFError, wave.Error):
        return None  # FreeSWITCH says FILE NOT FOUND to a file it cannot open or read, too
    return None


def _wav(path: Path) -> bytes:
    """A 16-bit PCM wave file as L16 at 8,000 Hz, its first channel."""
    with wave.open(str(path), "rb") as file:
        if file.getsampwidth() != 2:
            raise wave.Error("not 16-bit PCM")
        frames, channels, rate = file.readframes(file.getnframes()), file.getnchannels(), file.getframerate()
    if channels > 1:
        frames = b"".join(frames[i : i + 2] for i in range(0, len(frames), 2 * channels))
    return resample(frames, rate, 8000)


def _tone_stream(text: str) -> Linear | None:
    """``v=<dB>``, ``%(on,off,frequency[,frequency])`` and ``loops=N``: the common part of FreeSWITCH's TGML.

    libteletone's peak for a volume is 46,340 (32,767 times the root of 2) less the dB above 6.16 dBm0.
    """
    volume = _VOLUME.search(text)
    level = round(46340 * 10 ** ((int(volume[1]) - 6.16) / 20)) if volume else 8000
    sound = b""
    for match in _TONE.finditer(text):
        on, off, *frequencies = (int(part) for part in match.groups() if part)
        sound += tone(frequencies, min(on, 60_000), level=min(level, 32767)) + bytes(16 * min(off, 60_000))
    loops = _LOOPS.search(text)
    return Linear(sound, int(loops[1]) or 1 if loops else 1) if sound else None


def tone(frequencies: list[int], milliseconds: int, rate: int = 8000, level: int = 8000) -> bytes:
    """Sine waves as L16, ``level`` being their peak of 32,767."""
    share = level / len(frequencies)
    turns = [2 * math.pi * frequency / rate for frequency in frequencies]
    count = milliseconds * rate // 1000
    return struct.pack(
        f"<{count}h", *(round(sum(share * math.sin(t * n) for t in turns)) for n in range(count))
    )


def resample(linear: bytes, rate: int, wanted: int) -> bytes:
    """L16 at ``rate`` as L16 at ``wanted`` by linear interpolation, without a filter: enough for tones and
    speech."""
    if rate == wanted or rate <= 0:
        return linear
    linear = linear[: len(linear) & ~1]
    samples = struct.unpack(f"<{len(linear) // 2}h", linear)
    if rate % wanted == 0:
        step = rate // wanted
        means = [sum(samples[i : i + step]) // step for i in range(0, len(samples) - step + 1, step)]
        return struct.pack(f"<{len(means)}h", *means)
    count = len(samples) * wanted // rate
    out = []
    for n in range(count):
        index, part = divmod(n * rate, wanted)
        following = samples[min(index + 1, len(samples) - 1)]
        out.append(samples[index] + (following - samples[index]) * part // wanted)
    return struct.pack(f"<{count}h", *out)


class Upsampler:
    """8,000 Hz to a multiple of it, frame after frame without a seam."""

    def __init__(self, wanted: int) -> None:
        self._factor = wanted // 8000
        self._last = 0

    def __call__(self, linear: bytes) -> bytes:
        """One frame of L16 at the wanted rate."""
        if self._factor == 1:
            return linear
        out: list[int] = []
        previous, factor = self._last, self._factor
        for (sample,) in struct.iter_unpack("<h", linear):
            out += [previous + (sample - previous) * n // factor for n in range(1, factor + 1)]
            previous = sample
        self._last = previous
        return struct.pack(f"<{len(out)}h", *out)
