"""`/metrics`: the metrics of all processes of the service added up, in Prometheus' text format."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from eslbot.recovery import state as recovery
from eslbot.recovery.state import Recoveries, RecoveryFileError
from eslbot.telemetry import metric_rows

log = structlog.get_logger()


#: What no process of ours counts, but FreeSWITCH's host, in a file.
SWITCH = {
    "eslbot_switch_restarts": "Times that FreeSWITCH died with calls up and was started again.",
    "eslbot_switch_flushes": "Of those, which began without the calls: the third crash within a minute.",
    "eslbot_switch_calls_dropped": "Calls that were up at a crash and were dropped by that.",
}


class Processes(Collector):
    """What the processes of the service have counted, living and dead ones."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        """Each metric once."""
        files = metric_rows.of_the_living(self._directory)
        try:
            found = _merged(files)
        except metric_rows.UNREADABLE:  # which one, is looked for only then: it costs as much again
            readable = [path for path in files if metric_rows.is_readable(path)]
            for path in set(files) - set(readable):
                log.error("metrics_unreadable", file=path.name, remedy="its counts are left out")
            found = _merged(readable)
        yield from sorted(found, key=lambda metric: metric.name)


def _merged(files: list[Path]) -> Iterable[Metric]:
    merged: Iterable[Metric] = MultiProcessCollector.merge([str(path) for path in files])  # type: ignore[no-untyped-call]
    return merged


class Switch(Collector):
    """What FreeSWITCH's host has counted before each of its starts; a small file on a tmpfs.

    What is not known now is left out: an increase from 0 to what it was before is one that nobody has seen.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def collect(self) -> Iterable[Metric]:
        """Of its restarts."""
        known: Recoveries | None = None
        try:
            known = recovery.read(self._file)
        except RecoveryFileError as error:
            log.warning("recovery_file_unreadable", error=str(error), remedy=recovery.REMEDY)
        if known is None:
            return
        for name, value in zip(SWITCH, (known.restarts, known.flushes, known.dropped), strict=True):
            yield CounterMetricFamily(name, SWITCH[name], value)


def registry(recovery_file: Path) -> CollectorRegistry:
    """Everything that `/metrics` tells; whoever has more to tell registers a collector of their own."""
    found = CollectorRegistry(auto_describe=False)
    found.register(Processes(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])))
    found.register(Switch(recovery_file))
    return found


def exposition(found: CollectorRegistry) -> bytes:
    """The text. Raises OSError where the directory of metrics cannot be read."""
    return generate_latest(found)
