"""What the page is told: within rights, masked, and clearly when there is nothing to tell."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from eslbot.ledger import projection
from eslbot.ledger.database import LedgerDown
from eslbot.ledger.filters import Filter
from eslbot.ledger.queries import Place
from eslbot.ledger.query_service import LedgerBusy
from eslbot.web import live
from eslbot.web.sessions import Viewer
from eslbot.web.visibility import masked_for, may_see
from tests.component.web.conftest import Page, make_page
from tests.support.calls import rich_call, tenants
from tests.support.fake_ledger import ACME, ZENITH, FakeLedger, row
from tests.support.page import page_tree, recoveries

FOREIGN = row(9, ZENITH, invited_at=time.time() - 5)
OWN = row(1)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVENT_INTERVAL", 0.0)
    monkeypatch.setattr(live, "POLL_INTERVAL", 0.05)


@pytest.fixture(params=[True, False], ids=["ledger", "forgetful ledger"])
def tenant_page(request: pytest.FixtureRequest, ledger: FakeLedger, page: Page) -> Page:
    """Two tenants' calls, over a ledger that looks at the rights or does not."""
    ledger.obedient = request.param
    ledger.put(OWN, FOREIGN)
    ledger.rows_of_tenants = tenants(time.time())
    return page


def events(parts: Iterator[bytes], count: int) -> list[tuple[str, Any]]:
    """The next events of a stream; signs of life, which come each time it looks, are skipped."""
    found: list[tuple[str, Any]] = []
    text = ""
    deadline = time.monotonic() + 5
    while len(found) < count:
        assert time.monotonic() < deadline
        text += next(parts).decode()
        *whole, text = text.split("\n\n")
        for one in whole:
            fields = dict(line.split(": ", 1) for line in one.splitlines() if not line.startswith(":"))
            if "event" in fields:
                found.append((fields["event"], json.loads(fields["data"])))
    return found


def next_with(parts: Any, key: str) -> Any:
    """The next event in which something stands under ``key``."""
    while True:
        ((_, told),) = events(parts, 1)
        if told.get(key):
            return told


# -- a token's tenants --------------------------------------------------------------------------------------


def test_a_tenants_token_sees_no_other_tenants_call(tenant_page: Page, ledger: FakeLedger) -> None:
    foreign = FOREIGN["call_id"]
    asked = [
        *(
            "/api/calls",
            "/api/calls?live=true",
            "/api/calls?workspace=zenith",
            f"/api/calls?workspace={ZENITH}",
        ),
        *(f"/api/calls?prefix={FOREIGN[name]}" for name in ("did", "crt_object_id", "caller", "call_id")),
        *(f"/api/calls?crt={FOREIGN['crt_object_id']}", f"/api/calls?did={FOREIGN['did']}"),
        *(f"/api/calls/{foreign}", "/api/tenants", "/api/session"),
    ]
    for path in asked:
        text = tenant_page.get(path, "acme").text
        assert "zenith" not in text, path
        assert ZENITH not in text, path
        assert foreign not in text, path
    assert tenant_page.get(f"/api/calls/{foreign}", "acme").status == 404
    assert (
        tenant_page.get(f"/api/calls/{foreign}", "acme").json == tenant_page.get("/api/calls/x", "acme").json
    )
    assert all(rights(question) == {ACME} for question in ledger.asked)
    assert [one["call_id"] for one in tenant_page.get("/api/calls", "acme").json["calls"]] == [OWN["call_id"]]
    assert [one["workspace"] for one in tenant_page.get("/api/tenants", "acme").json["tenants"]] == ["acme"]
    assert tenant_page.get("/api/session", "acme").json["workspaces"] == ["acme"]


def test_nor_live(tenant_page: Page, ledger: FakeLedger) -> None:
    _, stream = tenant_page.open("/api/live", HTTP_AUTHORIZATION="Bearer acme-token-0123456789abcdef")
    text = json.dumps(next_with(stream, "live"))
    ledger.change(FOREIGN["call_id"], stage="held")
    ledger.end(FOREIGN["call_id"])
    ledger.change(OWN["call_id"], stage="held")
    text += json.dumps(next_with(stream, "changed"))
    stream.close()
    assert OWN["call_id"] in text
    for word in (FOREIGN["call_id"], "zenith", ZENITH):
        assert word not in text


