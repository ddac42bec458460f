"""What grew over the last half of a run, whoever died meanwhile, and whether that is too much.

A process that lives long is looked at by itself: how fast it grows (the median of the slopes between all its
points: Theil and Sen's, which a few outliers do not move) times how long. Where one replaces another all the
time, none lives long enough for that: what counts then is whether those that come later are larger than those
that came first. A process fills up in its first minute, which is no growth.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

Points = Sequence[tuple[float, float]]

#: Seconds in which a process fills up; for which it has to be seen behind that; in which it is too young.
WARM, LONG, YOUNG = 60.0, 60.0, 10.0
#: Generations that tell whether they grow.
GENERATIONS = 5
#: Points of a series that are compared in pairs.
_POINTS = 150
#: Seconds of a last half that is worth a judgement.
JUDGED_FROM = 600.0


@dataclass(frozen=True)
class Limit:
    """At most ``most`` more over the last half, or this share of what there was; ``unit`` is for people."""

    most: float
    share: float
    unit: str


@dataclass(frozen=True)
class Growth:
    """What grew by how much: ``lives`` processes were looked at, for ``seconds`` in all."""

    name: str
    grown: float
    level: float
    limit: float
    unit: str
    lives: int
    seconds: float
    how: str

    @property
    def broken(self) -> bool:
        """Whether it is too much."""
        return self.grown > self.limit

    def __str__(self) -> str:
        word = "TOO MUCH" if self.broken else "flat"
        return (
            f"{self.name}: {self.grown:+.1f} {self.unit} of {self.level:.0f} (limit {self.limit:.1f}): "
            f"{word}; {self.lives} × {self.how}"
        )


def slope(points: Points) -> float:
    """The median of the slopes between all pairs of points; 0 where there is none."""
    few = thinned(points)
    slopes = [(v - u) / (t - s) for (s, u), (t, v) in combinations(few, 2) if t > s]
    return statistics.median(slopes) if slopes else 0.0


def thinned(points: Points, most: int = _POINTS) -> list[tuple[float, float]]:
    """At most so many: the medians of equal shares, in order."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / most)
    shares = [points[at : at + size] for at in range(0, len(points), size)]
    return [(statistics.median(t for t, _ in s), statistics.median(v for _, v in s)) for s in shares]


def growth(
    name: str, lives: Mapping[int, Points], begin: float, end: float, limit: Limit, *, warm: float = WARM
) -> Growth | None:
    """Of the processes' points between ``begin`` and ``end``; None where too little was seen.

    ``warm``: 0 for what is no process and does not fill up.
    """
    seen = {pid: [p for p in points if begin <= p[0] <= end] for pid, points in lives.items()}
    seen = {pid: points for pid, points in seen.items() if points}
    level = statistics.median([value for points in seen.values() for _, value in points] or [0.0])
    allowed = max(limit.most, limit.share * level)
    long: list[tuple[float, float]] = []  # seconds, growth
    for pid, points in seen.items():
        ripe = [p for p in points if p[0] - lives[pid][0][0] >= warm]
        if len(ripe) > 5 and (span := ripe[-1][0] - ripe[0][0]) >= min(LONG, (end - begin) / 2):
            long.append((span, slope(ripe) * span))
    if long:
        seconds = sum(span for span, _ in long)
        grown = sum(span * more for span, more in long) / seconds
        return Growth(name, grown, level, allowed, limit.unit, len(long), seconds, "by itself")
    levels = []
    for pid, points in seen.items():
        born = lives[pid][0][0]
        if grownup := [p for p in points if p[0] - born >= YOUNG]:
            levels.append((statistics.median(_times(grownup)), statistics.median(v for _, v in grownup)))
    if len(levels) < GENERATIONS:
        return None
    grown = slope(sorted(levels)) * (end - begin)
    return Growth(name, grown, level, allowed, limit.unit, len(levels), end - begin, "one after another")


def _times(points: Iterable[tuple[float, float]]) -> list[float]:
    return [t for t, _ in points]
