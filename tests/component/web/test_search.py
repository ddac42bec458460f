"""Searching and its files: only one's own tenants, no number one may not see, and nothing without end."""

from __future__ import annotations

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

import pytest

from eslbot.ledger.database import LedgerDown
from eslbot.ledger.filters import Filter
from eslbot.ledger.queries import Place
from eslbot.ledger.query_service import LedgerBusy
from eslbot.web import export
from eslbot.web.export import COLUMNS, Format, file_name
from tests.component.web.conftest import Page
from tests.support.fake_ledger import ACME, ZENITH, FakeLedger, row
from tests.support.page import TOKENS

NOW = 1_800_000_000.0
FILES = ["/api/calls.csv", "/api/calls.jsonl"]
OPERATOR = {"HTTP_AUTHORIZATION": "Bearer operator-token-0123456789"}


def fill(ledger: FakeLedger, count: int, workspace: str = ACME, **values: Any) -> list[str]:
    rows = [row(number, workspace, **{"invited_at": NOW - number // 3, **values}) for number in range(count)]
    ledger.put(*rows)
    return [one["call_id"] for one in sorted(rows, key=lambda one: (one["invited_at"], one["call_id"]))[::-1]]


def ids(lines: str) -> list[str]:
    return [json.loads(line)["call_id"] for line in lines.splitlines()]


def test_pages_of_a_search_are_whole(page: Page, ledger: FakeLedger) -> None:
    expected = fill(ledger, 25)
    found: list[str] = []
    before = ""
    for count in (10, 10, 5):
        told = page.get(f"/api/calls?limit=10&prefix=d444&before={before}", "operator").json
        assert len(told["calls"]) == count
        found += [one["call_id"] for one in told["calls"]]
        before = told["next"]
    assert (found, before) == (expected, None)
    assert page.get("/api/calls?limit=25", "operator").json["next"] is not None  # there might be more


def test_a_masked_token_finds_no_number_by_how_it_begins(page: Page, ledger: FakeLedger) -> None:
    one = row(4711)
    ledger.put(one)

    def found(prefix: str, token: str) -> int:
        text = page.get(f"/api/calls?prefix={prefix}", token).text
        assert [*page.get(f"/api/calls.jsonl?prefix={prefix}", token).text.splitlines()] == [
            json.dumps(call) for call in json.loads(text)["calls"]
        ]
        return len(json.loads(text)["calls"])

    for number in (one["did"], one["caller"]):
        for length in range(1, len(number)):
            assert (found(number[:length], "seer"), found(number[:length], "operator")) == (1, 0)
        assert (found(number, "seer"), found(number, "operator")) == (1, 1)
        assert found(number + "0", "seer") == 0
    for name in ("did", "caller"):
        assert page.get(f"/api/calls?{name}={one[name][:-1]}", "operator").json["calls"] == []
    assert found(one["crt_object_id"][:6], "operator") == found(one["call_id"][:6], "operator") == 1


@pytest.mark.parametrize("path", ["/api/calls", *FILES])
@pytest.mark.parametrize("obedient", [True, False])
def test_a_tenants_token_gets_its_own_calls_only(
    page: Page, ledger: FakeLedger, path: str, obedient: bool
) -> None:
    ledger.obedient = obedient
    ledger.put(row(1), row(2, ZENITH))
    for query in (
        "",
        "?prefix=d444",
        f"?prefix={row(2)['call_id']}",
        "?workspace=zenith",
        f"?workspace={ZENITH}",
    ):
        text = page.get(f"{path}{query}", "acme").text
        for word in ("zenith", ZENITH, row(2)["call_id"], row(2)["did"]):
            assert word not in text, (query, word)
    assert row(1)["call_id"] in page.get(path, "acme").text
    assert all(question[1].workspaces == {ACME} for question in ledger.asked)


def test_a_tenant_is_looked_for_by_its_id(page: Page, ledger: FakeLedger) -> None:
    for name, wanted in (("acme", ACME), (ACME, ACME), ("gone", "gone")):
        page.get(f"/api/calls?workspace={name}", "operator")
        assert ledger.asked[-1][1].workspace == wanted


def test_every_error_of_a_query_is_told_by_its_field(page: Page, ledger: FakeLedger) -> None:
    got = page.get("/api/calls?since=soon&outcome=great&prefix=ok", "operator")
    assert got.json["fields"] == {
        "since": "expected a time as 2h (ago), 2026-11-23T10:15Z or epoch seconds, got 'soon'",
        "outcome": pytest.approx(got.json["fields"]["outcome"]),
    }
    assert "since: expected" in got.json["problem"]
    assert "outcome: expected one of" in got.json["problem"]
    assert "fields" not in page.get("/api/calls?nothing=1", "operator").json
    assert ledger.asked == []


# -- files --------------------------------------------------------------------------------------------------


def test_a_file_is_what_is_seen(page: Page, ledger: FakeLedger) -> None:
    expected = fill(ledger, 1203, reason="call +919876543210 back")
    got = page.get("/api/calls.jsonl?prefix=d444", "operator")
    assert (got.status, got.headers["Content-Type"]) == (200, "application/jsonl; charset=utf-8")
    assert ids(got.text) == expected
    listed = page.get("/api/calls?limit=200", "operator").json["calls"]
    assert [json.loads(line) for line in got.text.splitlines()[:200]] == listed
    got = page.get("/api/calls.csv", "operator")
    assert got.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(got.text, newline="")))
    assert [one["call_id"] for one in rows] == expected
    assert tuple(rows[0]) == COLUMNS
    assert (rows[0]["did"], rows[0]["invited_at"]) == ("0091••••••••02", "2027-01-15T08:00:00.000Z")
    assert "919876543210" not in got.text
    assert "919876543210" in page.get("/api/calls.csv", "seer").text


def test_nothing_found_is_an_empty_file(page: Page, ledger: FakeLedger) -> None:
    assert page.get("/api/calls.jsonl", "operator").body == b""
    assert page.get("/api/calls.csv", "operator").text == ",".join(COLUMNS) + "\r\n"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\t=1", "＝1", ' =HYPERLINK("http://x","y")'])
def test_no_cell_is_a_formula(page: Page, ledger: FakeLedger, text: str) -> None:
    ledger.put(row(1, caller=text, crt_object_id=text, reason=text, workspace=text))
    (one,) = csv.DictReader(io.StringIO(page.get("/api/calls.csv", "seer").text, newline=""))
    assert [one[name] for name in ("caller", "crt_object_id", "reason", "workspace")] == ["'" + text] * 4
    assert (
        json.loads(page.get("/api/calls.jsonl", "seer").text)["caller"] == text
    )  # no spreadsheet reads that


def test_a_files_name_has_its_range() -> None:
    assert file_name(Filter(), Format.CSV, NOW) == "eslbot-calls-beginning-20270115T0800Z.csv"
    wanted = Filter(since=NOW - 86400, until=NOW + 60)
    assert file_name(wanted, Format.JSON_LINES, NOW) == "eslbot-calls-20270114T0800Z-20270115T0800Z.jsonl"
    wanted = Filter(since=NOW - 86400, until=NOW - 3600)
    assert file_name(wanted, Format.CSV, NOW) == "eslbot-calls-20270114T0800Z-20270115T0700Z.csv"


def test_a_file_is_saved_and_not_shown(page: Page, ledger: FakeLedger) -> None:
    headers = page.get("/api/calls.csv?since=2026-11-23", "operator").headers
    assert headers["Content-Disposition"].startswith('attachment; filename="eslbot-calls-20261123T0000Z-')
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "query", ["limit=5", "prefix=%00", "since=x", "before=1", "nothing=1", "prefix=a&prefix=b"]
)
@pytest.mark.parametrize("path", FILES)
def test_a_bad_query_is_refused_before_anything_is_sent(
    page: Page, ledger: FakeLedger, path: str, query: str
) -> None:
    got = page.get(f"{path}?{query}", "operator")
    assert (got.status, got.json["error"]) == (400, "bad_request")
    assert ledger.asked == []


