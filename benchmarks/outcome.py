"""What became of a case, and how its figures are shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

#: What a case has measured; nothing that JSON cannot hold.
Data = dict[str, Any]


class CannotRun(Exception):
    """The case needs what this machine does not have; the text says what."""


class Status(StrEnum):
    """What became of it."""

    MEASURED = "measured"
    CANNOT_RUN = "cannot run here"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """One case: ``reason`` is why it has no ``data``; ``seconds`` is how long it took."""

    case: str
    status: Status
    data: Data = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Verdict:
    """A bar and how it was met; ``met`` is None where it was not measured."""

    measure: str
    bar: str
    measured: str
    met: bool | None


@dataclass
class Told:
    """A case's part of the report: its bars, its text in Markdown, and the faults that were seen."""

    verdicts: list[Verdict] = field(default_factory=list)
    text: str = ""
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """``measure`` may raise :class:`CannotRun`; ``draw`` writes a picture to the path."""

    name: str
    title: str
    measure: Callable[[], Data]
    tell: Callable[[Data], Told]
    draw: Callable[[Data, Path], None]


def cell(values: Iterable[float], digits: int = 1) -> str:
    """The median of several rounds, and the least and the most."""
    known = [value for value in values if value == value]
    if not known:
        return "–"
    middle = f"{statistics.median(known):,.{digits}f}"
    if len(known) == 1:
        return middle
    return f"{middle} ({min(known):,.{digits}f}–{max(known):,.{digits}f})"


def median(values: Iterable[float]) -> float:
    """The median of those that are known; NaN without any."""
    known = [value for value in values if value == value]
    return statistics.median(known) if known else float("nan")


def ratios(own: Sequence[float], others: Sequence[float]) -> list[float]:
    """``own`` over ``others``, round by round; a round in which the other did nothing has none."""
    return [a / b for a, b in zip(own, others, strict=False) if b]


def lost(result: Mapping[str, Any]) -> int:
    """Calls of a run of the load generator that did not come to their end."""
    return sum(result["lost"].values())
