"""How loud L16 is, and in which of its frames there is something to be heard."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

#: A sample beyond this, of 32,768, can be heard (-48 dB); codecs' and synthesisers' silence is below it.
AUDIBLE = 130


def audible(linear: bytes) -> bool:
    """Whether anything of L16 can be heard, see :data:`AUDIBLE`."""
    samples = np.frombuffer(linear, "<i2", len(linear) // 2)
    return len(samples) > 0 and bool(samples.max() > AUDIBLE or samples.min() < -AUDIBLE)


def audible_spans(linear: bytes, frame_bytes: int, silence: int) -> list[tuple[int, int]]:
    """Stretches of frames in which L16 can be heard: of each, the first frame and the one behind the last.

    Between two stretches are more than ``silence`` frames that cannot be heard.
    """
    frames = _frames(linear, frame_bytes)
    heard = np.flatnonzero((frames.max(axis=1) > AUDIBLE) | (frames.min(axis=1) < -AUDIBLE))
    if not len(heard):
        return []
    ends = np.flatnonzero(np.diff(heard) > silence)
    firsts, lasts = heard[np.r_[0, ends + 1]], heard[np.r_[ends, len(heard) - 1]]
    return [(int(first), int(last) + 1) for first, last in zip(firsts, lasts, strict=True)]


def rms(linear: bytes) -> float:
    """The root mean square of L16, of 32,768."""
    samples = np.frombuffer(linear, "<i2").astype(np.float32)
    return math.sqrt(float(np.dot(samples, samples)) / len(samples)) if len(samples) else 0.0


def frame_rms(linear: bytes, frame_bytes: int) -> NDArray[np.float32]:
    """The root mean square of each of L16's frames, the last of which may be shorter."""
    frames = _frames(linear, frame_bytes).astype(np.float32)
    levels: NDArray[np.float32] = np.sqrt(
        np.einsum("ij,ij->i", frames, frames) / (frame_bytes // 2), dtype=np.float32
    )
    return levels


def _frames(linear: bytes, frame_bytes: int) -> NDArray[np.int16]:
    count = -(-len(linear) // frame_bytes)
    samples = np.frombuffer(linear.ljust(count * frame_bytes, b"\0"), "<i2")
    return samples.reshape(count, frame_bytes // 2)