def test_a_token_whose_tenants_are_gone_sees_nothing(page: Page, ledger: FakeLedger) -> None:
    viewer = Viewer("x", False, frozenset(), time.time() + 60)
    ledger.put(OWN)
    assert not may_see(viewer, OWN)
    stream = page.services.streams.open(viewer, lambda: False)
    assert events(stream, 1)[0][1]["live"] == []


def rights(question: tuple[Any, ...]) -> frozenset[str] | None:
    """The workspaces that exist for who asked."""
    found: frozenset[str] | None = question[1].workspaces if question[0] == "calls" else question[-1]
    return found


def test_an_operator_sees_both(tenant_page: Page, ledger: FakeLedger) -> None:
    assert len(tenant_page.get("/api/calls", "operator").json["calls"]) == 2
    assert tenant_page.get(f"/api/calls/{FOREIGN['call_id']}", "operator").status == 200
    assert len(tenant_page.get("/api/tenants", "operator").json["tenants"]) == 2
    assert all(rights(question) is None for question in ledger.asked)


# -- numbers ------------------------------------------------------------------------------------------------


def test_numbers_are_masked_unless_the_token_may_see_them(page: Page, ledger: FakeLedger) -> None:
    call_id = rich_call(ledger, time.time() - 100, reason="call +919876543210 back, or 9876543210.")
    one = ledger.calls_by_id[call_id]
    for path in ("/api/calls", f"/api/calls/{call_id}", f"/api/calls?prefix={one['did']}"):
        masked, full = page.get(path, "operator").text, page.get(path, "seer").text
        for number in (one["did"], one["caller"], "919876543210", "9876543210"):
            assert number not in masked, path
            assert number in full, path
        assert one["crt_object_id"] in masked
        assert call_id in masked
    facts = page.get(f"/api/calls/{call_id}", "operator").json["timeline"][0]["facts"]
    assert facts["did"] == "0091••••••••11"
    assert facts["source"] == "203.0.113.10"


def test_a_calls_turns_come_with_it(page: Page, ledger: FakeLedger) -> None:
    call_id = rich_call(ledger, time.time() - 100)
    told = page.get(f"/api/calls/{call_id}", "operator").json
    assert len(told["turns"]) == 6
    assert told["turns"] == ledger.turns[call_id]
    assert (told["call"]["answers"], told["call"]["answer_p95"]) == (5, 1.74)


def test_live_numbers_too(page: Page, ledger: FakeLedger) -> None:
    ledger.put(OWN)
    for name, seen in (("operator", False), ("seer", True)):
        token = f"Bearer {name}-token-0123456789" + ("abcdef" if name == "seer" else "")
        _, stream = page.open("/api/live", HTTP_AUTHORIZATION=token)
        text = json.dumps(next_with(stream, "live"))
        ledger.change(OWN["call_id"], attempts=3)
        text += json.dumps(next_with(stream, "changed"))
        stream.close()
        assert (OWN["did"] in text, OWN["caller"] in text) == (seen, seen)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=30),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=8), parts, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_masking_takes_anything(document: Any) -> None:
    json.dumps(masked_for(False, {"did": document, "facts": document, "reason": document}))


# -- questions ----------------------------------------------------------------------------------------------


def test_a_filter_reaches_the_ledger_read(page: Page, ledger: FakeLedger) -> None:
    query = (
        "prefix=%20a%20b&workspace=acme&did=00919&crt=d444*&caller=&outcome=bot_failed&fault=bot&stage=refused"
        "&attention=true&live=false&handed_off=true&since=1.5&until=2027-01-15T08:00Z&limit=7&before=17.25,x"
    )
    assert page.get(f"/api/calls?{query}", "operator").status == 200
    wanted = Filter(
        prefix="a b",
        workspace=ACME,
        did="00919",
        crt="d444*",
        outcome="bot_failed",
        fault="bot",
        stage="refused",
        live=False,
        handed_off=True,
        since=1.5,
        attention=True,
        until=1.8e9,
        numbers=False,
    )
    assert ledger.asked == [("calls", wanted, 7, Place(17.25, "x"))]


