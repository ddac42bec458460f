"""Colours, since when, and who may read what of them."""

from __future__ import annotations

import pytest

from eslbot.health.model import (
    CallInNeed,
    Colour,
    Component,
    Finding,
    Health,
    Need,
    State,
    StateTracker,
    Subject,
)

ACME, ZENITH = "2b37ba17-7b20-4b3e-b138-1161e351d5c5", "11111111-1111-1111-1111-111111111111"
NAMES = {ACME: "acme", ZENITH: "zenith"}
SWITCH = Subject(Component.FREESWITCH)
RED = Finding(Colour.RED, "it is gone at 127.0.0.1:8021", "start it")
GREEN = Finding(Colour.GREEN)


def test_a_colour_is_since_it_changed_and_not_since_its_reason_did() -> None:
    board = StateTracker()
    assert board.update({SWITCH: GREEN}, NAMES, 100.0)[0][0].since == 100.0
    (state,), changed = board.update({SWITCH: RED}, NAMES, 107.0)
    assert (state.since, changed) == (107.0, [state])
    other = Finding(Colour.RED, "it is still gone", "start it")
    (state,), changed = board.update({SWITCH: other}, NAMES, 110.0)
    assert (state.since, state.finding.why, changed) == (107.0, "it is still gone", [])
    (state,), changed = board.update({SWITCH: GREEN}, NAMES, 120.0)
    assert (state.since, changed) == (120.0, [state])


@pytest.mark.parametrize(
    ("colour", "told"),
    [(Colour.GREEN, False), (Colour.UNKNOWN, False), (Colour.AMBER, True), (Colour.RED, True)],
)
def test_at_the_first_round_only_what_is_wrong_is_news(colour: Colour, told: bool) -> None:
    _, changed = StateTracker().update({SWITCH: Finding(colour)}, NAMES, 1.0)
    assert bool(changed) is told


def test_what_is_late_once_is_amber_and_red_at_the_second_look() -> None:
    """A machine at its limit is late by seconds; a FreeSWITCH that hangs stays so."""
    board = StateTracker()
    late = Finding(Colour.RED, "no answer within 2 s", "kill it", perhaps_late=True)
    colours = []
    for finding in (GREEN, late, GREEN, late, late, late, RED, GREEN):
        (state,), _ = board.update({SWITCH: finding}, NAMES, 1.0)
        colours.append(state.finding.colour.value)
    assert colours == ["green", "amber", "green", "amber", "red", "red", "red", "green"]


def test_that_nothing_happens_any_more_is_no_news() -> None:
    board, bot = StateTracker(), Subject(Component.BOT, ACME)
    quiet = Finding(Colour.UNKNOWN, "it had no call in the last ten minutes")
    hangs = Finding(Colour.UNKNOWN, "the look at it hangs", "see the disk")
    told = []
    for finding in (quiet, GREEN, quiet, GREEN, RED, quiet, hangs, GREEN):
        _, changed = board.update({bot: finding}, NAMES, 1.0)
        told.append(len(changed))
    assert told == [0, 0, 0, 0, 1, 1, 0, 1]


def test_a_component_that_goes_away_is_forgotten() -> None:
    board = StateTracker()
    board.update({Subject(Component.BOT, ACME): RED}, NAMES, 1.0)
    board.update({}, NAMES, 2.0)
    (state,), _ = board.update({Subject(Component.BOT, ACME): RED}, NAMES, 3.0)
    assert (state.since, state.workspace) == (3.0, "acme")


def state(component: Component, colour: Colour, workspace_id: str | None = None) -> State:
    finding = Finding(colour, f"{component} why", f"{component} remedy")
    return State(Subject(component, workspace_id), finding, 5.0, NAMES.get(workspace_id or ""))


def call(number: int, workspace_id: str | None) -> CallInNeed:
    return CallInNeed(
        f"call-{number}", Need.HAND_OFF_FAILING, 4.0, "Ameyo answers 401", "mend it", workspace_id, "x", "crt"
    )


@pytest.mark.parametrize("component", Component)
@pytest.mark.parametrize("colour", Colour)
def test_the_service_is_not_ready_while_what_carries_calls_is_red(
    component: Component, colour: Colour
) -> None:
    health = Health(9.0, (state(component, colour),))
    carries = component in (Component.FREESWITCH, Component.WORKERS, Component.RELAYS)
    assert bool(health.blocking) is (carries and colour is Colour.RED)
    assert health.as_json()["ready"] is not (carries and colour is Colour.RED)


def test_the_worst_colour_counts_and_a_call_that_needs_somebody_is_red() -> None:
    green, amber = state(Component.LEDGER, Colour.GREEN), state(Component.RELAYS, Colour.AMBER)
    unknown = state(Component.BOT, Colour.UNKNOWN, ACME)
    assert Health(1.0, (green, unknown)).colour is Colour.GREEN
    assert Health(1.0, (green, amber)).colour is Colour.AMBER
    assert Health(1.0, (green, amber, state(Component.AMEYO, Colour.RED, ACME))).colour is Colour.RED
    assert Health(1.0, (green,), (call(1, ACME),)).colour is Colour.RED


def test_a_tenants_token_sees_its_own_and_of_the_service_the_colours_only() -> None:
    states = (
        state(Component.FREESWITCH, Colour.AMBER),
        state(Component.BOT, Colour.AMBER, ACME),
        state(Component.AMEYO, Colour.RED, ZENITH),
    )
    health = Health(9.0, states, (call(1, ZENITH), call(2, None), call(3, ACME)))
    told = health.as_json(frozenset({ACME}))
    assert [call["call_id"] for call in told["calls"]] == ["call-3"]
    assert told["components"] == [
        {"component": "freeswitch", "colour": "amber", "since": 5.0, "why": "", "remedy": ""},
        {
            "component": "bot",
            "colour": "amber",
            "since": 5.0,
            "why": "bot why",
            "remedy": "bot remedy",
            "workspace_id": ACME,
            "workspace": "acme",
        },
    ]
    assert "zenith" not in str(told) and ZENITH not in str(told)
    # Another tenant's red is not this one's.
    assert health.as_json(frozenset())["colour"] == "amber"
    everything = health.as_json()
    assert (len(everything["components"]), len(everything["calls"]), everything["colour"]) == (3, 3, "red")
