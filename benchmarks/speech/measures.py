"""Small measures that other benchmarks share: percentiles, loud packets, numbered frames that never came.

Nothing here talks to a network. Times are epoch seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.speech.signals import FRAME, NUMBERS, numbers_of
from eslbot.audio import g711
from eslbot.sim.audio import RATE, SILENCE
from eslbot.sim.rtp import RtpPacket

_TABLES = {
    kind: np.frombuffer(g711.decode(law, bytes(range(256))), "<i2")
    for law, kind in g711.PAYLOAD_TYPES.items()
}


_SILENT = {
    kind: bytes(np.flatnonzero(np.abs(table.astype(int)) <= SILENCE).tolist())
    for kind, table in _TABLES.items()
}


def is_loud(packet: RtpPacket) -> bool:
    """Whether a packet is G.711 and not silent."""
    silent = _SILENT.get(packet.payload_type)
    return silent is not None and bool(packet.payload.translate(None, silent))


# -- the caller's audio at the bot ---------------------------------------------------------------


@dataclass(frozen=True)
class Uplink:
    """The caller's numbered frames as the bot received them.

    ``lost`` are the nominal times (epoch seconds, by the fastest frame) of the frames that never came,
    ``repeated`` counts frames that came again or out of order, ``silent`` and ``damaged`` frames without a
    number. ``late`` is how much later than the fastest the slowest frame was, in seconds.
    """

    frames: int = 0
    lost: list[float] = field(default_factory=list)
    repeated: int = 0
    silent: int = 0
    damaged: int = 0
    late: float = 0.0


def uplink(l16: bytes, arrivals: Sequence[tuple[float, int]]) -> Uplink:
    """What the bot received: its audio from the start, and of each frame epoch seconds and bytes so far."""
    offset = _alignment(l16)
    numbers = numbers_of(l16[2 * offset :])
    if not len(numbers) or not arrivals:
        return Uplink()
    counts = [count for _, count in arrivals]
    ends = 2 * (offset + FRAME * np.arange(1, len(numbers) + 1))
    at = np.array([arrivals[min(i, len(arrivals) - 1)][0] for i in np.searchsorted(counts, ends)])
    good = np.flatnonzero(numbers >= 0)
    if not len(good):
        return Uplink(len(numbers), silent=int((numbers == -1).sum()), damaged=int((numbers == -2).sum()))
    full = [int(numbers[good[0]])]
    for number in numbers[good[1:]]:
        # To the full number nearest the highest so far.
        full.append(full[-1] + (int(number) - full[-1] + NUMBERS // 2) % NUMBERS - NUMBERS // 2)
    origins = at[good] - np.array(full) * FRAME / RATE
    origin = float(origins.min())
    missing = sorted(set(range(min(full), max(full) + 1)) - set(full))
    inside = numbers[good[0] : good[-1] + 1]
    return Uplink(
        frames=len(numbers),
        lost=[origin + number * FRAME / RATE for number in missing],
        repeated=sum(later <= earlier for earlier, later in pairwise(full)),
        silent=int((inside == -1).sum()),
        damaged=int((inside == -2).sum()),
        late=float(origins.max() - origin),
    )


def _alignment(l16: bytes) -> int:
    """Samples before the first whole numbered frame, where frames do not begin with the audio."""
    part = l16[: 2 * FRAME * 500]
    return max(
        range(0, FRAME, 4), key=lambda offset: (int((numbers_of(part[2 * offset :]) >= 0).sum()), -offset)
    )


def merge(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both together: lists behind each other, numbers added."""
    both = dict(one)
    for key, value in other.items():
        if key not in both:
            both[key] = value
        elif isinstance(value, dict):
            both[key] = merge(both[key], value)
        elif value is not None:
            both[key] = value if both[key] is None else both[key] + value
    return both
