"""What a call counts for, and quantiles from histograms."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.ledger import summary
from eslbot.ledger.parsing import read_fact
from eslbot.ledger.percentile import percentile
from eslbot.ledger.record import CallRecord, needs_attention
from eslbot.ledger.summary import SummaryChanges, counts_of, quantile
from tests.support.ledger import ACME, NOON, fact, identity, whole_call


def row_of(*lines: dict[str, Any]) -> dict[str, Any]:
    story = CallRecord.new("a")
    for line in lines:
        told = read_fact(json.dumps(line).encode())
        assert told is not None
        story.apply([told])
    return story.row


def refused(status: int, **more: Any) -> dict[str, Any]:
    return row_of(fact("a", "refused", 0, **identity(), status=status, why="worker_full", **more))


def test_a_call_counts_once_its_bot_is_heard_and_once_more_when_it_has_ended() -> None:
    lines = whole_call("a")
    told = [counts_of(row_of(*lines[:count])) for count in range(1, len(lines) + 1)]
    heard = {"calls": 1, "set_up 34": 1, "first_audio 54": 1}
    assert told[:4] == [{}] * 4
    assert told[4:14] == [heard] * 10
    assert told[14] == {**heard, "ended": 1, "good": 1, "hand_off 47": 1}


def test_a_bot_that_is_never_heard() -> None:
    lines = whole_call("a")
    del lines[4]
    silent = row_of(*(line for line in lines if line["what"] != "speech_began"))
    assert counts_of(silent) == {"calls": 1, "set_up 34": 1, "ended": 1, "good": 1, "hand_off 47": 1}


def test_a_hand_off_that_only_the_end_has_told_of_took_nobody_knows_how_long() -> None:
    lines = [line for line in whole_call("a") if line["what"] != "attempt"]
    told = counts_of(row_of(*lines))
    assert told["good"] == 1
    assert not [name for name in told if name.startswith("hand_off")]


def test_refusals_by_cause_and_take_overs() -> None:
    assert counts_of(refused(503)) == {"refused worker_full": 1}
    lines = whole_call("a")
    assert counts_of(row_of(*lines, fact("a", "taken_over", 9, take_overs=2)))["take_overs"] == 2


@pytest.mark.parametrize(
    ("row", "needed"),
    [
        (row_of(*whole_call("a")), False),
        (row_of(*whole_call("a")[:6]), False),
        (refused(403), False),
        (refused(503), True),
        (row_of(*whole_call("a"), fact("a", "bye_overdue", 9)), True),
        (row_of(*whole_call("a")[:13], fact("a", "attempt", 7, number=1, verdict="failed")), True),
        (row_of(*whole_call("a")[:13], fact("a", "attempt_began", 8, number=2)), True),
        ({**row_of(*whole_call("a")), "fault": "bot"}, True),
        ({**row_of(*whole_call("a")), "end_unseen": True}, True),
        ({**row_of(*whole_call("a")), "sip_hangup_disposition": "send_bye"}, True),
    ],
)
def test_which_calls_somebody_should_look_at(row: dict[str, Any], needed: bool) -> None:
    assert needs_attention(row) is needed
    assert row["attention"] in (needed, False)


@given(st.lists(st.floats(0.0011, 990), min_size=1, max_size=60))
def test_a_quantile_is_within_six_percent(values: list[float]) -> None:
    buckets: dict[int, int] = {}
    for value in values:
        buckets[summary._bucket(value)] = buckets.get(summary._bucket(value), 0) + 1
    for share in (50, 95):
        told, true = quantile(buckets, share / 100), percentile(sorted(values), share)
        assert told is not None
        assert true is not None
        assert math.isclose(told, true, rel_tol=0.065)


def test_the_ends_of_a_histogram() -> None:
    assert quantile({}, 0.5) is None
    assert summary._bucket(0.0) == summary._bucket(-1.0) == 0
    assert quantile({0: 1}, 0.95) == 0.0005
    assert quantile({summary._bucket(1e8): 1}, 0.5) == 1000
    # Neighbours meet: nothing is in two buckets, or in none.
    for place in range(1, summary.LAST_BUCKET):
        edge = summary.SMALLEST * 10 ** (place / summary.PER_DECADE)
        assert summary._bucket(edge * 1.0001) == place + 1
        assert summary._bucket(edge * 0.9999) == place


def test_causes_are_bounded() -> None:
    told = summary._sum({}, {f"refused cause-{number}": 1 for number in range(100)})
    assert len(told) == summary.MAX_REFUSAL_CAUSES + 1
    assert told["refused others"] == 100 - summary.MAX_REFUSAL_CAUSES


def test_a_change_that_changes_nothing_is_none() -> None:
    row, changes = row_of(*whole_call("a")), SummaryChanges()
    changes.replace(row, {**row, "reason": "another"})
    assert changes.counts == {}
    changes.replace(row, {**row, "workspace_id": None})
    assert {place[1] for place in changes.counts} == {ACME, summary.NOBODY}
    assert sum(map(abs, map(sum, (counts.values() for counts in changes.counts.values())))) > 0


def test_a_quarter_is_of_its_clock() -> None:
    assert {summary.interval_of(NOON + random.Random(1).uniform(0, 899.9)) for _ in range(9)} == {int(NOON)}
    assert summary.interval_of(NOON - 0.1) == NOON - 900
