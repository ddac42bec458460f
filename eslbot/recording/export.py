"""Exports a recording as one file that everything plays: WAV or FLAC, its parts on one time line."""

from __future__ import annotations

import os
from pathlib import Path

import soundfile

from eslbot.audio import SAMPLE_RATE
from eslbot.recording import sidecar
from eslbot.recording.flac import CHANNELS
from eslbot.recording.store import Damaged, Entry, RecordingStore

#: libsndfile's names of them, by the end of a file's name.
FORMATS = {".wav": "WAV", ".flac": "FLAC"}


def export(store: RecordingStore, entry: Entry, out: Path) -> float:
    """Write a recording to a new file; returns its length in seconds.

    Raises Damaged: what was read up to there is in the file. Raises OSError, FileExistsError among them.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(out, flags, sidecar.FILE_MODE)
    samples = 0
    kind = FORMATS[out.suffix.lower()]
    try:
        with soundfile.SoundFile(fd, "w", SAMPLE_RATE, CHANNELS, "PCM_16", format=kind) as file:
            for block in store.audio(entry):
                file.buffer_write(block.tobytes(), "int16")
                samples += len(block)
    except Damaged:
        if not samples:
            out.unlink()
        raise
    except soundfile.SoundFileError as error:
        raise OSError(f"{out}: {error}") from error
    return samples / SAMPLE_RATE
