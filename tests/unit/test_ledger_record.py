"""From facts to rows: in any order, twice, from two hosts, and whatever stands in them."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eslbot.ledger.facts import What
from eslbot.ledger.parsing import BadFact, read_fact
from eslbot.ledger.record import MAX_TURNS_KEPT, CallRecord
from eslbot.ledger.schema import Row, calls
from tests.support.ledger import ACME, NOON, fact, identity, whole_call


def told(*lines: dict[str, Any], story: CallRecord | None = None) -> CallRecord:
    story = story or CallRecord.new("c1")
    facts = [read_fact(json.dumps(line).encode()) for line in lines]
    story.apply(one for one in facts if one is not None)
    return story


def without_time(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in ("updated_at", "host")}


def test_a_whole_call() -> None:
    story = told(*whole_call("c1"))
    row = story.row
    assert {name: row[name] for name in row if name.endswith("_at")} == {
        "invited_at": NOON,
        "answered_at": NOON + 0.05,
        "bot_connected_at": NOON + 0.2,
        "first_audio_at": NOON + 0.5,
        "bot_ended_at": NOON + 6.1,
        "notified_at": NOON + 6.2,
        "handed_off_at": NOON + 6.3,
        "ended_at": NOON + 9.3,
        "updated_at": None,
        "restarted_at": None,
        "unverified_at": None,
    }
    assert (row["attempt_verdict"], row["attempt_status"], row["attempt_detail"]) == ("accepted", 200, "ok")
    assert (row["workspace_id"], row["workspace"], row["did"]) == (ACME, "acme", "00919990152080")
    assert (row["stage"], row["outcome"], row["fault"], row["reason"]) == (
        "held",
        "bot_ended",
        "none",
        "done",
    )
    assert (row["sip_hangup_disposition"], row["hangup_cause"]) == ("recv_bye", "NORMAL_CLEARING")
    assert row["media"] == {"packets": 460, "mos": 4.4, "codec": "PCMU"}
    assert (row["attempts"], row["take_overs"], row["byes_overdue"], row["end_unseen"]) == (1, 0, 0, False)
    (sent,) = story.notifications
    assert (sent["number"], sent["began_at"], sent["verdict"], sent["status"]) == (
        1,
        NOON + 6.2,
        "accepted",
        200,
    )
    assert len(story.timeline) == 15
    assert story.timeline[0]["facts"] is None  # they are in the row
    assert story.timeline[5] == {
        "call_id": "c1", "at": NOON + 2.0, "what": "speech_ended", "facts": {"cut": False}
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_reading_does_not_matter(seed: int) -> None:
    lines = whole_call("c1")
    random.Random(seed).shuffle(lines)
    story, expected = told(*lines), told(*whole_call("c1"))
    assert story.row == expected.row
    assert [(n["number"], n["verdict"], n["began_at"]) for n in story.notifications] == [
        (1, "accepted", NOON + 6.2)
    ]


def test_what_is_told_twice_changes_nothing() -> None:
    once, twice = told(*whole_call("c1")), told(*whole_call("c1"), *whole_call("c1"))
    assert twice.row == once.row
    assert len(twice.notifications) == 1


def test_each_attempt_is_a_notification_and_the_first_accepted_one_the_hand_off() -> None:
    story = told(
        fact("c1", "attempt_began", 1, number=1),
        fact("c1", "attempt", 2, number=1, verdict="failed", status=None, seconds=1.0, detail="time-out"),
        fact("c1", "attempt_began", 3, number=2),
        fact("c1", "attempt", 4, number=2, verdict="accepted", status=200, seconds=1.0, detail=""),
        fact("c1", "attempt_began", 5, number=3),
        fact("c1", "attempt", 6, number=3, verdict="accepted", status=200, seconds=0.9, detail=""),
    )
    assert [n["verdict"] for n in story.notifications] == ["failed", "accepted", "accepted"]
    assert (story.row["notified_at"], story.row["handed_off_at"]) == (NOON + 1, NOON + 4)
    assert (story.row["attempts"], story.row["stage"]) == (3, "held")


def test_the_last_attempt_is_in_the_row_while_the_call_lives() -> None:
    story = told(*FAILED)
    seen = [story.row[name] for name in ("attempt_verdict", "attempt_status", "attempt_detail", "ended_at")]
    assert seen == ["failed", 503, "", None]
    later = fact("c1", "attempt", 41, number=2, verdict="rejected", status=401, seconds=1.0, detail="token")
    story = told(later, *FAILED)  # read in another order
    seen = [story.row[name] for name in ("attempts", "attempt_verdict", "attempt_status", "attempt_detail")]
    assert seen == [2, "rejected", 401, "token"]


def test_a_call_of_nobody_is_one_until_a_controller_knows_whose_it_is() -> None:
    story = told(fact("c1", "not_verified", 5, take_overs=1, sip_call_id="a@b"))
    assert (story.row["unverified_at"], story.row["sip_call_id"]) == (NOON + 5, "a@b")
    assert story.row["workspace_id"] is None
    told(fact("c1", "taken_over", 9, stage="held", take_overs=2, workspace_id=ACME), story=story)
    assert (story.row["unverified_at"], story.row["workspace_id"]) == (None, ACME)


def test_a_call_id_of_any_length_is_cut() -> None:
    assert len(told(fact("c1", "admitted", 0, sip_call_id="x" * 5000)).row["sip_call_id"]) == 255


def ended(outcome: str, disposition: str = "recv_bye", **more: Any) -> dict[str, Any]:
    return fact("c1", "ended", 60, outcome=outcome, disposition=disposition, cause="X", **more)


FAILED = (
    fact("c1", "attempt_began", 30, number=1),
    fact("c1", "attempt", 31, number=1, verdict="failed", status=503, seconds=1.0, detail=""),
)
INTERRUPTED = (
    fact("c1", "attempt_began", 30, number=1),
    fact("c1", "attempt", 31, number=1, verdict="interrupted", status=None, seconds=1.0, detail=""),
)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([ended("caller_hangup", handed_off=False)], "none"),
        ([ended("bot_failed", handed_off=True)], "bot"),
        ([*FAILED, ended("bot_ended", handed_off=False)], "ameyo"),
        ([ended("bot_ended", handed_off=False), *FAILED], "ameyo"),
        ([*INTERRUPTED, ended("bot_ended", handed_off=False)], "none"),
        ([*FAILED, ended("bot_ended", handed_off=True)], "none"),
        ([ended("media_timeout", "send_bye")], "pbx"),
        ([ended("bot_ended", "send_bye", handed_off=True)], "eslbot"),
        ([fact("c1", "refused", 0, status=403, why="foreign_source", detail="x")], "pbx"),
        ([fact("c1", "refused", 0, status=503, why="worker_full", detail="x")], "eslbot"),
    ],
)
def test_whose_fault(lines: list[dict[str, Any]], fault: str) -> None:
    assert told(*lines).row["fault"] == fault


def test_a_refused_call() -> None:
    row = told(
        fact("c1", "refused", 0, **identity(), status=503, why="workspace_full", detail="acme: max_calls = 1")
    ).row
    assert (row["stage"], row["refusal_status"], row["refusal"]) == ("refused", 503, "workspace_full")
    assert (row["reason"], row["outcome"], row["ended_at"]) == ("acme: max_calls = 1", None, NOON)


def test_a_call_of_which_only_the_taker_over_tells() -> None:
    row = told(
        fact("c1", "taken_over", 30, **identity(), stage="held", take_overs=2, answered_for=29.0, attempts=3,
             held_since=NOON + 20, outcome="bot_failed", reason="1006"),
    ).row  # fmt: skip
    assert (row["stage"], row["take_overs"], row["attempts"]) == ("held", 2, 3)
    assert (row["answered_at"], row["handed_off_at"], row["invited_at"]) == (NOON + 1, NOON + 20, NOON)
    assert (row["outcome"], row["reason"]) == ("bot_failed", "1006")


def test_restarts_of_freeswitch_are_counted_whatever_the_order_and_told_twice() -> None:
    lines = [
        fact("c1", "switch_restarted", 10, restarts=1, gap=1.7),
        fact("c1", "switch_restarted", 50, restarts=2, gap=1.2),
    ]
    for told_ in (lines, lines[::-1], lines * 2):
        story = told(*whole_call("c1")[:5], *told_)
        row = story.row
        assert (row["restarts"], row["restarted_at"], row["restart_gap"]) == (2, NOON + 50, 1.7)
        assert row["stage"] == "talking"
    assert [(line["what"], line["facts"]) for line in story.timeline[5:7]] == [
        ("switch_restarted", {"restarts": 1, "gap": 1.7}),
        ("switch_restarted", {"restarts": 2, "gap": 1.2}),
    ]


def test_a_restart_of_which_little_is_known() -> None:
    row = told(*whole_call("c1")[:5], fact("c1", "switch_restarted", 10, restarts="many", gap=-3)).row
    assert (row["restarts"], row["restarted_at"], row["restart_gap"]) == (1, NOON + 10, None)


def test_a_call_that_lost_its_bot_with_freeswitch_is_eslbots_fault() -> None:
    lines = [
        *whole_call("c1")[:11],
        fact("c1", "bot_ended", 6.1, outcome="switch_lost"),
        *whole_call("c1")[12:14],
    ]
    row = told(
        *lines, fact("c1", "ended", 9, disposition="recv_bye", outcome="switch_lost", handed_off=True)
    ).row
    assert (row["outcome"], row["fault"]) == ("switch_lost", "eslbot")


def test_an_end_that_nobody_saw_is_taken_back_when_the_call_goes_on() -> None:
    story = told(*whole_call("c1")[:5])
    story.close_unseen(NOON + 0.5)
    row = story.row
    assert (row["ended_at"], row["end_unseen"]) == (NOON + 0.5, True)
    assert (row["outcome"], row["fault"]) == ("controller_lost", "eslbot")
    late = told(fact("c1", "left", 0.4, why="shutdown"), story=CallRecord({**row})).row
    assert late["end_unseen"]  # that is older than what was heard last
    lives = told(fact("c1", "taken_over", 90, stage="talking", take_overs=1), story=CallRecord({**row})).row
    assert (lives["ended_at"], lives["end_unseen"], lives["outcome"], lives["fault"]) == (
        None,
        False,
        None,
        None,
    )
    done = told(whole_call("c1")[-1], story=CallRecord({**lives})).row
    assert (done["ended_at"], done["end_unseen"], done["fault"]) == (NOON + 9.3, False, "none")


def test_an_unanswered_call_whose_end_nobody_saw_has_no_outcome() -> None:
    story = told(whole_call("c1")[0])
    story.close_unseen(NOON)
    assert (story.row["outcome"], story.row["fault"]) == (None, None)


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"[]", b"null", b"17", b'{"what": 1}', b"\xff\xfe", b'{"what":"ended"',
        b"[" * 100_000,
        json.dumps({"what": "ended", "call": "c", "at": "now"}).encode(),
        json.dumps({"what": "ended", "call": "c", "at": math.nan}).encode(),
        json.dumps({"what": "ended", "call": "c", "at": 1e300}).encode(),
        json.dumps({"what": "ended", "call": "c", "at": True}).encode(),
        json.dumps({"what": "ended", "call": 17, "at": NOON}).encode(),
        json.dumps({"what": "ended", "call": "x" * 65, "at": NOON}).encode(),
        json.dumps({"what": "ended", "call": "a\x00b", "at": NOON}).encode(),
        json.dumps({"what": "ended", "at": NOON}).encode(),
        b'{"what":"ended","call":"c","at":' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_a_line_that_is_no_fact_is_refused(line: bytes) -> None:
    with pytest.raises(BadFact):
        read_fact(line)


def test_a_word_of_a_later_version_is_passed_over() -> None:
    assert read_fact(b'{"what":"journal","version":1}') is None
    assert read_fact(b'{"what":"teleported","call":"c1","at":1800000000}') is None


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet=st.characters(), max_size=700),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=80), inner, max_size=50),
    max_leaves=60,
)
FIELDS = (
    "invited_at", "workspace_id", "workspace", "did", "crt_object_id", "caller", "called", "source", "status",
    "why", "detail", "outcome", "reason", "number", "verdict", "seconds", "stage", "take_overs",
    "answered_for", "attempts", "held_since", "disposition", "cause", "handed_off", "media", "restarts",
    "gap", "other",
)  # fmt: skip


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from(list(What)), st.dictionaries(st.sampled_from(FIELDS), HOSTILE, max_size=8)),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_stands_in_facts_the_rows_fit_the_tables(lines: list[tuple[What, dict[str, Any]]]) -> None:
    story = told(*(fact("c1", what, place, **more) for place, (what, more) in enumerate(lines)))
    assert set(story.row) == {column.name for column in calls.columns}
    for column in calls.columns:
        value = story.row[column.name]
        length = getattr(column.type, "length", None)
        if isinstance(value, str) and length is not None:
            assert len(value) <= length
        if column.name not in ("updated_at",):
            assert value is not None or column.nullable
    for row in [story.row, *story.timeline, *story.notifications]:
        text = json.dumps(row, allow_nan=False, ensure_ascii=False)
        text.encode()  # no halves of characters
        assert "\\u0000" not in text
        assert len(text) < 60_000
    for name in ("attempts", "take_overs", "byes_overdue", "restarts"):
        assert 0 <= story.row[name] < 2**31


def turn_fact(number: int, after: float, seconds: float, kind: str = "answer", **more: Any) -> dict[str, Any]:
    return fact("c1", "turn", after, number=number, kind=kind, seconds=seconds, **more)


def test_turns_have_rows_of_their_own_and_the_call_their_figures() -> None:
    lines = [turn_fact(number, number, number / 10, bot=number / 20) for number in range(1, 21)]
    story = told(
        *whole_call("c1"),
        *lines,
        turn_fact(21, 21, 0.4, "barge_in", bot=0.3),
        turn_fact(22, 22, 1, "overlap", by="bot"),
    )
    row = story.row
    assert (row["answers"], row["answer_p50"], row["answer_p95"], row["answer_worst"]) == (20, 1.0, 1.9, 2.0)
    assert row["barge_ins"] == 1
    assert len(story.turns) == 22 and len(story.timeline) == len(whole_call("c1"))
    last = story.turns[-1]
    assert (last["at"], last["kind"], last["seconds"], last["bot"], last["by"]) == (
        NOON + 22,
        "overlap",
        1.0,
        None,
        "bot",
    )
    assert not any(sent["what"] == "turn" for sent in story.timeline)


def test_a_turn_that_is_told_twice_is_one() -> None:
    """Its controller has died over it; another relay counts from 1 on, which is another turn."""
    story = told(turn_fact(1, 5.0, 0.5), turn_fact(1, 5.004, 0.5), turn_fact(1, 60.0, 0.7))
    assert [turn["seconds"] for turn in story.turns] == [0.5, 0.7]
    assert story.row["answers"] == 2


@pytest.mark.parametrize(
    "odd",
    [{"kind": "none"}, {"kind": 5}, *({"seconds": odd} for odd in (-1, "x", math.inf, None))],
)
def test_what_is_no_turn_is_none(odd: dict[str, Any]) -> None:
    story = told({**turn_fact(1, 5.0, 0.5), **odd})
    assert story.turns == [] and story.row["answers"] == 0


def test_so_many_turns_are_kept() -> None:
    story = told(*(turn_fact(number, number, 0.5) for number in range(MAX_TURNS_KEPT + 5)))
    assert len(story.turns) == MAX_TURNS_KEPT
