"""The health monitor: every two seconds a round of all probes at one time, each in its own thread.

A probe that hangs delays neither the others nor the round: its components are unknown until it returns, and
it is not started again before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from eslbot.health.model import (
    METRIC_VALUES,
    CallInNeed,
    Colour,
    Component,
    Finding,
    Health,
    State,
    StateTracker,
    Subject,
)
from eslbot.health.probes import TIMEOUT, Probe
from eslbot.telemetry import metrics

log = structlog.get_logger()

#: Seconds from round to round, and those that a round waits for its probes.
INTERVAL, ROUND_TIMEOUT = 2.0, TIMEOUT + 0.5
#: Seconds after which the last round's result does not count any more.
STALE_AFTER = 10.0


class Calls(Protocol):
    """What the calls say (:class:`eslbot.health.calls.CallHealth`)."""

    def check(self, now: float) -> tuple[Mapping[Subject, Finding], tuple[CallInNeed, ...]]:
        """Each tenant's bot and Ameyo, and the calls that need somebody. ``now`` in epoch seconds."""


class _ProbeThread(threading.Thread):
    """One probe, in its own thread."""

    def __init__(self, components: Iterable[Component], probe: Probe) -> None:
        super().__init__(name="health", daemon=True)  # one that hangs must not keep the process from ending
        self.components = tuple(components)
        self._probe = probe
        self._requested = threading.Event()
        self.done = threading.Event()
        self.done.set()
        self._requested_at = 0.0
        self._found: Mapping[Component, Finding] = {}
        self.start()

    def request(self) -> None:
        """Run the probe now, unless it still runs."""
        if self.done.is_set():
            self._requested_at = time.monotonic()
            self.done.clear()
            self._requested.set()

    def found(self) -> Mapping[Component, Finding]:
        """What the probe has found, for each of its components; unknown where it has not returned."""
        if self.done.is_set():
            missing = Finding(
                Colour.UNKNOWN, "eslbot's own look at it failed", "see health_probe_failed in the log"
            )
            return {component: self._found.get(component, missing) for component in self.components}
        late = Finding(
            Colour.UNKNOWN,
            f"the look at it hangs since {time.monotonic() - self._requested_at:.0f} s",
            "a disk or a host that does not answer? see eslbot doctor",
        )
        return dict.fromkeys(self.components, late)

    def run(self) -> None:
        while True:
            self._requested.wait()
            self._requested.clear()
            try:
                self._found = self._probe()
            except Exception:  # the others are looked at all the same
                self._found = {}
                log.exception("health_probe_failed", components=[str(one) for one in self.components])
            self.done.set()


class HealthMonitor:
    """Runs the rounds.

    Args:
        probes: By the components that each finds something about.
        names: The tenants' names, by id.
        calls: What the calls say; None where calls are not recorded.
    """

    def __init__(
        self,
        probes: Mapping[tuple[Component, ...], Probe],
        names: Mapping[str, str],
        calls: Calls | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._names, self._calls, self._clock = dict(names), calls, clock
        self._probes = [_ProbeThread(components, probe) for components, probe in probes.items()]
        self._tracker = StateTracker()
        self._ended = threading.Event()
        self._health: Health | None = None
        self._health_at = 0.0

    @property
    def health(self) -> Health | None:
        """The last round's result; None before the first one, and where it is too old."""
        health, at = self._health, self._health_at
        return health if time.monotonic() - at < STALE_AFTER else None

    def run(self) -> None:
        """Until :meth:`stop`. Raises nothing."""
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                self.check()
            except Exception:  # the next round may succeed; until then the last result grows stale
                log.exception("health_round_failed")
            self._ended.wait(max(0.1, INTERVAL - (time.monotonic() - began)))

    def stop(self) -> None:
        """No further round."""
        self._ended.set()

    def check(self) -> Health:
        """One round."""
        for probe in self._probes:
            probe.request()
        until = time.monotonic() + ROUND_TIMEOUT
        for probe in self._probes:
            probe.done.wait(max(0.0, until - time.monotonic()))
        findings: dict[Subject, Finding] = {}
        for probe in self._probes:
            findings |= {Subject(component): found for component, found in probe.found().items()}
        now = self._clock()
        calls: tuple[CallInNeed, ...] = ()
        if self._calls is not None:
            of_tenants, calls = self._calls.check(now)
            findings |= of_tenants
        states, changed = self._tracker.update(findings, self._names, now)
        for state in changed:
            _log(state)
        health = Health(now, states, calls)
        _set_metrics(health)
        self._health, self._health_at = health, time.monotonic()
        return health


def _log(state: State) -> None:
    """A line for each change: the log says what the page says."""
    finding = state.finding
    about = {"component": state.subject.component.value, "workspace": state.workspace}
    if finding.colour is Colour.RED:
        log.error("health_red", **about, why=finding.why, remedy=finding.remedy)
    elif finding.colour is Colour.AMBER:
        log.warning("health_amber", **about, why=finding.why, remedy=finding.remedy)
    elif finding.colour is Colour.UNKNOWN:
        log.warning("health_unknown", **about, why=finding.why, remedy=finding.remedy)
    else:
        log.info("health_green", **about)


def _set_metrics(health: Health) -> None:
    for state in health.states:
        child = metrics.HEALTH.labels(state.subject.component.value, state.workspace or "")
        child.set(METRIC_VALUES[state.finding.colour])
    metrics.HEALTH_CHECKED.set(health.checked_at)
    metrics.READY.set(0 if health.blocking else 1)
