"""The drift of the RTP clock: how much faster than this machine's clock the switch counts its samples.

A packet's transit is its time of arrival less its time stamp. Of every few seconds the least is taken, that
of the packet which nothing has held up; how fast that changes is the drift. Where it jumps, the sender has
begun to count anew, or has waited (a take-over, a new FreeSWITCH): there a new piece begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.soak.growth import slope
from eslbot.audio import g711
from eslbot.sim.pbx.media import Arrival

RATE = 8000
#: Seconds of one window; seconds of transit that are a jump; windows that make a piece.
WINDOW, JUMP, LEAST = 2.0, 0.003, 10

_SPEECH = frozenset(g711.PAYLOAD_TYPES.values())


@dataclass(frozen=True)
class Drift:
    """``ppm``: positive where the switch is slow; measured over ``seconds`` in ``pieces``."""

    ppm: float
    seconds: float
    pieces: int


def windows(arrivals: Iterable[Arrival]) -> list[tuple[float, float]]:
    """Epoch seconds and least transit of each window, in seconds; the first one's transit is 0."""
    found: list[tuple[float, float]] = []
    ssrc = last = full = -1
    begun = 0.0
    least: tuple[float, float] | None = None
    for arrival in arrivals:
        packet = arrival.packet
        if packet.payload_type not in _SPEECH:
            continue
        if packet.ssrc != ssrc:
            ssrc, last, full = packet.ssrc, packet.timestamp, packet.timestamp
        # To the full number nearest the last one.
        full += ((packet.timestamp - last + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        last = packet.timestamp
        transit = arrival.at - full / RATE
        if least is not None and arrival.at - begun > WINDOW:
            found.append(least)
            least = None
        if least is None:
            begun, least = arrival.at, (arrival.at, transit)
        elif transit < least[1]:
            least = (arrival.at, transit)
    base = found[0][1] if found else 0.0
    return [(at, transit - base) for at, transit in found]


def pieces(call: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The windows of a call, cut where the transit jumps."""
    found: list[list[tuple[float, float]]] = []
    for at, transit in call:
        last = found[-1][-1] if found else None
        if last is None or at - last[0] > 2 * WINDOW + 1 or abs(transit - last[1]) > JUMP:
            found.append([])
        found[-1].append((at, transit))
    return found


def drift(told: Sequence[Sequence[tuple[float, float]]]) -> Drift | None:
    """Over the windows of several calls; None where no piece is long enough."""
    long = [piece for call in told for piece in pieces(call) if len(piece) >= LEAST]
    if not long:
        return None
    # A slope's variance goes with the third power of its length.
    lengths = [piece[-1][0] - piece[0][0] for piece in long]
    weights = [length**3 for length in lengths]
    ppm = sum(w * slope(p) for w, p in zip(weights, long, strict=True)) / sum(weights) * 1e6
    return Drift(ppm, sum(lengths), len(long))
