"""Puts the health monitor of a configuration together: which probe checks what."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from eslbot.config.model import Config, FreeSwitch
from eslbot.health import probes
from eslbot.health.calls import CallHealth
from eslbot.health.gauges import gauge_latest, gauge_total
from eslbot.health.model import Colour, Component
from eslbot.health.monitor import HealthMonitor
from eslbot.health.probes import Findings, Probe, ProcessCount, WriterStatus
from eslbot.ledger.projection import Projection
from eslbot.ledger.schema import Row
from eslbot.telemetry import metrics


def create_monitor(
    config: Config, projection: Projection, writer_status: Callable[[], WriterStatus]
) -> HealthMonitor:
    """The monitor, not running yet. ``writer_status`` is called only where there is a ledger."""
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])

    def count(gauge: str, wanted: int) -> ProcessCount:
        return ProcessCount(gauge_total(directory, gauge), wanted)

    workers = partial(count, "eslbot_workers_ready", config.server.workers)
    relays = partial(count, "eslbot_relay_ready", config.relay.processes)
    checks: dict[tuple[Component, ...], Probe] = {
        (Component.FREESWITCH, Component.EVENT_SOCKET): FreeSwitchProbe(config.freeswitch, directory),
        (Component.WORKERS,): partial(probes.workers, config.server.health, workers),
        (Component.RELAYS,): partial(probes.relays, config, relays),
        (Component.LEDGER,): partial(_ledger, config, writer_status),
    }
    names = {workspace.id: workspace.name for workspace in config.workspaces.values()}
    certificates = partial(gauge_latest, directory, "eslbot_certificate_ends_timestamp_seconds", "workspace")
    calls = None
    if config.ledger is not None:
        calls = CallHealth(config.workspaces, ProjectionFeed(projection), certificates)
    return HealthMonitor(checks, names, calls)


class FreeSwitchProbe:
    """FreeSWITCH's probe, which remembers whether FreeSWITCH was ever up since the service's start.

    A file beside the metrics says so, and lives as long as they do: this process may be a later one.
    """

    def __init__(self, config: FreeSwitch, directory: Path) -> None:
        self._config = config
        self._seen = directory / "freeswitch-seen"

    def __call__(self) -> Findings:
        """What :func:`eslbot.health.probes.freeswitch` finds."""
        found = probes.freeswitch(self._config)
        lost = found[Component.FREESWITCH].colour is Colour.RED
        if not lost:
            self._seen.touch()
        if not lost or self._seen.exists():
            return found
        return {
            component: replace(finding, why=f"{finding.why} (never seen since the start)", never_seen=True)
            for component, finding in found.items()
        }


def _ledger(config: Config, writer_status: Callable[[], WriterStatus]) -> Findings:
    if config.ledger is not None:
        status, now = writer_status(), time.monotonic()
        silent = now - status.beat if now - status.beat > probes.WRITER_SILENCE_LIMIT else 0.0
        waits = 0.0 if status.waiting_since is None else now - status.waiting_since
        metrics.LEDGER_LAG.set(max(silent, waits))
    return probes.ledger(config.ledger, writer_status)


class ProjectionFeed:
    """What has changed in the projection since the last call (:data:`eslbot.health.calls.ChangeFeed`)."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._version: int | None = None

    def __call__(self) -> tuple[Iterable[Row], Iterable[Row], bool]:
        """Rows that have changed, rows that have ended, and whether the first are all live calls."""
        update = self._projection.since(self._version)
        self._version = update.version
        changed, ended = ([call.row for call in calls] for calls in (update.changed, update.ended))
        return changed, ended, update.anew