@pytest.mark.parametrize("path", FILES)
def test_nobody_gets_one_without_a_token(page: Page, ledger: FakeLedger, path: str) -> None:
    assert page.get(path).status == 401
    assert page.get(path, HTTP_AUTHORIZATION="Bearer wrong-token-0123456789").status == 401
    assert ledger.asked == []


@pytest.mark.parametrize(("kind", "path"), [("csv", FILES[0]), ("jsonl", FILES[1])])
def test_an_export_is_bounded_and_says_where_to_go_on(
    page: Page, ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch, kind: str, path: str
) -> None:
    expected = fill(ledger, 1203)
    monkeypatch.setattr(export, "MAX_CALLS", 1000)
    *lines, last = page.get(path, "operator").text.splitlines()
    if kind == "jsonl":
        assert json.loads(last)["not_whole"] == "an export has at most 1000 calls"
        before = json.loads(last)["before"]
    else:
        assert last.startswith('"NOT WHOLE: an export has at most 1000 calls; go on with before=')
        before = last.rpartition("before=")[2].strip('"')
        lines = lines[1:]
    assert len(lines) == 1000
    rest = page.get(f"/api/calls.jsonl?before={before}", "operator").text
    assert ids(rest) == expected[1000:]


def test_an_export_has_its_time(page: Page, ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(ledger, 1203)
    monkeypatch.setattr(export, "MAX_SECONDS", 0.0)
    *lines, last = page.get("/api/calls.jsonl", "operator").text.splitlines()
    assert (len(lines), json.loads(last)["not_whole"]) == (500, "an export has at most 0 s")


def test_a_ledger_that_goes_away_meanwhile_is_told(page: Page, ledger: FakeLedger) -> None:
    fill(ledger, 1203)
    ledger.fails = LedgerDown("gone")
    assert page.get("/api/calls.csv", "operator").status == 503
    ledger.fails = None
    got, parts = page.open("/api/calls.jsonl", **OPERATOR)
    assert got.status == 200
    next(parts)
    ledger.fails = LedgerBusy("busy")
    (last,) = parts.all().splitlines()
    assert json.loads(last)["not_whole"] == "the ledger does not answer"


def test_a_browser_that_has_gone_is_asked_for_no_more(page: Page, ledger: FakeLedger) -> None:
    fill(ledger, 1203)
    gone: list[bool] = []
    _, parts = page.open("/api/calls.csv", **OPERATOR, **{"waitress.client_disconnected": lambda: bool(gone)})
    next(parts)
    gone.append(True)
    parts.all()
    assert len(ledger.asked) <= 2


def test_one_export_of_a_session_at_a_time_and_a_few_at_all(page: Page, ledger: FakeLedger) -> None:
    fill(ledger, 3)
    _, first = page.open("/api/calls.csv", **OPERATOR)
    again = page.get("/api/calls.jsonl", "operator")
    assert (again.status, again.json["error"], again.headers["Retry-After"]) == (
        429,
        "too_many_exports",
        "10",
    )
    assert page.get("/api/calls.csv", "seer").status == 200  # another session
    others = [
        page.open("/api/calls.csv", HTTP_AUTHORIZATION=f"Bearer {TOKENS[name]}")
        for name in ("acme", "hearer", "zenith-hearer")
    ]
    assert [got.status for got, _ in others] == [200] * (export.MAX_EXPORTS - 1)
    assert page.get("/api/calls.csv", "seer").status == 429
    for parts in (first, *(parts for _, parts in others)):
        parts.close()  # as the server does, also where it has not begun
    for _ in range(3):
        assert page.get("/api/calls.csv", "operator").status == 200
        assert page.get("/api/calls.csv?nothing=1", "operator").status == 400
        ledger.fails = LedgerDown("gone")
        assert page.get("/api/calls.csv", "operator").status == 503
        ledger.fails = None


def test_without_a_ledger(journal: Path) -> None:
    from tests.component.web.conftest import make_page
    from tests.support.page import page_tree

    tree = page_tree(journal)
    del tree["ledger"]
    page = make_page(tree, None)
    for path in ("/api/calls", *FILES, "/api/charts"):
        assert page.get(path, "operator").json["error"] == "no_ledger"


def test_a_place_goes_there_and_back() -> None:
    for at in (NOW, time.time(), 1234567890.1234567):
        text = Place(at, "a-1").text
        told, _, call_id = text.partition(",")
        assert Place(float(told), call_id) == Place(at, "a-1")
