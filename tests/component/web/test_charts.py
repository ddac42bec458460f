"""The figures of a day and of a week, for who may see them."""

from __future__ import annotations

import time

import pytest

from eslbot.ledger.database import LedgerDown
from tests.component.web.conftest import Page
from tests.support.fake_ledger import ACME, ZENITH, FakeLedger, row


@pytest.fixture
def calls(ledger: FakeLedger) -> float:
    """Of both tenants, and of nobody; their time."""
    now = time.time()
    done = {"ended_at": now, "bot_ended_at": now - 9, "handed_off_at": now - 8, "fault": "none"}
    ledger.put(
        row(1, invited_at=now - 20, answered_at=now - 19.9, first_audio_at=now - 19, **done),
        row(2, ZENITH, invited_at=now - 20, answered_at=now - 15, **{**done, "fault": "bot"}),
        {**row(3, invited_at=now - 20, stage="refused", refusal="no_header"), "workspace_id": None},
        row(4, ZENITH, invited_at=now - 3 * 86400, **done),
    )
    return now


@pytest.mark.parametrize(("span", "points", "step"), [("24h", 96, 900), ("7d", 168, 3600)])
def test_a_span_has_its_points(page: Page, calls: float, span: str, points: int, step: int) -> None:
    told = page.get(f"/api/charts?span={span}", "operator").json
    assert len(told["points"]) == points
    assert [point["at"] for point in told["points"]] == list(range(told["begin"], told["end"], step))
    assert told["begin"] % step == 0
    assert told["end"] - step <= told["now"] < told["end"]


def test_whole_and_by_tenant(page: Page, calls: float) -> None:
    def total(query: str, token: str = "operator") -> tuple[int, float | None, dict[str, int]]:
        told = page.get(f"/api/charts?{query}", token).json["total"]
        return told["calls"], told["success"], told["refused"]

    assert total("") == (2, 0.5, {"no_header": 1})
    assert total("span=7d") == (3, pytest.approx(0.667, abs=0.001), {"no_header": 1})
    assert total("workspace=acme") == total(f"workspace={ACME.upper()}") == (1, 1.0, {})
    assert total("span=7d&workspace=zenith") == (2, 0.5, {})
    assert total("workspace=nobody") == (0, None, {})


def test_a_tenants_token_sees_its_own_figures_only(page: Page, ledger: FakeLedger, calls: float) -> None:
    for query in ("", "workspace=acme", f"workspace={ACME}"):
        told = page.get(f"/api/charts?{query}", "acme")
        assert (told.json["total"]["calls"], told.json["total"]["refused"]) == (1, {})
        assert "no_header" not in told.text
    for query in ("workspace=zenith", f"workspace={ZENITH}", "workspace=", "workspace=nobody"):
        told = page.get(f"/api/charts?{query}", "acme").json
        assert told["total"]["calls"] == (query == "workspace=")
    assert all(question[1] is not None and question[1] <= {ACME} for question in ledger.asked)


def test_figures_in_seconds(page: Page, calls: float) -> None:
    told = page.get("/api/charts?workspace=acme", "operator").json
    (point,) = [point for point in told["points"] if point["calls"]]
    for name, seconds in (("set_up", 0.1), ("first_audio", 0.9), ("hand_off", 1.0)):
        assert point[name]["count"] == 1
        assert point[name]["p50"] == point[name]["p95"] == pytest.approx(seconds, rel=0.07)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("span=1y", "span: expected one of 24h, 7d, got '1y'"),
        ("span=24h&span=7d", "a field stands there twice"),
        ("step=1", "unknown field 'step'; known: span, workspace"),
        ("workspace=" + "x" * 129, "workspace: expected at most 128 printable characters"),
        ("workspace=%00", "workspace: expected at most 128 printable characters"),
    ],
)
def test_a_bad_query(page: Page, ledger: FakeLedger, query: str, problem: str) -> None:
    got = page.get(f"/api/charts?{query}", "operator")
    assert (got.status, got.json["problem"].startswith(problem)) == (400, True), got.json
    assert ledger.asked == []


def test_who_may_not_see_it(page: Page, ledger: FakeLedger) -> None:
    assert page.get("/api/charts").status == 401
    ledger.fails = LedgerDown("gone")
    assert page.get("/api/charts", "operator").json["error"] == "database_down"
