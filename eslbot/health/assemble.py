"""Puts the rounds of one configuration together: which probe tells of what, and where each learns it from."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from eslbot.config.model import Config, FreeSwitch
from eslbot.health import probes
from eslbot.health.counts import latest, total
from eslbot.health.living import Living, Row
from eslbot.health.model import Colour, Component
from eslbot.health.probes import Count, Findings, Probe, Writing
from eslbot.health.rounds import Rounds
from eslbot.ledger.projection import Projection
from eslbot.telemetry import metrics


def rounds_of(config: Config, projection: Projection, writing: Callable[[], Writing]) -> Rounds:
    """To be started by who has them. ``writing`` tells how the ledger's writer is, where there is one."""
    directory = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])

    def count(gauge: str, wanted: int) -> Count:
        return Count(total(directory, gauge), wanted)

    workers = partial(count, "eslbot_workers_ready", config.server.workers)
    relays = partial(count, "eslbot_relay_ready", config.relay.processes)
    looks: dict[tuple[Component, ...], Probe] = {
        (Component.FREESWITCH, Component.EVENT_SOCKET): Switch(config.freeswitch, directory),
        (Component.WORKERS,): partial(probes.workers, config.server.health, workers),
        (Component.RELAYS,): partial(probes.relays, config, relays),
        (Component.LEDGER,): partial(_ledger, config, writing),
    }
    names = {workspace.id: workspace.name for workspace in config.workspaces.values()}
    certificates = partial(latest, directory, "eslbot_certificate_ends_timestamp_seconds", "workspace")
    living = None
    if config.ledger is not None:
        living = Living(config.workspaces, News(projection), certificates)
    return Rounds(looks, names, living)


class Switch:
    """FreeSWITCH's probe, which knows whether it was ever there since the service's start.

    That is kept beside the metrics, which live as long: this process may be a later one.
    """

    def __init__(self, config: FreeSwitch, directory: Path) -> None:
        self._config = config
        self._seen = directory / "freeswitch-seen"

    def __call__(self) -> Findings:
        """What :func:`eslbot.health.probes.switch` finds."""
        found = probes.switch(self._config)
        lost = found[Component.FREESWITCH].colour is Colour.RED
        if not lost:
            self._seen.touch()
        if not lost or self._seen.exists():
            return found
        return {
            component: replace(finding, why=f"{finding.why} (never seen since the start)", never_seen=True)
            for component, finding in found.items()
        }


def _ledger(config: Config, writing: Callable[[], Writing]) -> Findings:
    if config.ledger is not None:
        state, now = writing(), time.monotonic()
        silent = now - state.beat if now - state.beat > probes.STUCK else 0.0
        waits = 0.0 if state.waiting_since is None else now - state.waiting_since
        metrics.LEDGER_LAG.set(max(silent, waits))
    return probes.ledger(config.ledger, writing)


class News:
    """What the projection has that was not asked for yet (:data:`eslbot.health.living.News`)."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._version: int | None = None

    def __call__(self) -> tuple[Iterable[Row], Iterable[Row], bool]:
        """Rows that have changed, rows that have ended, and whether the first are all that live."""
        news = self._projection.since(self._version)
        self._version = news.version
        return [entry.row for entry in news.changed], [entry.row for entry in news.ended], news.anew