BAD_QUERIES = [
    *("limit=0", "limit=201", "limit=-1", "limit=1e2", "limit=²", "limit=" + "9" * 50, "before=nan,x"),
    *("before=17.25", "before=1,", "before=1,a%20b", "before=x,y", "before=inf,x", "attention=1"),
    *("since=2027-13-01", "since=-5h", "until=9999999d", "since=2&until=2", "since=soon"),
    *("since=-1", "until=NaN", "until=1e300", "until=" + "1" * 100, "live=1", "handed_off=True"),
    *("outcome=x", "fault=x", "stage=x", "prefix=" + "x" * 129, "prefix=%00", "prefix=a%0Ab", "prefix=%FF"),
    *("did=%E2%80%AE", "nothing=1", "ask=watch", "workspaces=" + ZENITH, "prefix=a&prefix=b", "prefix", "&&"),
    *("a=1&" * 30 + "b=1", "prefix=" + "%41" * 800, "prefix=%ED%A0%80"),
]


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_bad_query_is_refused_and_nobody_asked(page: Page, ledger: FakeLedger, query: str) -> None:
    got = page.get(f"/api/calls?{query}", "operator")
    assert (got.status, got.json["error"]) == (400, "bad_request")
    assert got.json["problem"]
    assert ledger.asked == []


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("limit=0", "limit: expected a whole number from 1 to 200, got '0'"),
        ("live=perhaps", "live: expected true or false, got 'perhaps'"),
        (
            "since=yesterday",
            "since: expected a time as 2h (ago), 2026-11-23T10:15Z or epoch seconds, got 'yesterday'",
        ),
        ("fault=nobody", "fault: expected one of none, bot, ameyo, pbx, eslbot, got 'nobody'"),
        ("since=3&until=2", "until: expected a time behind `since`, got '2'"),
        ("colour=red", "unknown field 'colour'; known: attention, before, caller, crt, "),
        ("prefix=a&prefix=b", "a field stands there twice"),
    ],
)
def test_an_error_names_the_field_and_what_it_held(page: Page, query: str, problem: str) -> None:
    told = page.get(f"/api/calls?{query}", "operator").json["problem"]
    assert told.startswith(problem)


@pytest.mark.parametrize(
    "path",
    [
        "/api/tenants?a=1",
        "/api/live?a=1",
        "/api/calls/x?a=1",
        "/api/calls/",
        "/api/session?a=1",
        "/api/switch?a=1",
    ],
)
def test_fields_where_none_are(page: Page, path: str) -> None:
    assert page.get(path, "operator").status == 400


@pytest.mark.parametrize("call_id", ["../x", "a b", "x" * 65, "é", "%", "a/b", "\x00"])
def test_a_bad_call_id(page: Page, ledger: FakeLedger, call_id: str) -> None:
    assert page.get(f"/api/calls/{call_id}".encode().decode("latin-1"), "operator").status == 400
    assert ledger.asked == []


def test_other_questions(page: Page) -> None:
    for path in ("/api/", "/api/watch", "/api/live/", "/api/calls2"):
        assert page.get(path, "operator").status == 404
    head, _ = page.open("/api/live", "HEAD", HTTP_AUTHORIZATION="Bearer operator-token-0123456789")
    assert head.status == 405


# -- a ledger that is not well ------------------------------------------------------------------------------


def test_without_a_ledger_the_page_says_what_to_add(journal: Path) -> None:
    tree = page_tree(journal)
    del tree["ledger"]
    page = make_page(tree, None)
    assert page.get("/api/session", "operator").json["ledger"] is False
    for path in ("/api/calls", "/api/live", "/api/tenants", "/api/calls/x"):
        got = page.get(path, "operator")
        assert (got.status, got.json["error"]) == (503, "no_ledger")
        assert "[ledger]" in got.json["remedy"]


@pytest.mark.parametrize(
    ("fails", "error"), [(LedgerDown("vm-9: it is away"), "database_down"), (LedgerBusy("so many"), "busy")]
)
@pytest.mark.parametrize("path", ["/api/calls", "/api/calls/x", "/api/tenants"])
def test_a_ledger_that_gives_no_answer_is_told(
    page: Page, ledger: FakeLedger, path: str, fails: Exception, error: str
) -> None:
    ledger.fails = fails
    got = page.get(path, "operator")
    assert (got.status, got.json["error"]) == (503, error)
    assert "vm-9" not in got.text  # the log has it
    assert got.json["remedy"]


