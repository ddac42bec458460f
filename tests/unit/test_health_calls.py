"""Which calls need somebody, and what the calls say of each tenant's bot and Ameyo."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from eslbot.config import load
from eslbot.config.model import Workspace
from eslbot.health.calls import (
    CERTIFICATE_INTERVAL,
    CERTIFICATE_WARNING,
    FAILURES_IN_A_ROW,
    MAX_NEEDS,
    SILENCE_LIMIT,
    WINDOW,
    CallHealth,
)
from eslbot.health.model import CallInNeed, Colour, Component, Finding, Need, Subject
from tests.support.processes import WORKSPACE, tree

NOW = 1_800_000_000.0
BOT, AMEYO = Subject(Component.BOT, WORKSPACE), Subject(Component.AMEYO, WORKSPACE)
TALKS = {"stage": "talking", "answered_at": NOW - 40, "bot_connected_at": NOW - 39}


class House:
    """Rows come in as the ledger's projection tells them."""

    def __init__(self, workspaces: dict[str, Workspace]) -> None:
        self.ends: dict[str, float] = {}
        self.living = CallHealth(workspaces, self._news, lambda: dict(self.ends))
        self.changed: list[dict[str, Any]] = []
        self.ended: list[dict[str, Any]] = []
        self.anew = False

    def _news(self) -> tuple[Iterable[Any], Iterable[Any], bool]:
        news = self.changed, self.ended, self.anew
        self.changed, self.ended, self.anew = [], [], False
        return news

    def put(self, number: int, **values: Any) -> None:
        row = {
            "call_id": f"call-{number}",
            "workspace_id": WORKSPACE,
            "workspace": "acme",
            "crt_object_id": f"crt-{number}",
            "invited_at": NOW - 41,
            "ended_at": None,
            **values,
        }
        (self.changed if row["ended_at"] is None else self.ended).append(row)

    def check(self, now: float = NOW) -> tuple[dict[Subject, Finding], tuple[CallInNeed, ...]]:
        found, needs = self.living.check(now)
        return dict(found), needs

    def needs(self, now: float = NOW) -> list[tuple[str, Need]]:
        return [(call.call_id, call.need) for call in self.check(now)[1]]

    def colour(self, place: Subject, now: float = NOW) -> Colour:
        return self.check(now)[0][place].colour


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    file = tmp_path / "eslbot.toml"
    file.write_text(tomli_w.dumps(tree()))
    return load(file).workspaces[WORKSPACE]


@pytest.fixture
def house(workspace: Workspace) -> House:
    return House({WORKSPACE: workspace})


def hand_off_failing(
    attempts: int = 4, status: int | None = 401, verdict: str = "rejected", **more: Any
) -> dict[str, Any]:
    return {
        "stage": "handing_off",
        "answered_at": NOW - 40,
        "first_audio_at": NOW - 39,
        "bot_ended_at": NOW - 30,
        "notified_at": NOW - 29,
        "outcome": "bot_ended",
        "attempts": attempts,
        "attempt_verdict": verdict,
        "attempt_status": status,
        "attempt_detail": "invalid token",
        **more,
    }


HELD = {**hand_off_failing(1, 200, "accepted"), "stage": "held", "handed_off_at": NOW - 20}


def test_five_customers_that_wait_for_an_ameyo_that_rejects_them_are_told_and_it_is_red(house: House) -> None:
    """What was reported: no call had ended, and the page said `well`."""
    for number in range(5):
        house.put(number, **hand_off_failing(notified_at=NOW - 29 + number))
    found, needs = house.check()
    assert [call.need for call in needs] == [Need.HAND_OFF_FAILING] * 5
    assert needs[0].why == "Ameyo answers 401: invalid token (4 attempts)"
    assert "token" in needs[0].remedy
    assert needs[0].since == NOW - 29
    assert found[AMEYO].colour is Colour.RED
    assert found[AMEYO].why.startswith("5 customers wait for it: Ameyo answers 401")
    assert found[BOT].colour is Colour.GREEN


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (401, "ameyo.token"),
        (404, "ameyo.tenant_host"),
        (503, "call its operator"),
        (None, "cannot be reached"),
        (422, "refuses what it is sent"),
    ],
)
def test_the_remedy_is_of_the_status(house: House, status: int | None, remedy: str) -> None:
    house.put(1, **hand_off_failing(status=status, verdict="failed"))
    ((call),) = house.check()[1]
    assert remedy in call.remedy


