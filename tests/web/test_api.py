"""What the page is told: within rights, masked, and clearly when there is nothing to tell."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.web import keeper_client, live
from eslbot.web.keeper_client import KeeperClient, LedgerDown
from eslbot.web.showing import shown
from eslbot.web.tokens import Viewer
from tests.support.calls import rich_call, tenants
from tests.support.fake_keeper import ACME, ZENITH, FakeKeeper, row
from tests.support.page import page_tree, recoveries, short_folder
from tests.support.peer import bounded
from tests.web.conftest import Site, make_site

FOREIGN = row(9, ZENITH, invited_at=time.time() - 5)
OWN = row(1)


@pytest.fixture(params=[True, False], ids=["keeper", "forgetful keeper"])
def tenant_site(request: pytest.FixtureRequest, keeper: FakeKeeper, site: Site) -> Site:
    """Two tenants' calls, over a keeper that looks at the rights or does not."""
    keeper.obedient = request.param
    keeper.put(OWN, FOREIGN)
    keeper.tenants = tenants(time.time())
    return site


def events(parts: Any, count: int) -> list[tuple[str, Any]]:
    """The next events of a stream."""
    found: list[tuple[str, Any]] = []
    text = ""
    with bounded(5):
        while len(found) < count:
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


def test_a_tenants_token_sees_no_other_tenants_call(tenant_site: Site, keeper: FakeKeeper) -> None:
    foreign = FOREIGN["call_id"]
    asked = [
        *(
            "/api/calls",
            "/api/calls?live=true",
            "/api/calls?workspace=zenith",
            f"/api/calls?workspace={ZENITH}",
        ),
        *(f"/api/calls?text={FOREIGN[name]}" for name in ("did", "crt_object_id", "caller", "call_id")),
        *(f"/api/calls?crt={FOREIGN['crt_object_id']}", f"/api/calls?did={FOREIGN['did']}"),
        *(f"/api/calls/{foreign}", "/api/tenants", "/api/session"),
    ]
    for path in asked:
        text = tenant_site.get(path, "acme").text
        assert "zenith" not in text, path
        assert ZENITH not in text, path
        assert foreign not in text, path
    assert tenant_site.get(f"/api/calls/{foreign}", "acme").status == 404
    assert (
        tenant_site.get(f"/api/calls/{foreign}", "acme").json == tenant_site.get("/api/calls/x", "acme").json
    )
    assert all(question["workspaces"] == [ACME] for question in keeper.asked)
    assert [one["call_id"] for one in tenant_site.get("/api/calls", "acme").json["calls"]] == [OWN["call_id"]]
    assert [one["workspace"] for one in tenant_site.get("/api/tenants", "acme").json["tenants"]] == ["acme"]
    assert tenant_site.get("/api/session", "acme").json["workspaces"] == ["acme"]


def test_nor_live(tenant_site: Site, keeper: FakeKeeper) -> None:
    _, stream = tenant_site.open("/api/live", HTTP_AUTHORIZATION="Bearer acme-token-0123456789abcdef")
    text = json.dumps(next_with(stream, "live"))
    keeper.change(FOREIGN["call_id"], stage="held")
    keeper.end(FOREIGN["call_id"])
    keeper.change(OWN["call_id"], stage="held")
    text += json.dumps(next_with(stream, "changed"))
    stream.close()
    assert OWN["call_id"] in text
    for word in (FOREIGN["call_id"], "zenith", ZENITH):
        assert word not in text
    assert [question["workspaces"] for question in keeper.asked] == [[ACME]]


def test_a_token_whose_tenants_are_gone_sees_nothing(keeper: FakeKeeper) -> None:
    viewer = Viewer("x", False, frozenset(), time.time() + 60)
    keeper.obedient = False
    keeper.put(OWN)
    from eslbot.web.showing import may_see, rights

    assert rights(viewer) == {"workspaces": []}
    assert not may_see(viewer, OWN)


