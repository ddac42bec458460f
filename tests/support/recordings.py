"""Recordings as a relay's thread writes them."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from eslbot.config.loader import from_tree
from eslbot.config.model import Config
from eslbot.recording.writer import CallInfo, PartWriter, RecordingWriter
from tests.support.relays import ACME, configuration

OTHER = "5a1d7f0e-96c4-4d57-9c58-0f9b3a2f7c11"
#: Bytes of ten seconds of one side: what is given to the thread at one time.
SECONDS = 160_000
KEY, OTHER_KEY = "0f" * 32, "a1" * 32
CALL, OTHER_CALL = "0b1a4ad5-6e7c-4d1a-8a2c-1d1b3b3b3b3b", "1b1a4ad5-6e7c-4d1a-8a2c-1d1b3b3b3b3b"


def recorded(folder: Path, **own: Any) -> Config:
    """A configuration of two tenants, `acme` with these keys of `[workspaces.ID.recording]`, and `other`."""
    return from_tree(tree(folder, **own), {})


def tree(folder: Path, **own: Any) -> dict[str, Any]:
    tree = configuration(folder, 1)
    tree["recording"] = {"directory": str(folder / "recordings"), "min_free": 0}
    acme = tree["workspaces"][ACME]
    acme |= {"record": True, "recording": own}
    tree["workspaces"][OTHER] = {**acme, "name": "other", "recording": {}}
    return tree


def about(call_id: str = CALL, workspace: str = "acme", key: str | None = None) -> CallInfo:
    workspace_id = ACME if workspace == "acme" else OTHER
    return CallInfo(call_id, workspace_id, workspace, "crt-1", bytes.fromhex(key) if key else None)


def sound(seconds: float, seed: int = 1) -> bytes:
    """Noise: what is decoded is it, or is not."""
    rng = np.random.default_rng(seed)
    return rng.integers(-8000, 8000, round(seconds * 8000), np.int16).astype("<i2").tobytes()


def record(
    directory: Path,
    whose: CallInfo,
    seconds: float = 5.0,
    *,
    began_at: float | None = None,
    least_free: int = 0,
) -> tuple[bytes, bytes]:
    """A recording of one more part; what was said on its two sides."""
    caller, line = sound(seconds), sound(seconds, 2)
    write(directory, whose, caller, line, began_at=began_at, least_free=least_free)
    return caller, line


def write(
    directory: Path,
    whose: CallInfo,
    caller: bytes,
    line: bytes,
    *,
    began_at: float | None = None,
    least_free: int = 0,
) -> None:
    """A recording of one more part, with this on its two sides."""
    writer, track = _begin(directory, whose, caller, line, began_at, least_free)
    track.end()
    assert writer.close(20)
    assert track.failed is None, track.failed


def begin(
    directory: Path, whose: CallInfo, caller: bytes, line: bytes, *, began_at: float | None = None
) -> tuple[RecordingWriter, PartWriter]:
    """A part with this in it, on the disk, that has not ended."""
    writer, track = _begin(directory, whose, caller, line, began_at)
    _wait_for(track)
    return writer, track


def _begin(
    directory: Path, whose: CallInfo, caller: bytes, line: bytes, began_at: float | None, least_free: int = 0
) -> tuple[RecordingWriter, PartWriter]:
    writer = RecordingWriter(directory, least_free)
    track = writer.begin_part(whose, time.time() if began_at is None else began_at)
    for at in range(0, len(caller), SECONDS):
        if at:
            _wait_for(track)  # so it is never behind, however long it is
        track.write(caller[at : at + SECONDS], line[at : at + SECONDS])
    return writer, track


def _wait_for(track: PartWriter) -> None:
    deadline = time.monotonic() + 20
    while track._put != track._done:
        assert time.monotonic() < deadline and track.failed is None, track.failed
        time.sleep(0.001)


#: What was cut off, kept: where nobody has them any more, libsndfile ends their files after all.
_KILLED: list[PartWriter] = []


def cut_off(
    directory: Path, whose: CallInfo, caller: bytes, line: bytes, *, began_at: float | None = None
) -> None:
    """A part as a relay leaves it that is killed, some minutes ago."""
    writer, track = _begin(directory, whose, caller, line, began_at)
    assert writer.close(20)
    _KILLED.append(track)
    age(directory, whose.call_id, 600)


def age(directory: Path, call_id: str, seconds: float) -> None:
    """Nobody has written to a call's recording for so long."""
    for path in directory.rglob(f"{call_id}.*"):
        os.utime(path, (time.time() - seconds,) * 2)
