"""A small evaluation of alert rules against one scrape: what needs no past can be judged by it.

Of an expression those parts between `or` are judged that compare one metric with a number or with another
one; what looks back (`increase`, `changes`) is none of them. promtool judges all of it, where there is one.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

RULES = Path(__file__).parents[3] / "deploy" / "alerts.yml"

_SELECTOR = r"([a-z_]+)(?:\{([^}]*)\})?"
_PART = re.compile(rf"{_SELECTOR} (==|<|>) (?:(-?[0-9.e]+)|{_SELECTOR})")
_SAMPLE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True)
class Sample:
    """One line of a scrape."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


def samples(text: str) -> list[Sample]:
    """Of a text in Prometheus' format."""
    found = []
    for line in text.splitlines():
        if match := _SAMPLE.fullmatch(line):
            labels = tuple(sorted(_LABEL.findall(match[2] or "")))
            found.append(Sample(match[1], labels, float(match[3])))
    return found


def rules() -> dict[str, str]:
    """Each alert's expression; the file uses of YAML what is read here."""
    found: dict[str, str] = {}
    name = ""
    within = False
    for line in RULES.read_text().splitlines():
        if began := re.fullmatch(r"      - alert: (\w+)", line):
            name = began[1]
        elif expr := re.fullmatch(r"        expr: (.*)", line):
            found[name] = "" if expr[1] == ">-" else expr[1]
            within = expr[1] == ">-"
        elif within and line.startswith(" " * 10):
            found[name] = f"{found[name]} {line.strip()}".strip()
        else:
            within = False
    return found


def firing(text: str) -> set[str]:
    """The alerts whose condition holds in this scrape, whatever their `for` waits for."""
    found = samples(text)
    return {name for name, expression in rules().items() if any(_holding(expression, found))}


def _holding(expression: str, found: list[Sample]) -> Iterator[bool]:
    for part in re.split(r"\s+or\s+", expression):
        # What is left out by `unless` is left out with its alternative.
        kept, _, but = part.partition(" unless ")
        if (match := _PART.fullmatch(kept)) is None:
            continue
        excluded = re.sub(r"^on \([^)]*\) ", "", but)
        if excluded and any(_holding(excluded, found)):
            continue
        left = _selected(match[1], match[2], found)
        if match[4] is not None:
            right = float(match[4])
        else:
            right = max(
                (sample.value for sample in _selected(match[5], match[6], found)), default=float("nan")
            )
        yield any(_COMPARE[match[3]](sample.value, right) for sample in left)


def _selected(name: str, labels: str | None, found: list[Sample]) -> list[Sample]:
    wanted = set(_LABEL.findall(labels or ""))
    return [sample for sample in found if sample.name == name and wanted <= set(sample.labels)]