def test_an_operator_sees_both(tenant_site: Site, keeper: FakeKeeper) -> None:
    assert len(tenant_site.get("/api/calls", "operator").json["calls"]) == 2
    assert tenant_site.get(f"/api/calls/{FOREIGN['call_id']}", "operator").status == 200
    assert len(tenant_site.get("/api/tenants", "operator").json["tenants"]) == 2
    assert all("workspaces" not in question for question in keeper.asked)


# -- numbers ------------------------------------------------------------------------------------------------


def test_numbers_are_masked_unless_the_token_may_see_them(site: Site, keeper: FakeKeeper) -> None:
    call_id = rich_call(keeper, time.time() - 100, reason="call +919876543210 back, or 9876543210.")
    one = keeper.calls[call_id]
    for path in ("/api/calls", f"/api/calls/{call_id}", f"/api/calls?text={one['did']}"):
        masked, full = site.get(path, "operator").text, site.get(path, "seer").text
        for number in (one["did"], one["caller"], "919876543210", "9876543210"):
            assert number not in masked, path
            assert number in full, path
        assert one["crt_object_id"] in masked
        assert call_id in masked
    facts = site.get(f"/api/calls/{call_id}", "operator").json["timeline"][0]["facts"]
    assert facts["did"] == "0091••••••••11"
    assert facts["source"] == "203.0.113.10"


def test_live_numbers_too(site: Site, keeper: FakeKeeper) -> None:
    keeper.put(OWN)
    for name, seen in (("operator", False), ("seer", True)):
        token = f"Bearer {name}-token-0123456789" + ("abcdef" if name == "seer" else "")
        _, stream = site.open("/api/live", HTTP_AUTHORIZATION=token)
        text = json.dumps(next_with(stream, "live"))
        keeper.change(OWN["call_id"], attempts=3)
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
    viewer = Viewer("x", False, None, 0.0)
    json.dumps(shown(viewer, {"did": document, "facts": document, "reason": document}))


# -- questions ----------------------------------------------------------------------------------------------


def test_a_filter_reaches_the_keeper_read(site: Site, keeper: FakeKeeper) -> None:
    query = (
        "text=%20a%20b&workspace=acme&did=00919&crt=d444*&caller=&outcome=bot_failed&fault=bot&stage=refused"
        "&live=false&handed_off=true&since=1.5&until=2e9&limit=7&before=17.25"
    )
    assert site.get(f"/api/calls?{query}", "operator").status == 200
    assert keeper.asked == [
        {
            "ask": "calls",
            "limit": 7,
            "before": 17.25,
            "filter": {
                "text": "a b",
                "workspace": "acme",
                "did": "00919",
                "crt": "d444*",
                "outcome": "bot_failed",
                "fault": "bot",
                "stage": "refused",
                "live": False,
                "handed_off": True,
                "since": 1.5,
                "until": 2e9,
            },
        }
    ]


BAD_QUERIES = [
    *("limit=0", "limit=201", "limit=-1", "limit=1e2", "limit=²", "limit=" + "9" * 50, "before=nan"),
    *("before=inf", "since=-1", "until=1e300", "until=" + "1" * 100, "live=1", "handed_off=True"),
    *("outcome=x", "fault=x", "stage=x", "text=" + "x" * 129, "text=%00", "text=a%0Ab", "text=%FF"),
    *("did=%E2%80%AE", "nothing=1", "ask=watch", "workspaces=" + ZENITH, "text=a&text=b", "text", "&&"),
    *("a=1&" * 30 + "b=1", "text=" + "%41" * 800, "text=%ED%A0%80"),
]


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_bad_query_is_refused_and_nobody_asked(site: Site, keeper: FakeKeeper, query: str) -> None:
    got = site.get(f"/api/calls?{query}", "operator")
    assert (got.status, got.json["error"]) == (400, "bad_request")
    assert got.json["problem"]
    assert keeper.asked == []


@pytest.mark.parametrize("path", ["/api/tenants?a=1", "/api/live?a=1", "/api/calls/x?a=1", "/api/calls/"])
def test_fields_where_none_are(site: Site, path: str) -> None:
    assert site.get(path, "operator").status == 400