def test_one_failure_a_moment_ago_is_amber_and_an_acceptance_ends_it(house: House) -> None:
    house.put(1, **hand_off_failing(1, 503, "failed", notified_at=NOW - 1))
    assert (house.colour(AMEYO), house.needs()) == (Colour.AMBER, [("call-1", Need.HAND_OFF_FAILING)])
    assert house.colour(AMEYO, NOW + 5) is Colour.RED
    house.put(1, **HELD)
    assert (house.colour(AMEYO), house.needs()) == (Colour.GREEN, [])


@pytest.mark.parametrize(
    ("values", "need"),
    [
        (HELD, None),
        ({**HELD, "byes_overdue": 1}, Need.BYE_OVERDUE),
        ({**hand_off_failing(verdict="interrupted")}, None),
        ({**TALKS, "first_audio_at": NOW - 38}, None),
        (TALKS, Need.BOT_SILENT),
        ({**TALKS, "bot_connected_at": NOW - SILENCE_LIMIT + 1}, None),
        ({"stage": "connecting", "answered_at": NOW - SILENCE_LIMIT - 1}, Need.BOT_SILENT),
        ({"stage": "admitted"}, None),
        ({"stage": "ended", "answered_at": NOW - 40}, None),
        ({**TALKS, "workspace_id": None, "workspace": None, "unverified_at": NOW - 3}, Need.NOT_VERIFIED),
    ],
)
def test_what_needs_somebody(house: House, values: dict[str, Any], need: Need | None) -> None:
    house.put(1, **values)
    assert house.needs() == ([] if need is None else [("call-1", need)])
    house.put(1, **values, ended_at=NOW)
    assert house.needs(NOW + 1) == []  # it has ended


def test_a_bot_that_may_wait_for_the_caller_has_more_patience(workspace: Workspace) -> None:
    patient = House({WORKSPACE: replace(workspace, bot=replace(workspace.bot, first_audio_timeout=0.0))})
    patient.put(1, **TALKS)
    assert patient.needs(NOW - 20) == []
    assert patient.needs(NOW) == [("call-1", Need.BOT_SILENT)]


def test_the_most_urgent_come_first_and_not_any_number(house: House) -> None:
    for number in range(MAX_NEEDS):
        house.put(number, **TALKS)
    house.put(1000, **HELD, byes_overdue=2)
    house.put(1001, **hand_off_failing())
    house.put(1002, **TALKS, unverified_at=NOW)
    needs = house.needs()
    assert needs[:4] == [
        ("call-1002", Need.NOT_VERIFIED),
        ("call-1001", Need.HAND_OFF_FAILING),
        ("call-1000", Need.BYE_OVERDUE),
        ("call-0", Need.BOT_SILENT),
    ]
    assert len(needs) == MAX_NEEDS


def test_all_calls_anew_are_all_there_are(house: House) -> None:
    house.put(1, **hand_off_failing())
    assert house.needs() == [("call-1", Need.HAND_OFF_FAILING)]
    house.put(2, **hand_off_failing())
    house.anew = True
    assert house.needs() == [("call-2", Need.HAND_OFF_FAILING)]


def over(outcome: str, at: float = NOW, **more: Any) -> dict[str, Any]:
    """A call that is over, whose customer an agent has."""
    return {"outcome": outcome, "bot_ended_at": at - 1, "handed_off_at": at, "ended_at": at, **more}


GOOD = {"first_audio_at": NOW - 5}


