"""Recordings as a relay's thread writes them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from eslbot.config.loader import from_tree
from eslbot.config.model import Config
from eslbot.recording.writer import About, Writer
from tests.support.relays import ACME, configuration

OTHER = "5a1d7f0e-96c4-4d57-9c58-0f9b3a2f7c11"
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


def about(call_id: str = CALL, workspace: str = "acme", key: str | None = None) -> About:
    workspace_id = ACME if workspace == "acme" else OTHER
    return About(call_id, workspace_id, workspace, "crt-1", bytes.fromhex(key) if key else None)


def sound(seconds: float, seed: int = 1) -> bytes:
    """Noise: what is decoded is it, or is not."""
    rng = np.random.default_rng(seed)
    return rng.integers(-8000, 8000, round(seconds * 8000), np.int16).astype("<i2").tobytes()


def record(
    directory: Path, whose: About, seconds: float = 5.0, *, began_at: float | None = None, least_free: int = 0
) -> tuple[bytes, bytes]:
    """A recording of one more part; what was said on its two sides."""
    writer = Writer(directory, least_free)
    caller, line = sound(seconds), sound(seconds, 2)
    track = writer.track(whose, time.time() if began_at is None else began_at)
    for at in range(0, len(caller), 16000):
        track.write(caller[at : at + 16000], line[at : at + 16000])
    track.end()
    assert writer.close(20)
    assert track.failed is None, track.failed
    return caller, line
