"""Audio as bots and operators give it to L16 at 8,000 Hz; or :class:`~eslbot.audio.UnusableAudio`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from eslbot.audio import SAMPLE_RATE, UnusableAudio, g711
from eslbot.audio.resample import Downsampler
from eslbot.audio.wav import unwrap

#: Sampling rates a bot may speak at, and be spoken to, in Hz.
RATES = (8000, 16000, 24000)
#: What a bot's speech may be.
KINDS = ("raw", "wav", "pcmu", "pcma")
#: Bytes that are decoded at a time: some 2 ms of work. A bot may send megabytes at once.
PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class EncodedAudio:
    """Audio as it came, unexamined. ``kind``: raw (L16), wav, pcmu, pcma; ``rate`` in Hz, 0 where unknown."""

    audio: bytes
    kind: str = "raw"
    rate: int = SAMPLE_RATE


class Decoder:
    """One bot's speech; keeps half samples and the filter's memory between messages."""

    def __init__(self) -> None:
        self._down: Downsampler | None = None
        self._odd = b""  # half a sample, where a bot cuts its stream of raw bytes anywhere
        self._rate = 0

    @property
    def half(self) -> bool:
        """Whether half a sample waits for its other half."""
        return bool(self._odd)

    def decode(self, encoded: EncodedAudio) -> bytes:
        """L16 at 8,000 Hz. Raises UnusableAudio."""
        audio = encoded.audio
        plain = encoded.kind == "raw" and self._rate == encoded.rate == SAMPLE_RATE and not self._odd
        if plain and audio and not len(audio) & 1:
            return audio  # nothing is to be done, and this is what most bots send
        return b"".join(self.pieces(encoded))

    def pieces(self, encoded: EncodedAudio) -> Iterator[bytes]:
        """As :meth:`decode`, bit by bit: each step is some 2 ms of work. Raises at once, not on the way."""
        odd, self._odd = self._odd, b""  # half a sample goes on in the next raw message, or nowhere
        audio, kind, rate = encoded.audio, encoded.kind, encoded.rate
        if not audio:
            raise UnusableAudio("no audio in it")
        if kind not in KINDS:
            raise UnusableAudio(
                f"audio of type {kind[:20]!r} is not supported; send one of {', '.join(KINDS)}"
            )
        if kind in ("pcmu", "pcma"):
            if rate not in (0, SAMPLE_RATE):
                raise UnusableAudio(f"{kind} has {SAMPLE_RATE} samples a second, not {rate}")
            law = kind.upper()
            return _by_pieces(lambda piece: g711.decode(law, piece), audio)
        if kind == "wav":
            audio, rate = unwrap(audio)
        if rate not in RATES:
            raise UnusableAudio(
                f"sampleRate {rate} is not supported; send one of {', '.join(map(str, RATES))}"
            )
        if rate != self._rate:
            self._rate, self._down, odd = rate, Downsampler(rate), b""
        if kind == "raw":
            audio = odd + audio
            self._odd = audio[len(audio) & ~1 :]
        assert self._down is not None
        return _by_pieces(self._down.resample, audio[: len(audio) & ~1])

    def reset(self) -> None:
        """Forget what came before: the next message begins a new utterance."""
        self._down, self._odd, self._rate = None, b"", 0


def _by_pieces(work: Callable[[bytes], bytes], content: bytes) -> Iterator[bytes]:
    for start in range(0, len(content), PIECE):
        yield work(content[start : start + PIECE])
