"""What the caller heard of a bot that speaks in tones: the holes inside each of them.

Nothing here talks to a network. Times are epoch seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.speech.measures import is_loud
from eslbot.audio import g711
from eslbot.sim.audio import SHARE, tone_power
from eslbot.sim.pbx.media import Arrival
from eslbot.sim.rtp import PTIME

#: Seconds of silence inside speech from which on it is heard as a gap.
AUDIBLE = 0.060

_LAWS = {kind: law for law, kind in g711.PAYLOAD_TYPES.items()}


@dataclass(frozen=True)
class Gap:
    """A hole inside a tone, ``at`` its beginning, ``seconds`` long; ``tone`` in hertz."""

    at: float
    seconds: float
    tone: float


@dataclass(frozen=True)
class Spoken:
    """What was heard of one call's tones: the gaps, and the seconds of each tone, in the order asked."""

    gaps: list[Gap]
    seconds: list[float]


def spoken(arrivals: Iterable[Arrival], tones: Sequence[float], shortest: float = AUDIBLE) -> Spoken:
    """The gaps longer than ``shortest`` seconds inside each of ``tones``.

    A gap is the time between two packets of one tone with nothing of it between: no packets, or silent ones.
    What was left out without a pause is no gap; it is missing in the seconds.
    """
    last: dict[float, float] = {}
    seconds = dict.fromkeys(tones, 0.0)
    gaps = []
    for arrival in arrivals:
        packet = arrival.packet
        if not is_loud(packet):
            continue
        linear = g711.decode(_LAWS[packet.payload_type], packet.payload)
        tone = next((tone for tone in tones if tone_power(linear, tone) >= SHARE), None)
        if tone is None:
            continue
        before = last.get(tone)
        if before is not None and arrival.at - before - PTIME > shortest:
            gaps.append(Gap(before + PTIME, arrival.at - before - PTIME, tone))
        last[tone] = arrival.at
        seconds[tone] += PTIME
    return Spoken(gaps, [seconds[tone] for tone in tones])
