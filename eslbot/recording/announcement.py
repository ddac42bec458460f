"""The announcement that the caller of a recorded call hears first: a beep, or a file of the operator's."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

import numpy as np

from eslbot.audio import SAMPLE_RATE, UnusableAudio
from eslbot.audio.decoder import Decoder, EncodedAudio
from eslbot.config.model import BEEP
from eslbot.recording import sidecar

#: The beep: hertz, seconds, peak (full scale is 32,767), and seconds of its fade-in and fade-out.
TONE, LENGTH, LEVEL, FADE = 1400, 0.4, 8000, 0.01
#: Seconds of a file, since the bot waits for its end; and bytes, at 24,000 Hz.
MAX_SECONDS = 30.0
_MAX_BYTES = round(MAX_SECONDS * 24_000 * 2) + 64 * 1024


class UnusableAnnouncement(Exception):
    """The announcement cannot be played; the message says why, and what is expected."""


def announcement_audio(announcement: str | None) -> bytes:
    """The announcement as L16 at 8,000 Hz; empty for None. Raises UnusableAnnouncement."""
    if announcement is None:
        return b""
    return _beep() if announcement == BEEP else _of_file(Path(announcement))


@lru_cache(maxsize=1)
def _beep() -> bytes:
    n = np.arange(round(LENGTH * SAMPLE_RATE))
    swell = np.minimum(1, np.minimum(n, len(n) - 1 - n) / (FADE * SAMPLE_RATE))
    return bytes((LEVEL * swell * np.sin(2 * np.pi * TONE * n / SAMPLE_RATE)).astype("<i2").tobytes())


def _of_file(path: Path) -> bytes:
    wanted = "a WAV file of 16-bit PCM, mono, at 8,000, 16,000 or 24,000 Hz"
    try:
        with sidecar.open_plain(path) as fd:
            content = b""
            while len(content) <= _MAX_BYTES and (piece := os.read(fd, 1 << 20)):
                content += piece
    except OSError as error:
        raise UnusableAnnouncement(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        linear = Decoder().decode(EncodedAudio(content, "wav", 0))
    except UnusableAudio as error:
        raise UnusableAnnouncement(f"{path}: {error}; expected {wanted}") from error
    if len(linear) > MAX_SECONDS * SAMPLE_RATE * 2:
        raise UnusableAnnouncement(f"{path} is longer than {MAX_SECONDS:g} s")
    return linear