@pytest.mark.parametrize(
    ("outcomes", "colour"),
    [
        ([], Colour.UNKNOWN),
        (["bot_ended"] * 3, Colour.GREEN),
        (["caller_hangup"], Colour.GREEN),
        (["bot_unreachable"], Colour.RED),
        (["bot_ended"] * 9 + ["bot_failed"], Colour.AMBER),
        (["bot_ended"] * 9 + ["bot_silent"] * FAILURES_IN_A_ROW, Colour.RED),
        (["bot_failed"] + ["bot_ended"] * 4, Colour.AMBER),
        (["bot_failed"] + ["bot_ended"] * 20, Colour.GREEN),
        (["bot_failed"] * 6 + ["bot_ended"], Colour.AMBER),
    ],
)
def test_a_bots_colour(house: House, outcomes: list[str], colour: Colour) -> None:
    for number, outcome in enumerate(outcomes):
        good = not outcome.startswith("bot_") or outcome == "bot_ended"
        at = NOW - 100 + number
        house.put(
            number, **over(outcome, at, reason="no route", **({"first_audio_at": at - 1} if good else {}))
        )
    found = house.check()[0][BOT]
    assert found.colour is colour
    if colour in (Colour.RED, Colour.AMBER):
        assert "no route" in found.why
        assert found.remedy
    assert house.colour(BOT, NOW + WINDOW) is Colour.UNKNOWN  # nothing is known of now


def test_a_bot_fails_also_in_calls_that_still_live(house: House) -> None:
    for number in range(3):
        house.put(number, **hand_off_failing(first_audio_at=None, outcome="bot_unreachable"))
    assert house.colour(BOT) is Colour.RED


def test_customers_that_left_before_ameyo_took_them(house: House) -> None:
    left = {"ended_at": NOW - 5, "handed_off_at": None}
    house.put(1, **over("bot_ended", NOW - 50))
    house.put(2, **{**hand_off_failing(), **left})
    found = house.check()[0][AMEYO]
    assert (found.colour, found.why) == (
        Colour.AMBER,
        "1 of 2 customers left before it accepted: Ameyo answers 401: invalid token",
    )
    for number in range(3, 2 + FAILURES_IN_A_ROW):
        house.put(number, **{**hand_off_failing(), **left})
    assert house.colour(AMEYO) is Colour.RED


def test_a_bye_that_is_overdue_is_ameyos(house: House) -> None:
    house.put(1, **HELD, byes_overdue=1)
    found = house.check()[0][AMEYO]
    assert (found.colour, found.why) == (Colour.RED, "1 customer waits since it has accepted: no BYE comes")


def test_a_certificate_near_its_end_is_amber_where_nothing_worse_is(house: House) -> None:
    house.put(1, **HELD)
    house.ends = {"acme": NOW + CERTIFICATE_WARNING + CERTIFICATE_INTERVAL, "another": NOW}
    assert house.colour(AMEYO) is Colour.GREEN
    house.ends = {"acme": NOW + 11.5 * 86400}
    assert house.colour(AMEYO, NOW + 1) is Colour.GREEN  # it is looked at once a minute
    found = house.check(NOW + CERTIFICATE_INTERVAL)[0][AMEYO]
    assert (found.colour, found.why) == (Colour.AMBER, "its certificate ends in 11 days")
    assert found.remedy
    house.ends = {"acme": NOW - 5}
    assert house.check(NOW + 2 * CERTIFICATE_INTERVAL)[0][AMEYO].why == "its certificate has ended"
    house.put(2, **hand_off_failing())
    assert house.colour(AMEYO, NOW + 2 * CERTIFICATE_INTERVAL) is Colour.RED


def test_another_tenants_calls_and_those_of_nobody_say_nothing_of_this_one(house: House) -> None:
    house.put(1, **hand_off_failing(), workspace_id="somebody", workspace="else")
    house.put(2, **over("bot_failed"), workspace_id=None)
    found, needs = house.check()
    assert set(found) == {BOT, AMEYO}
    assert {finding.colour for finding in found.values()} == {Colour.UNKNOWN}
    assert len(needs) == 1  # but it needs somebody all the same


def test_an_answer_of_any_length_is_cut(house: House) -> None:
    house.put(1, **hand_off_failing(attempt_detail="x" * 5000))
    ((call),) = house.check()[1]
    assert len(call.why) < 300