@pytest.mark.parametrize("call_id", ["../x", "a b", "x" * 65, "é", "%", "a/b", "\x00"])
def test_a_bad_call_id(site: Site, keeper: FakeKeeper, call_id: str) -> None:
    assert site.get(f"/api/calls/{call_id}".encode().decode("latin-1"), "operator").status == 400
    assert keeper.asked == []


def test_other_questions(site: Site) -> None:
    for path in ("/api/", "/api/watch", "/api/live/", "/api/calls2"):
        assert site.get(path, "operator").status == 404
    head, _ = site.open("/api/live", "HEAD", HTTP_AUTHORIZATION="Bearer operator-token-0123456789")
    assert head.status == 405


# -- a ledger that is not well ------------------------------------------------------------------------------


def test_without_a_ledger_the_page_says_what_to_add(keeper: FakeKeeper) -> None:
    tree = page_tree(keeper.journal)
    del tree["ledger"]
    site = make_site(tree)
    assert site.get("/api/session", "operator").json["ledger"] is False
    for path in ("/api/calls", "/api/live", "/api/tenants", "/api/calls/x"):
        got = site.get(path, "operator")
        assert (got.status, got.json["error"]) == (503, "no_ledger")
        assert "[ledger]" in got.json["remedy"]


def test_a_ledger_that_does_not_run_is_told(site: Site, keeper: FakeKeeper) -> None:
    keeper.stop()
    got = site.get("/api/calls", "operator")
    assert (got.status, got.json["error"]) == (503, "ledger_not_running")
    assert "Calls go on" in got.json["remedy"]


ANSWERS = [
    (b'{"error":"database_down"}\n', 503, "database_down"),
    (b'{"error":"unknown_call"}\n', 404, "unknown_call"),
    (b'{"error":"bad_question"}\n', 502, "ledger_not_understood"),
    (b'{"error":"bad_question","detail":"outcome: none of ours"}\n', 400, "bad_request"),
    (b'{"error":"busy"}\n', 503, "busy"),
    (b'{"error":{}}\n', 502, "ledger_not_understood"),
    (b"<html>\n", 503, "ledger_not_understood"),
    (b"[]\n", 503, "ledger_not_understood"),
    (b"[" * 100_000 + b"\n", 503, "ledger_not_understood"),
    (b"\xff\n", 503, "ledger_not_understood"),
    (b'{"call":[]}\n', 404, "unknown_call"),
    (b"{}\n", 404, "unknown_call"),
]


@pytest.mark.parametrize(("answer", "status", "error"), ANSWERS)
def test_odd_answers(site: Site, keeper: FakeKeeper, answer: bytes, status: int, error: str) -> None:
    keeper.answer = answer
    got = site.get("/api/calls/x", "operator")
    assert (got.status, got.json["error"]) == (status, error)


def test_a_line_without_end_and_a_keeper_that_is_silent(
    keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_client, "MAX_LINE", 200_000)
    client = KeeperClient(str(keeper.journal))
    keeper.answer = b"x" * 400_000
    with pytest.raises(LedgerDown, match="more than 200000 bytes"):
        client.ask({"ask": "tenants"})
    keeper.answer = None
    with pytest.raises(LedgerDown, match=r"within 0\.05 s"):
        client.ask({"ask": "tenants"}, 0.05)
    with pytest.raises(LedgerDown, match=r"within 0\.05 s"):
        list(client.watch({"ask": "watch"}, 0.05))


def test_questions_under_way_are_bounded(keeper: FakeKeeper) -> None:
    client = KeeperClient(str(keeper.journal))
    keeper.answer = None
    asking = [
        gevent.spawn(lambda: client.ask({"ask": "tenants"}, 0.3)) for _ in range(keeper_client.MAX_QUESTIONS)
    ]
    gevent.sleep(0)
    with pytest.raises(LedgerDown):
        client.ask({"ask": "tenants"}, 0.05)
    assert len(keeper.asked) <= keeper_client.MAX_QUESTIONS
    gevent.joinall(asking, timeout=5)
    assert all(isinstance(one.exception, LedgerDown) for one in asking)
    keeper.answer = ...
    assert client.ask({"ask": "tenants"}) == {"tenants": []}


