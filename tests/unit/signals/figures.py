"""Every sample that eslbot shows Prometheus, with its labels."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from eslbot.telemetry import metrics
from eslbot.telemetry.exposition import SWITCH

_SAMPLES = {Counter: ("_total",), Gauge: ("",), Histogram: ("_bucket", "_sum", "_count")}

#: Prometheus' own: what it knows of a target.
TARGET = frozenset({"job", "instance"})


def samples() -> dict[str, frozenset[str]]:
    """By the names that a query uses."""
    found = {"up": TARGET, **{f"{name}_total": TARGET for name in SWITCH}}
    for metric in vars(metrics).values():
        for kind, endings in _SAMPLES.items():
            if isinstance(metric, kind):
                labels = TARGET | set(metric._labelnames)
                for ending in endings:
                    found[metric._name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return found


def names() -> set[str]:
    """As an operator reads them: counters with ``_total``, histograms once."""
    return {name.removesuffix("_bucket") for name in samples() if not name.endswith(("_sum", "_count"))} - {
        "up"
    }
