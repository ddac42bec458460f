"""What the caller says: a sentence of our own, or a WAV file."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path

import soundfile

from eslbot.audio import SAMPLE_RATE, UnusableAudio
from eslbot.audio.decoder import Decoder, EncodedAudio

#: Seconds of a file at most: a caller who never stops gets no answer.
LONGEST = 20.0
_MOST_BYTES = round(LONGEST * 24_000 * 2) + 64 * 1024


class UnusableSpeech(Exception):
    """A file that the caller cannot say; the text names it, and what would be right."""


@lru_cache(maxsize=1)
def sentence() -> bytes:
    """Excuse me, I would like to speak to somebody: 2.6 s by espeak-ng: L16 at 8,000 Hz."""
    with as_file(files("eslbot.botcheck") / "caller.flac") as path:
        samples, _ = soundfile.read(path, dtype="int16")
    return bytes(samples.astype("<i2").tobytes())


def of_file(path: Path) -> bytes:
    """A WAV file as L16 at 8,000 Hz. Raises UnusableSpeech."""
    wanted = "a WAV file of 16-bit PCM, mono, at 8000, 16000 or 24000 Hz"
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UnusableSpeech(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        linear = Decoder().decode(EncodedAudio(content, "wav", 0))
    except UnusableAudio as error:
        raise UnusableSpeech(f"{path}: {error}; expected {wanted}") from error
    if len(linear) > LONGEST * SAMPLE_RATE * 2:
        raise UnusableSpeech(f"{path} is longer than {LONGEST:g} s")
    return linear
