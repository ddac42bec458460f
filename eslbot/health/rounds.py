"""The rounds: every two seconds all probes at one time, each in its own thread, and what comes of them.

A probe that hangs delays none of the others, nor the round: its components are then unknown until it comes
back, and it is not asked again before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import structlog

from eslbot.health.model import (
    NUMBERS,
    Board,
    CallInNeed,
    Colour,
    Component,
    Finding,
    Health,
    Place,
    State,
)
from eslbot.health.probes import PATIENCE, Probe
from eslbot.telemetry import metrics

log = structlog.get_logger()

#: Seconds between the beginnings of two rounds, and those that a round waits for its probes.
ROUND, DUE = 2.0, PATIENCE + 0.5
#: Seconds without a round after which what is known does not count any more.
STALE = 10.0


class Calls(Protocol):
    """What is known of the calls (:class:`eslbot.health.living.Living`)."""

    def look(self, now: float) -> tuple[Mapping[Place, Finding], tuple[CallInNeed, ...]]:
        """Of each tenant's bot and Ameyo, and the calls that need somebody. ``now`` in epoch seconds."""


class _Asked(threading.Thread):
    """One probe's thread."""

    def __init__(self, components: Iterable[Component], probe: Probe) -> None:
        super().__init__(name="health", daemon=True)  # one that hangs must not keep the process from ending
        self.components = tuple(components)
        self._probe = probe
        self._wanted = threading.Event()
        self.done = threading.Event()
        self.done.set()
        self._asked_at = 0.0
        self._found: Mapping[Component, Finding] = {}
        self.start()

    def ask(self) -> None:
        """Look now, unless it still looks."""
        if self.done.is_set():
            self._asked_at = time.monotonic()
            self.done.clear()
            self._wanted.set()

    def found(self) -> Mapping[Component, Finding]:
        """What it has found, of all its components; without it, where it has not come back."""
        if self.done.is_set():
            missing = Finding(
                Colour.UNKNOWN, "eslbot's own look at it failed", "see health_probe_failed in the log"
            )
            return {component: self._found.get(component, missing) for component in self.components}
        late = Finding(
            Colour.UNKNOWN,
            f"the look at it hangs since {time.monotonic() - self._asked_at:.0f} s",
            "a disk or a host that does not answer? see eslbot doctor",
        )
        return dict.fromkeys(self.components, late)

    def run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            try:
                self._found = self._probe()
            except Exception:  # the others are looked at all the same
                self._found = {}
                log.exception("health_probe_failed", components=[str(one) for one in self.components])
            self.done.set()


class Rounds:
    """Rounds until the process ends.

    ``probes``: what tells of which components. ``names``: the tenants', by id. ``calls``: what is known of
    the living ones, None where nothing is recorded.
    """

    def __init__(
        self,
        probes: Mapping[tuple[Component, ...], Probe],
        names: Mapping[str, str],
        calls: Calls | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._names, self._calls, self._clock = dict(names), calls, clock
        self._asked = [_Asked(components, probe) for components, probe in probes.items()]
        self._board = Board()
        self._ended = threading.Event()
        self._health: Health | None = None
        self._health_at = 0.0

    @property
    def health(self) -> Health | None:
        """What the last round has found; None before the first, and where there has been none for long."""
        health, at = self._health, self._health_at
        return health if time.monotonic() - at < STALE else None

    def run(self) -> None:
        """Until :meth:`stop`. Raises nothing."""
        while not self._ended.is_set():
            began = time.monotonic()
            try:
                self.look()
            except Exception:  # the next round may come through; until then what is known grows stale
                log.exception("health_round_failed")
            self._ended.wait(max(0.1, ROUND - (time.monotonic() - began)))

    def stop(self) -> None:
        """No further round."""
        self._ended.set()

    def look(self) -> Health:
        """One round."""
        for asked in self._asked:
            asked.ask()
        until = time.monotonic() + DUE
        for asked in self._asked:
            asked.done.wait(max(0.0, until - time.monotonic()))
        findings: dict[Place, Finding] = {}
        for asked in self._asked:
            findings |= {Place(component): found for component, found in asked.found().items()}
        now = self._clock()
        calls: tuple[CallInNeed, ...] = ()
        if self._calls is not None:
            of_tenants, calls = self._calls.look(now)
            findings |= of_tenants
        states, changed = self._board.settle(findings, self._names, now)
        for state in changed:
            _tell(state)
        health = Health(now, states, calls)
        _count(health)
        self._health, self._health_at = health, time.monotonic()
        return health


def _tell(state: State) -> None:
    """A line in the log for each change: what the page says, it says, too."""
    finding = state.finding
    about = {"component": state.place.component.value, "workspace": state.workspace}
    if finding.colour is Colour.RED:
        log.error("health_red", **about, why=finding.why, remedy=finding.remedy)
    elif finding.colour is Colour.AMBER:
        log.warning("health_amber", **about, why=finding.why, remedy=finding.remedy)
    elif finding.colour is Colour.UNKNOWN:
        log.warning("health_unknown", **about, why=finding.why, remedy=finding.remedy)
    else:
        log.info("health_green", **about)


def _count(health: Health) -> None:
    for state in health.states:
        child = metrics.HEALTH.labels(state.place.component.value, state.workspace or "")
        child.set(NUMBERS[state.finding.colour])
    metrics.HEALTH_CHECKED.set(health.checked_at)
    metrics.READY.set(0 if health.in_the_way else 1)