# -- FreeSWITCH --------------------------------------------------------------------------------------------


def test_restarts_of_freeswitch_under_the_viewers_calls(tenant_site: Site, keeper: FakeKeeper) -> None:
    keeper.change(FOREIGN["call_id"], restarts=1, restarted_at=time.time() - 30, restart_gap=1.7)
    told = tenant_site.get("/api/switch", "operator").json["restarts"]
    assert (told["calls"], told["gap"]) == (1, 1.7)
    tenant_site.get("/api/switch", "acme")
    assert keeper.asked[-1] == {"ask": "restarts", "workspaces": [ACME]}


def test_the_list_tells_of_restarts(site: Site, keeper: FakeKeeper) -> None:
    keeper.put(row(1, restarts=2, restarted_at=time.time(), restart_gap=1.7))
    (listed,) = site.get("/api/calls", "operator").json["calls"]
    assert (listed["restarts"], listed["restart_gap"]) == (2, 1.7)


@pytest.mark.parametrize("answer", [b'{"error":"database_down"}\n', b'{"restarts":[]}\n', b"<html>\n"])
def test_restarts_of_which_the_ledger_cannot_tell(site: Site, keeper: FakeKeeper, answer: bytes) -> None:
    keeper.answer = answer
    got = site.get("/api/switch", "operator")
    assert (got.status, got.json["restarts"]) == (200, None)


def test_restarts_are_asked_without_a_ledger_too(keeper: FakeKeeper) -> None:
    tree = page_tree(keeper.journal)
    del tree["ledger"]
    assert make_site(tree).get("/api/switch", "operator").json["restarts"] is None


def test_calls_that_were_dropped_are_told_to_who_sees_all_tenants(site: Site, keeper: FakeKeeper) -> None:
    def told(token: str) -> Any:
        return site.get("/api/switch", token).json["flushed"]

    assert told("operator") is None
    recoveries(keeper.journal, restarts=2, calls=9)
    assert told("operator") is None
    recoveries(keeper.journal, restarts=3, calls=12, flushes=1, dropped=3, last_flush=1_800_000_000.0)
    assert told("operator") == {"at": 1_800_000_000.0, "calls": 3}
    assert told("acme") is None
    keeper.stop()  # the file is there all the same
    assert told("operator") == {"at": 1_800_000_000.0, "calls": 3}
    (keeper.journal.parent / "freeswitch.json").write_text("[]")
    assert told("operator") is None


# -- live ---------------------------------------------------------------------------------------------------

OPERATOR = {"HTTP_AUTHORIZATION": "Bearer operator-token-0123456789"}


def test_live_calls_come_go_and_change(site: Site, keeper: FakeKeeper) -> None:
    keeper.put(OWN)
    head, stream = site.open("/api/live", **OPERATOR)
    assert (head.status, head.headers["Content-Type"]) == (200, "text/event-stream")
    assert head.headers["X-Accel-Buffering"] == "no"
    assert [one["call_id"] for one in next_with(stream, "live")["live"]] == [OWN["call_id"]]
    keeper.change(OWN["call_id"], stage="held")
    assert next_with(stream, "changed")["changed"][0]["stage"] == "held"
    keeper.end(OWN["call_id"])
    assert next_with(stream, "ended")["ended"][0]["outcome"] == "bot_ended"
    keeper.say(up=False)
    while (told := events(stream, 1)[0][1])["ledger"]["up"]:
        pass
    assert told["ledger"] == {"up": False, "backlog": 0}
    stream.close()


def test_pages_with_the_same_rights_share_one_watch(site: Site, keeper: FakeKeeper) -> None:
    keeper.put(OWN)
    streams = [site.open("/api/live", **OPERATOR)[1] for _ in range(5)]
    for stream in streams:
        assert next_with(stream, "live")["live"][0]["call_id"] == OWN["call_id"]
    assert len(keeper.asked) == 1
    for stream in streams:
        stream.close()
    with bounded(5):
        while keeper.watching:
            keeper.say()  # it notices at its next line
            gevent.sleep(0.01)


