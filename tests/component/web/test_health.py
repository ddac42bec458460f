"""`/readyz` and `/api/health`: what the rounds have found, to who may know it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from eslbot.health.model import CallInNeed, Colour, Component, Finding, Health, Need, State, Subject
from tests.component.web.conftest import Page
from tests.support.fake_ledger import ACME, ZENITH

NAMES = {ACME: "acme", ZENITH: "zenith"}


def state(component: Component, colour: Colour, workspace_id: str | None = None) -> State:
    finding = Finding(colour, f"{component} at 127.0.0.1:8021", f"mend {component}")
    return State(Subject(component, workspace_id), finding, 1000.0, NAMES.get(workspace_id or ""))


def call(workspace_id: str) -> CallInNeed:
    return CallInNeed(
        f"call-of-{NAMES[workspace_id]}",
        Need.HAND_OFF_FAILING,
        990.0,
        "Ameyo answers 401: no 00919990152080 here (4 attempts)",
        "put the right token",
        workspace_id,
        NAMES[workspace_id],
        "crt-1",
        "handing_off",
    )


def health(*states: State, calls: tuple[CallInNeed, ...] = ()) -> Health:
    return Health(time.time(), states, calls)


def test_it_is_not_ready_before_the_first_look(page: Page) -> None:
    got = page.get("/readyz")
    assert (got.status, got.json["status"]) == (503, "not known")
    got = page.get("/api/health", "operator")
    assert (got.status, got.json["error"]) == (503, "health_not_known")
    assert got.json["remedy"]


@pytest.mark.parametrize("component", Component)
def test_it_is_not_ready_while_what_carries_calls_is_red_and_says_what_to_do(
    page: Page, component: Component
) -> None:
    page.health.found = health(state(component, Colour.RED))
    got = page.get("/readyz")
    if component in (Component.FREESWITCH, Component.WORKERS, Component.RELAYS):
        assert (got.status, got.json["status"]) == (503, "not ready")
        (part,) = got.json["parts"]
        assert (part["component"], part["remedy"]) == (component, f"mend {component}")
    else:
        assert (got.status, got.json) == (200, {"status": "ready"})


def test_calls_that_need_somebody_do_not_make_it_unready(page: Page) -> None:
    page.health.found = health(state(Component.FREESWITCH, Colour.AMBER), calls=(call(ACME),))
    assert page.get("/readyz").status == 200


def everything() -> Health:
    return health(
        state(Component.FREESWITCH, Colour.AMBER),
        state(Component.BOT, Colour.GREEN, ACME),
        state(Component.AMEYO, Colour.RED, ZENITH),
        calls=(call(ZENITH), call(ACME)),
    )


def test_an_operator_reads_all_of_it(page: Page) -> None:
    page.health.found = everything()
    got: Any = page.get("/api/health", "operator").json
    assert got["colour"] == "red"
    assert got["ready"] is True
    assert abs(got["now"] - got["checked_at"]) < 60
    assert [one["component"] for one in got["components"]] == ["freeswitch", "bot", "ameyo"]
    assert got["components"][0]["why"] == "freeswitch at 127.0.0.1:8021"
    assert [one["call_id"] for one in got["calls"]] == ["call-of-zenith", "call-of-acme"]
    assert "0091••••••••80" in got["calls"][0]["why"]  # an answer of Ameyo's may quote a number
    assert "00919990152080" in page.get("/api/health", "seer").json["calls"][0]["why"]


def test_a_tenants_token_reads_its_own_and_the_services_colours(page: Page) -> None:
    page.health.found = everything()
    got = page.get("/api/health", "acme")
    assert [one["call_id"] for one in got.json["calls"]] == ["call-of-acme"]
    assert [(one["component"], one["colour"]) for one in got.json["components"]] == [
        ("freeswitch", "amber"),
        ("bot", "green"),
    ]
    assert "zenith" not in got.text
    assert "127.0.0.1:8021" not in got.json["components"][0]["why"]


def test_nobody_else_reads_anything(page: Page) -> None:
    page.health.found = everything()
    assert page.get("/api/health").status == 401
    assert page.post("/api/health", b"").status == 405
    assert page.get("/api/health?all=true", "operator").status == 400