def test_a_fault_of_ours_is_told_without_its_text(page: Page, ledger: FakeLedger) -> None:
    ledger.fails = RuntimeError("secret-of-somebody")
    with capture_logs() as logs:
        got = page.get("/api/calls", "operator")
    assert (got.status, got.json["error"]) == (500, "internal")
    assert "secret" not in got.text
    assert [line["event"] for line in logs] == ["page_failed"]


# -- FreeSWITCH --------------------------------------------------------------------------------------------


def test_restarts_of_freeswitch_under_the_viewers_calls(tenant_page: Page, ledger: FakeLedger) -> None:
    ledger.change(FOREIGN["call_id"], restarts=1, restarted_at=time.time() - 30, restart_gap=1.7)
    told = tenant_page.get("/api/switch", "operator").json["restarts"]
    assert (told["calls"], told["gap"]) == (1, 1.7)
    tenant_page.get("/api/switch", "acme")
    assert ledger.asked[-1] == ("restarts", frozenset({ACME}))


def test_the_list_tells_of_restarts(page: Page, ledger: FakeLedger) -> None:
    ledger.put(row(1, restarts=2, restarted_at=time.time(), restart_gap=1.7))
    (listed,) = page.get("/api/calls", "operator").json["calls"]
    assert (listed["restarts"], listed["restart_gap"]) == (2, 1.7)


@pytest.mark.parametrize("fails", [LedgerDown("away"), LedgerBusy("so many")])
def test_restarts_of_which_the_ledger_cannot_tell(page: Page, ledger: FakeLedger, fails: Exception) -> None:
    ledger.fails = fails
    got = page.get("/api/switch", "operator")
    assert (got.status, got.json["restarts"]) == (200, None)


def test_restarts_are_asked_without_a_ledger_too(journal: Path) -> None:
    tree = page_tree(journal)
    del tree["ledger"]
    assert make_page(tree, None).get("/api/switch", "operator").json["restarts"] is None


def test_calls_that_were_dropped_are_told_to_who_sees_all_tenants(
    page: Page, ledger: FakeLedger, journal: Path
) -> None:
    def told(token: str) -> Any:
        return page.get("/api/switch", token).json["flushed"]

    assert told("operator") is None
    recoveries(journal, restarts=2, calls=9)
    assert told("operator") is None
    recoveries(journal, restarts=3, calls=12, flushes=1, dropped=3, last_flush=1_800_000_000.0)
    assert told("operator") == {"at": 1_800_000_000.0, "calls": 3}
    assert told("acme") is None
    ledger.fails = LedgerDown("away")  # the file is there all the same
    assert told("operator") == {"at": 1_800_000_000.0, "calls": 3}
    (journal.parent / "freeswitch.json").write_text("[]")
    assert told("operator") is None


# -- live ---------------------------------------------------------------------------------------------------

OPERATOR = {"HTTP_AUTHORIZATION": "Bearer operator-token-0123456789"}


def test_live_calls_come_go_and_change(page: Page, ledger: FakeLedger) -> None:
    ledger.put(OWN)
    head, stream = page.open("/api/live", **OPERATOR)
    assert (head.status, head.headers["Content-Type"]) == (200, "text/event-stream")
    assert head.headers["X-Accel-Buffering"] == "no"
    assert [one["call_id"] for one in next_with(stream, "live")["live"]] == [OWN["call_id"]]
    ledger.change(OWN["call_id"], stage="held")
    assert next_with(stream, "changed")["changed"][0]["stage"] == "held"
    ledger.end(OWN["call_id"])
    assert next_with(stream, "ended")["ended"][0]["outcome"] == "bot_ended"
    ledger.say(up=False, backlog=7)
    assert events(stream, 1)[0][1]["ledger"] == {"up": False, "backlog": 7}
    stream.close()


def test_streams_are_bounded(page: Page) -> None:
    streams = [page.open("/api/live", **OPERATOR)[1] for _ in range(live.MAX_STREAMS)]
    assert page.services.streams.count == live.MAX_STREAMS
    got, _ = page.open("/api/live", **OPERATOR)
    assert (got.status, got.headers["Retry-After"]) == (503, "10")
    streams[0].close()
    streams[0].close()  # a second time changes nothing
    again, stream = page.open("/api/live", **OPERATOR)
    assert again.status == 200
    assert page.open("/api/live", **OPERATOR)[0].status == 503
    for one in [*streams[1:], stream]:
        one.close()
    assert page.services.streams.count == 0
    assert not page.services.in_use