def test_streams_of_a_worker_are_bounded(site: Site, keeper: FakeKeeper) -> None:
    streams = [site.open("/api/live", **OPERATOR)[1] for _ in range(live.MAX_STREAMS)]
    got, _ = site.open("/api/live", **OPERATOR)
    assert (got.status, got.headers["Retry-After"]) == (503, "10")
    streams[0].close()
    again, stream = site.open("/api/live", **OPERATOR)
    assert again.status == 200
    for one in [*streams[1:], stream]:
        one.close()


def test_a_worker_that_leaves_ends_its_streams_at_once(site: Site, keeper: FakeKeeper) -> None:
    _, stream = site.open("/api/live", **OPERATOR)
    keeper.put(OWN)
    next_with(stream, "live")
    site.controller.draining = True
    with bounded(1):
        list(stream)
    stream.close()
    assert site.open("/api/live", **OPERATOR)[0].status == 503


def test_a_stream_ends_with_its_session(site: Site) -> None:
    viewer = Viewer("x", False, None, time.time() + 0.1)
    assert site.app._api._feeds is not None
    stream = site.app._api._feeds.open(viewer, None).body
    with bounded(3):
        list(stream)


def test_a_browser_that_reads_slowly_holds_no_more_than_each_calls_last_state(
    site: Site, keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper.put(OWN)
    _, stream = site.open("/api/live", **OPERATOR)
    next_with(stream, "live")
    for attempts in range(50):
        stream.take({OWN["call_id"]: json.dumps({"attempts": attempts})}, {})
    assert stream.pending == 1
    assert next_with(stream, "changed")["changed"] == [{"attempts": 49}]
    monkeypatch.setattr(live, "MAX_PENDING", 100)
    for number in range(1000):
        stream.take({}, {str(number): "{}"})
        assert stream.pending <= 100
    assert [one["call_id"] for one in next_with(stream, "live")["live"]] == [OWN["call_id"]]
    stream.close()


def test_a_browser_that_reads_nothing_is_cut_off(
    site: Site, keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "STALL", 0.05)
    ours, theirs = gevent.socket.socketpair()
    _, stream = site.open("/api/live", **OPERATOR, **{"gunicorn.socket": ours})
    next(stream)
    with bounded(5), pytest.raises(OSError, match="Broken pipe"):
        while True:  # as gunicorn does it, which waits for the browser
            ours.sendall(b"x" * 100_000)
    stream.close()
    theirs.close()


def test_pieces_are_small(site: Site, keeper: FakeKeeper) -> None:
    keeper.put(*(row(number) for number in range(500)))
    _, stream = site.open("/api/live", **OPERATOR)
    sizes = []
    text = b""
    with bounded(5):
        while text.count(b"call_id") < 500:
            piece = next(stream)
            sizes.append(len(piece))
            text += piece
    assert max(sizes) <= live.PIECE < len(text)
    stream.close()


def test_a_keeper_that_went_away_is_told_and_found_again(
    site: Site, keeper: FakeKeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "RETRY", 0.02)
    keeper.put(OWN)
    _, stream = site.open("/api/live", **OPERATOR)
    next_with(stream, "live")
    keeper.stop()
    while (told := events(stream, 1)[0][1])["ledger"]["up"]:
        pass
    assert told["ledger"]["error"] == "ledger_not_running"
    assert told["ledger"]["problem"]
    keeper.start()
    assert next_with(stream, "live")["ledger"]["up"] is True
    stream.close()


def test_a_keeper_that_cannot_watch(site: Site, keeper: FakeKeeper) -> None:
    keeper.answer = b'{"error":"database_down"}\n'
    _, stream = site.open("/api/live", **OPERATOR)
    while (told := events(stream, 1)[0][1])["ledger"]["error"] == "asking":
        pass
    assert told["ledger"]["error"] == "database_down"
    stream.close()


def test_a_journal_that_is_not_there(tmp_path: Path) -> None:
    with short_folder() as folder:
        got = make_site(page_tree(folder / "none")).get("/api/tenants", "operator")
    assert (got.status, got.json["error"]) == (503, "ledger_not_running")
