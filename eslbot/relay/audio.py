"""From what a bot sends to L16 at 8,000 Hz, and from that to what a bot wants to hear.

What a bot sends is audio, or :class:`UnusableAudio` with a text that tells its author what would be right.

Rates are changed by a windowed-sinc low-pass in numpy, 2 ms later: each frame gives its samples at once. soxr
keeps a frame for 15 to 150 ms (``docs/line-file.md``, "Rates"); the caller's whole way to the bot has 25.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from eslbot import g711
from eslbot.relay.protocols.base import Speech

#: Sampling rates a bot may speak at, and be spoken to, in Hz.
RATES = (8000, 16000, 24000)
#: What a bot's speech may be.
KINDS = ("raw", "wav", "pcmu", "pcma")
#: The line's rate.
LINE = 8000

#: Bytes that are worked on at a time: some 2 ms. A bot may send megabytes at once.
PIECE = 64 * 1024

#: A sample beyond this, of 32,768, can be heard (-48 dB); codecs' and synthesisers' silence is below it.
AUDIBLE = 130

#: Taps of the low-pass, per sample at 8,000 Hz: it delays speech by half of them, 2 ms.
TAPS = 32
#: Hz, and the window's shape (Kaiser): flat up to 3,400, 60 dB down from 4,600 on, where the telephone band
#: begins to be folded into.
_CUTOFF, _BETA = 4000.0, 6.0

#: Format tags of WAV (RFC 2361; `extensible` has the real one in its GUID), and sizes that are not known yet.
_PCM, _EXTENSIBLE = 1, 0xFFFE
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)
#: Chunks that may stand before the data.
_MOST_CHUNKS = 100


class UnusableAudio(Exception):
    """Speech that cannot be played; the text names what was sent and what would be right."""


class Decoder:
    """One bot's speech; keeps half samples and the filter's memory between messages."""

    def __init__(self) -> None:
        self._down: Down | None = None
        self._odd = b""  # half a sample, where a bot cuts its stream of raw bytes anywhere
        self._rate = 0

    @property
    def half(self) -> bool:
        """Whether half a sample waits for its other half."""
        return bool(self._odd)

    def decode(self, speech: Speech) -> bytes:
        """L16 at 8,000 Hz. Raises :class:`UnusableAudio`."""
        audio = speech.audio
        plain = speech.kind == "raw" and self._rate == speech.rate == LINE and not self._odd
        if plain and audio and not len(audio) & 1:
            return audio  # nothing is to be done, and this is what most bots send
        return b"".join(self.pieces(speech))

    def pieces(self, speech: Speech) -> Iterator[bytes]:
        """As :meth:`decode`, bit by bit: each step is some 2 ms of work. Raises at once, not on the way."""
        odd, self._odd = self._odd, b""  # half a sample goes on in the next raw message, or nowhere
        if not speech.audio:
            raise UnusableAudio("no audio in it")
        if speech.kind not in KINDS:
            raise UnusableAudio(
                f"audio of type {speech.kind[:20]!r} is not supported; send one of {', '.join(KINDS)}"
            )
        if speech.kind in ("pcmu", "pcma"):
            if speech.rate not in (0, LINE):
                raise UnusableAudio(f"{speech.kind} has {LINE} samples a second, not {speech.rate}")
            law = speech.kind.upper()
            return _worked_on(lambda piece: g711.decode(law, piece), speech.audio)
        content, rate = unwrap(speech.audio) if speech.kind == "wav" else (speech.audio, speech.rate)
        if rate not in RATES:
            raise UnusableAudio(
                f"sampleRate {rate} is not supported; send one of {', '.join(map(str, RATES))}"
            )
        if rate != self._rate:
            self._rate, self._down, odd = rate, Down(rate), b""
        if speech.kind == "raw":
            content = odd + content
            self._odd = content[len(content) & ~1 :]
        assert self._down is not None
        return _worked_on(self._down.resample, content[: len(content) & ~1])

    def reset(self) -> None:
        """Forget what came before: the next message begins a new utterance."""
        self._down, self._odd, self._rate = None, b"", 0


def _worked_on(work: Callable[[bytes], bytes], content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), PIECE):
        yield work(content[start : start + PIECE])


def audible(linear: bytes) -> bool:
    """Whether anything of L16 can be heard, see :data:`AUDIBLE`."""
    samples = np.frombuffer(linear, "<i2", len(linear) // 2)
    return len(samples) > 0 and bool(samples.max() > AUDIBLE or samples.min() < -AUDIBLE)


def audible_frames(linear: bytes, size: int, silence: int) -> list[tuple[int, int]]:
    """In which frames of ``size`` bytes L16 can be heard: stretches, each from its first to its last.

    The one behind the last is told. Between two stretches are more than ``silence`` frames that cannot.
    """
    count = -(-len(linear) // size)
    samples = np.frombuffer(linear.ljust(count * size, b"\0"), "<i2").reshape(count, size // 2)
    heard = np.flatnonzero((samples.max(axis=1) > AUDIBLE) | (samples.min(axis=1) < -AUDIBLE))
    if not len(heard):
        return []
    ends = np.flatnonzero(np.diff(heard) > silence)
    firsts, lasts = heard[np.r_[0, ends + 1]], heard[np.r_[ends, len(heard) - 1]]
    return [(int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True)]


# -- WAV --------------------------------------------------------------------------------------------------


def unwrap(content: bytes) -> tuple[bytes, int]:
    """Samples and rate of a RIFF/WAVE file of 16-bit PCM, one channel. Raises :class:`UnusableAudio`.

    Sizes are hints: a program that streams writes 0 or 0xFFFFFFFF where it does not know them yet, and one
    that was badly written counts its LIST chunk wrong.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise UnusableAudio("not a WAV file: it does not begin with RIFF and WAVE")
    form: tuple[int, int, int, int] | None = None
    at = 12
    for _ in range(_MOST_CHUNKS):
        if at + 8 > len(content):
            raise UnusableAudio("not a WAV file: it breaks off before its data")
        name, size = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        at += 8
        if name == b"data":
            break
        if name == b"fmt " and size >= 16 and at + 16 <= len(content):
            tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content, at)
            if tag == _EXTENSIBLE and size >= 40 and at + 26 <= len(content):
                (tag,) = struct.unpack_from("<H", content, at + 24)
            form = tag, channels, rate, bits
        following = at + size + (size & 1)
        if not _chunk_at(content, following):
            following = content.find(b"data", at)
            if following < 0:
                raise UnusableAudio("not a WAV file: it has no data chunk")
        at = following
    else:
        raise UnusableAudio(f"not a WAV file: {_MOST_CHUNKS} chunks and no data")
    if form is None:
        raise UnusableAudio("not a WAV file: it has no fmt chunk before its data")
    tag, channels, rate, bits = form
    if (tag, channels, bits) != (_PCM, 1, 16):
        raise UnusableAudio(
            f"wav of format {tag} with {channels} channels of {bits} bits; send 16-bit PCM (format 1), mono"
        )
    samples = content[at:] if size in _UNKNOWN_SIZES else content[at : at + size]
    if len(samples) < 2:
        raise UnusableAudio("a WAV file without samples")
    return samples, rate


