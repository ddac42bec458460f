"""What `/metrics` says: the figures of all processes added up, in Prometheus' text format.

prometheus_client can do it, too, but at one stroke: with a hundred workspaces a worker's calls wait for
it for 0.2 s. Here what several processes have counted is added up before it is read, and calls have turns.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import structlog
from prometheus_client.utils import floatToGoString

from eslbot.figures import FigureFiles, Figures, entries

log = structlog.get_logger()

#: Figures that are worked on at one stroke: about a millisecond.
STROKE = 200

T = TypeVar("T")
Pause = Callable[[], object]


@dataclass
class _Family:
    """Everything that is counted under one name; samples by their labels."""

    kind: str
    about: str
    samples: list[tuple[str, float]] = field(default_factory=list)
    #: A histogram's: the upper bound of each bucket, and what fell into that one alone.
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = field(default_factory=dict)


def exposition(
    files: FigureFiles, pause: Pause = lambda: None, given: Mapping[str, float | None] | None = None
) -> bytes:
    """All figures; ``pause`` is called again and again meanwhile. Raises FiguresBusy.

    ``given``: counters without labels that no process counts, by name. None: not known now, and left out,
    as an increase from 0 to what it was before would be one that nobody has seen.
    """
    contents: list[tuple[str, bytes]] = []
    with files.reading() as names:
        for path in map(Path, names):
            # A process that ends takes its gauges along, locked or not.
            with suppress(FileNotFoundError):
                contents.append((path.name, path.read_bytes()))
    families = _families(_added_up(contents, pause), pause)
    for name, value in (given or {}).items():
        family = families.pop(name, None)
        if family is not None and value is not None:
            families[name] = _Family(family.kind, family.about, [(f"{name}_total", value)])
    return "".join(_strokes(_lines(families), pause)).encode()


def _strokes(things: Iterable[T], pause: Pause) -> Iterator[T]:
    for number, thing in enumerate(things, 1):
        yield thing
        if not number % STROKE:
            pause()


def _added_up(contents: list[tuple[str, bytes]], pause: Pause) -> dict[str, Figures]:
    """By kind. The files' names are prometheus_client's: ``counter_7.db``, ``gauge_livemax_7.db``."""
    found: dict[str, Figures] = {}
    for name, data in contents:
        kind, mode, *_ = name.split("_")
        figures = found.setdefault(kind, {})
        try:
            for key, value in _strokes(entries(data), pause):
                if key not in figures:
                    figures[key] = value
                elif mode == "livemax":
                    figures[key] = max(figures[key], value)
                else:
                    figures[key] += value
        except ValueError as error:
            log.error("figures_unreadable", file=name, error=str(error))
    return found


def _families(found: dict[str, Figures], pause: Pause) -> dict[str, _Family]:
    families: dict[str, _Family] = {}
    for kind, figures in found.items():
        for key, value in _strokes(figures.items(), pause):
            name, sample, labels, about = json.loads(key)
            family = families.setdefault(name, _Family(kind, about))
            bound = labels.pop("le", None)
            if bound is None:
                family.samples.append((sample + _spelt(labels), value))
            else:
                family.buckets.setdefault(tuple(labels.items()), []).append((float(bound), value))
    return families


def _lines(families: dict[str, _Family]) -> Iterator[str]:
    for name, family in sorted(families.items()):
        title = name + "_total" if family.kind == "counter" else name
        yield f"# HELP {title} {_escaped(family.about)}\n# TYPE {title} {family.kind}\n"
        for sample, value in family.samples:
            yield f"{sample} {_number(value)}\n"
        for labels, buckets in family.buckets.items():
            below = 0.0
            for bound, value in sorted(buckets):
                below += value
                spelt = _spelt({**dict(labels), "le": _number(bound)})
                yield f"{name}_bucket{spelt} {_number(below)}\n"
            yield f"{name}_count{_spelt(dict(labels))} {_number(below)}\n"


def _number(value: float) -> str:
    spelt: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return spelt


def _spelt(labels: dict[str, str]) -> str:
    if not labels:
        return ""
    pairs = [f'{name}="{_quoted(value)}"' for name, value in sorted(labels.items())]
    return "{" + ",".join(pairs) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
