"""How true a recording is to what was on the wire. Pure: samples and times in, figures out.

Both sides say the same all the time: a quiet tone, and once a second a loud one. The quiet one shows gaps,
the beginnings of the loud ones where a side stands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from eslbot.sim.audio import tone

RATE = 8000
#: Samples beyond this (of 32,767) are of a loud tone, and up to that of silence.
LOUD, SILENT = 6000, 200
#: Seconds of silence from which on it is a gap.
GAP = 0.010
#: Seconds from one packet to the next from which on it is a pause.
PAUSE = 0.035
#: Seconds between two loud tones, at least, and of one.
APART, LENGTH = 0.5, 0.1
#: Seconds by which a side may be off and its loud tone still be taken for the one that it is.
NEAREST = 0.45

Side = np.ndarray[Any, np.dtype[np.int16]]


def second_of_sound(quiet: float, loud: float) -> bytes:
    """What is said over and over: L16 at 8,000 Hz."""
    return tone(quiet, 1 - LENGTH, amplitude=2000) + tone(loud, LENGTH, amplitude=14000)


def onsets(side: Side) -> list[int]:
    """Where each loud tone begins, in samples."""
    loud = np.flatnonzero(np.abs(side.astype(np.int32)) > LOUD)
    if not len(loud):
        return []
    first = np.concatenate(([True], np.diff(loud) > APART * RATE))
    return [int(at) for at in loud[first]]


def gaps(side: Side) -> list[tuple[int, int]]:
    """Silences within its sound, as (begin, samples)."""
    sounds = np.flatnonzero(np.abs(side.astype(np.int32)) > SILENT)
    if not len(sounds):
        return []
    steps = np.diff(sounds)
    holes = np.flatnonzero(steps > GAP * RATE)
    return [(int(sounds[at]) + 1, int(steps[at]) - 1) for at in holes]


def pauses(times: Sequence[float]) -> int:
    """How often a wire's packets, 20 ms each, paused: a gap for whoever hears, with no silence in it."""
    return sum(after - before > PAUSE for before, after in pairwise(times))


def wire_onsets(packets: Sequence[tuple[float, Side]]) -> list[float]:
    """When each loud tone began on a wire: of packets, their times and samples."""
    found: list[float] = []
    for at, samples in packets:
        loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > LOUD)
        if len(loud) and (not found or at - found[-1] > APART):
            found.append(at + int(loud[0]) / RATE)
    return found


@dataclass(frozen=True)
class Alignment:
    """By how many seconds the caller's side of a recording is later than the bot's, against RTP."""

    off: list[float]

    @property
    def worst(self) -> float:
        """The furthest; NaN where nothing was to be compared."""
        return max(map(abs, self.off), default=float("nan"))


def alignment(
    caller: Sequence[int], bot: Sequence[int], said: Sequence[float], heard: Sequence[float]
) -> Alignment:
    """Of the places of loud tones in a recording, and the times at which they were sent and came."""
    if not bot or not heard or not said:
        return Alignment([])
    # Which of the tones on the wire is which: the recording has lost none, and they come once a second.
    zeros = [at - place / RATE for place, at in zip(bot, heard, strict=False)]
    zero = float(np.median(zeros))
    off = []
    for place in caller:
        here = zero + place / RATE
        nearest = min(said, key=lambda at: abs(at - here))
        if abs(here - nearest) <= NEAREST:
            off.append(here - nearest)
    return Alignment(off)