def _chunk_at(content: bytes, at: int) -> bool:
    """Whether a chunk begins there: four printable characters and a size."""
    name = content[at : at + 4]
    return at + 8 <= len(content) and all(0x20 <= character < 0x7F for character in name)


# -- rates ------------------------------------------------------------------------------------------------


class Down:
    """L16 at one of :data:`RATES` to 8,000 Hz, as a stream: one sample out for each ``rate / 8000``."""

    def __init__(self, rate: int) -> None:
        self._step = rate // LINE
        self._phases = _low_pass(self._step)
        self._memory = np.zeros((TAPS - 1) * self._step, np.float32)

    def resample(self, linear: bytes) -> bytes:
        """What these samples make known; those that do not make a whole one wait for the next."""
        step = self._step
        if step == 1:
            return linear
        samples = np.concatenate((self._memory, np.frombuffer(linear, "<i2")), dtype=np.float32)
        count = len(samples) // step - (TAPS - 1)
        self._memory = samples[max(count, 0) * step :]
        if count < 1:
            return b""
        end = (count + TAPS - 1) * step  # samples that are `step` apart meet taps that are
        sums = [np.convolve(samples[n:end:step], taps, "valid") for n, taps in enumerate(self._phases)]
        return _as_l16(sum(sums[1:], sums[0]))


class Upsampler:
    """L16 at 8,000 Hz to one of :data:`RATES`, as a stream: ``rate / 8000`` samples out for each."""

    def __init__(self, rate: int) -> None:
        self._step = rate // LINE
        self._phases = _low_pass(self._step)
        self._memory = np.zeros(TAPS - 1, np.float32)

    def resample(self, linear: bytes) -> bytes:
        """The frame, 2 ms later."""
        if self._step == 1 or len(linear) < 2:
            return linear
        own = np.frombuffer(linear, "<i2", len(linear) // 2)
        samples = np.concatenate((self._memory, own), dtype=np.float32)
        self._memory = samples[len(own) :]
        out = np.empty((len(own), self._step), np.float32)
        for phase, taps in enumerate(reversed(self._phases)):
            out[:, phase] = np.convolve(samples, taps, "valid")
        return _as_l16(out.ravel() * self._step)


def _as_l16(samples: np.ndarray[Any, Any]) -> bytes:
    return bytes(np.clip(np.rint(samples), -32768, 32767).astype("<i2").tobytes())


@lru_cache(maxsize=4)
def _low_pass(step: int) -> tuple[np.ndarray[Any, Any], ...]:
    """The low-pass for ``step`` times 8,000 Hz, gain 1, as ``step`` filters of :data:`TAPS` taps each."""
    taps = TAPS * step
    n = np.arange(taps) - (taps - 1) / 2
    cutoff = _CUTOFF / (LINE * step)
    whole = np.sinc(2 * cutoff * n) * np.kaiser(taps, _BETA)
    whole /= math.fsum(whole)
    # Turned round, as a convolution that is to decimate wants them; to interpolate, they stand the other way.
    return tuple(np.ascontiguousarray(whole[phase::step][::-1], np.float32) for phase in range(step))
