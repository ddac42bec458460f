"""The rounds: probes beside each other, one that hangs, one that fails, and what is said of it all."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import structlog

from eslbot.health import monitor as rounds_module
from eslbot.health.model import CallInNeed, Colour, Component, Finding, Need, State, Subject
from eslbot.health.monitor import ROUND_TIMEOUT, STALE_AFTER, HealthMonitor
from eslbot.health.probes import Findings
from eslbot.telemetry import metrics

ACME = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"
GREEN = Finding(Colour.GREEN)
RED = Finding(Colour.RED, "it is gone", "start it")
CALL = CallInNeed("call-1", Need.BYE_OVERDUE, 1.0, "no BYE", "ask")


class Switch:
    """A probe that a test holds up."""

    def __init__(self) -> None:
        self.findings: Findings = {Component.FREESWITCH: GREEN, Component.EVENT_SOCKET: GREEN}
        self.go = threading.Event()
        self.go.set()
        self.looks = 0
        self.error: Exception | None = None

    def __call__(self) -> Findings:
        self.looks += 1
        self.go.wait(30)
        if self.error is not None:
            raise self.error
        return self.findings


class Calls:
    def check(self, now: float) -> tuple[Mapping[Subject, Finding], tuple[CallInNeed, ...]]:
        return {Subject(Component.AMEYO, ACME): RED}, (CALL,)


@pytest.fixture
def switch() -> Iterator[Switch]:
    switch = Switch()
    yield switch
    switch.go.set()


def create_monitor(switch: Switch, relays: Findings | None = None, calls: Any = None) -> HealthMonitor:
    probes = {
        (Component.FREESWITCH, Component.EVENT_SOCKET): switch,
        (Component.RELAYS,): lambda: relays or {Component.RELAYS: GREEN},
    }
    return HealthMonitor(probes, {ACME: "acme"}, calls, clock=lambda: 1000.0)


def colours(states: tuple[State, ...]) -> dict[str, str]:
    return {state.subject.component.value: state.finding.colour.value for state in states}


def test_a_round(switch: Switch) -> None:
    health = create_monitor(switch, calls=Calls()).check()
    assert colours(health.states) == {
        "freeswitch": "green",
        "event_socket": "green",
        "relays": "green",
        "ameyo": "red",
    }
    assert (health.checked_at, health.calls) == (1000.0, (CALL,))
    assert [state.workspace for state in health.states] == [None, None, None, "acme"]


def test_nothing_is_said_before_the_first_round_and_when_there_was_none_for_long(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = create_monitor(switch)
    assert rounds.health is None
    rounds.check()
    assert rounds.health is not None
    later = time.monotonic() + STALE_AFTER
    monkeypatch.setattr(rounds_module.time, "monotonic", lambda: later)
    assert rounds.health is None


@pytest.mark.timed
@pytest.mark.slow
def test_one_that_hangs_delays_none_of_the_others_and_is_not_asked_again(switch: Switch) -> None:
    switch.go.clear()
    rounds = create_monitor(switch, {Component.RELAYS: RED})
    began = time.monotonic()
    health = rounds.check()
    assert ROUND_TIMEOUT <= time.monotonic() - began < ROUND_TIMEOUT + 1.5
    assert colours(health.states) == {"freeswitch": "unknown", "event_socket": "unknown", "relays": "red"}
    assert "hangs since" in health.states[0].finding.why
    assert health.blocking
    rounds.check()
    assert switch.looks == 1
    switch.go.set()
    assert colours(rounds.check().states)["freeswitch"] == "green"


def test_one_that_fails_is_unknown_and_told_and_works_again(switch: Switch) -> None:
    rounds = create_monitor(switch)
    switch.error = RuntimeError("a fault of ours")
    with structlog.testing.capture_logs() as lines:
        assert colours(rounds.check().states)["freeswitch"] == "unknown"
    assert [line["components"] for line in lines if line["event"] == "health_probe_failed"] == [
        ["freeswitch", "event_socket"]
    ]
    switch.error = None
    assert colours(rounds.check().states)["freeswitch"] == "green"


def test_a_component_that_a_probe_forgot_is_unknown(switch: Switch) -> None:
    switch.findings = {Component.FREESWITCH: GREEN}
    assert colours(create_monitor(switch).check().states)["event_socket"] == "unknown"


def test_each_change_is_a_line_with_its_remedy_and_only_a_change(switch: Switch) -> None:
    rounds = create_monitor(switch)
    with structlog.testing.capture_logs() as lines:
        rounds.check()
        switch.findings = {Component.FREESWITCH: RED, Component.EVENT_SOCKET: GREEN}
        rounds.check()
        rounds.check()
        switch.findings = {Component.FREESWITCH: GREEN, Component.EVENT_SOCKET: GREEN}
        rounds.check()
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("health_red", "error"),
        ("health_green", "info"),
    ]
    assert (lines[0]["component"], lines[0]["why"], lines[0]["remedy"]) == (
        "freeswitch",
        "it is gone",
        "start it",
    )


def figure(component: str, workspace: str = "") -> float:
    return float(metrics.HEALTH.labels(component, workspace)._value.get())


def test_the_figures_say_it_too(switch: Switch) -> None:
    switch.findings = {Component.FREESWITCH: RED, Component.EVENT_SOCKET: Finding(Colour.UNKNOWN, "?")}
    rounds = create_monitor(switch, {Component.RELAYS: Finding(Colour.AMBER, "one")}, Calls())
    rounds.check()
    found = [figure("freeswitch"), figure("event_socket"), figure("relays"), figure("ameyo", "acme")]
    assert found == [0, -1, 1, 0]
    assert metrics.READY._value.get() == 0
    assert metrics.HEALTH_CHECKED._value.get() == 1000.0
    switch.findings = {Component.FREESWITCH: GREEN, Component.EVENT_SOCKET: GREEN}
    rounds.check()
    assert (figure("freeswitch"), metrics.READY._value.get()) == (2, 1)


def test_rounds_go_on_until_they_are_stopped_whatever_happens(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds_module, "INTERVAL", 0.01)
    seen = threading.Semaphore(0)

    class Failing:
        fails = True

        def check(self, now: float) -> tuple[Mapping[Subject, Finding], tuple[CallInNeed, ...]]:
            seen.release()
            if self.fails:
                self.fails = False
                raise RuntimeError("a fault of ours")
            return {}, ()

    rounds = create_monitor(switch, calls=Failing())
    thread = threading.Thread(target=rounds.run)
    thread.start()
    for _ in range(3):
        assert seen.acquire(timeout=10)
    assert rounds.health is not None
    rounds.stop()
    thread.join(10)
    assert not thread.is_alive()
