"""A recording as one file that anything plays: WAV or FLAC, opened, its parts on one time line."""

from __future__ import annotations

import os
from pathlib import Path

import soundfile

from eslbot.audio import SAMPLE_RATE
from eslbot.recording import sidecar
from eslbot.recording.sound import CHANNELS
from eslbot.recording.store import Damaged, Entry, Store

#: By the end of its name.
FORMATS = {".wav": "WAV", ".flac": "FLAC"}


def export(store: Store, entry: Entry, out: Path) -> float:
    """Write a recording to a new file; its length in seconds.

    Raises Damaged: what was read up to there is in the file. Raises OSError, FileExistsError among them.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(out, flags, sidecar.FILE)
    samples = 0
    kind = FORMATS[out.suffix.lower()]
    try:
        with soundfile.SoundFile(fd, "w", SAMPLE_RATE, CHANNELS, "PCM_16", format=kind) as file:
            for block in store.sound(entry):
                file.buffer_write(block.tobytes(), "int16")
                samples += len(block)
    except Damaged:
        if not samples:
            out.unlink()
        raise
    except soundfile.SoundFileError as error:
        raise OSError(f"{out}: {error}") from error
    return samples / SAMPLE_RATE