def test_a_process_that_ends_ends_its_streams_at_once(page: Page, ledger: FakeLedger) -> None:
    _, stream = page.open("/api/live", **OPERATOR)
    ledger.put(OWN)
    next_with(stream, "live")
    ledger.projection.close()
    assert list(stream) == []
    stream.close()
    assert page.open("/api/live", **OPERATOR)[0].status == 503


def test_a_stream_ends_with_its_session_and_with_its_browser(page: Page) -> None:
    brief = Viewer("x", False, None, time.time() + 0.1)
    assert [piece for piece in page.services.streams.open(brief, lambda: False) if b"event: " in piece]
    for_long = Viewer("x", False, None, time.time() + 100)
    looks = iter([False, False, True])
    assert len(list(page.services.streams.open(for_long, lambda: next(looks)))) == 2


def test_a_browser_that_reads_slowly_is_told_each_calls_last_state(
    page: Page, ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.put(OWN)
    _, stream = page.open("/api/live", **OPERATOR)
    next_with(stream, "live")
    for attempts in range(50):
        ledger.change(OWN["call_id"], attempts=attempts)
    (changed,) = next_with(stream, "changed")["changed"]
    assert changed["attempts"] == 49
    monkeypatch.setattr(projection, "MAX_ENDED_CALLS", 100)
    for number in range(100, 300):  # more than are remembered: it begins anew
        ledger.put(row(number))
        ledger.end(row(number)["call_id"])
    ((kind, told),) = events(stream, 1)
    assert (kind, [one["call_id"] for one in told["live"]]) == ("live", [OWN["call_id"]])
    stream.close()


def test_pieces_are_small(page: Page, ledger: FakeLedger) -> None:
    ledger.put(*(row(number) for number in range(500)))
    _, stream = page.open("/api/live", **OPERATOR)
    sizes = []
    text = b""
    while text.count(b"call_id") < 500:
        piece = next(stream)
        sizes.append(len(piece))
        text += piece
    assert max(sizes) <= live.CHUNK_SIZE < len(text)
    stream.close()


def test_a_stream_that_has_nothing_to_tell_gives_signs_of_life(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_INTERVAL", 0.0)
    _, stream = page.open("/api/live", **OPERATOR)
    events(stream, 1)
    assert next(stream) == b": here\n\n"
    stream.close()


def test_events_come_at_a_pace(page: Page, ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVENT_INTERVAL", 0.2)
    ledger.put(OWN)
    _, stream = page.open("/api/live", **OPERATOR)
    events(stream, 1)
    began = time.monotonic()
    for attempts in (1, 2):
        ledger.change(OWN["call_id"], attempts=attempts)
    (changed,) = next_with(stream, "changed")["changed"]
    assert changed["attempts"] == 2
    assert time.monotonic() - began >= 0.15
    stream.close()


def test_a_call_says_in_sentences_why_it_ended_and_how_its_audio_was(page: Page, ledger: FakeLedger) -> None:
    values = {
        "ended_at": time.time(),
        "outcome": "bot_failed",
        "reason": "it knows no 00919990152080",
        "attempts": 3,
        "attempt_status": 401,
        "sip_hangup_disposition": "recv_bye",
        "fault": "bot",
        "sip_call_id": "1-00919990152080@203.0.113.10",
        "media": {"packets_in": 900, "skipped_in": 100, "mos": 4.5},
    }
    one = row(3, **values)
    ledger.put(one, row(4))
    told = page.get(f"/api/calls/{one['call_id']}", "operator").json
    assert told["ended_because"] == (
        "The bot's connection broke off (it knows no 0091••••••••80); Ameyo did not take the customer in 3 "
        "attempts, and answered 401 last; the PBX ended the call. The fault was the bot's."
    )
    assert told["quality"] == {"word": "bad", "figures": "MOS 4.5, 100 of 1,000 packets missing (10.0 %)"}
    assert told["call"]["sip_call_id"] == values["sip_call_id"]  # an id: it is looked for elsewhere as it is
    assert "00919990152080" in page.get(f"/api/calls/{one['call_id']}", "seer").json["ended_because"]
    lives = page.get(f"/api/calls/{row(4)['call_id']}", "operator").json
    assert (lives["ended_because"], lives["quality"]) == (None, None)
