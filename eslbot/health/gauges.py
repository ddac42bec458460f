"""Reads the gauges of the service's running processes: how many there are, and what they have seen."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict

from eslbot.telemetry import metric_rows


def gauge_total(directory: Path, gauge: str) -> int:
    """The sum of a ``livesum`` gauge without labels. Raises OSError."""
    return round(sum(value for _, value, _ in _read(directory, gauge, "livesum")))


def gauge_latest(directory: Path, gauge: str, label: str) -> dict[str, float]:
    """The last value of a ``livemostrecent`` gauge, by the values of ``label``. Raises OSError."""
    found: dict[str, tuple[float, float]] = {}
    for labels, value, at in _read(directory, gauge, "livemostrecent"):
        if at >= found.get(labels[label], (0.0, 0.0))[0]:
            found[labels[label]] = (at, value)
    return {name: value for name, (_, value) in found.items()}


def _read(directory: Path, gauge: str, mode: str) -> Iterator[tuple[dict[str, str], float, float]]:
    """Labels, value, and when it was set, of each running process."""
    prefix = f'["{gauge}"'
    for path in metric_rows.of_the_living(directory):
        if not path.name.startswith(f"gauge_{mode}_"):
            continue
        try:
            for key, value, at, _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
                if key.startswith(prefix):
                    yield json.loads(key)[2], value, at
        except metric_rows.UNREADABLE:  # it is just being made, or its process is ending
            continue
