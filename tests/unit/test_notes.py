"""What is read from a channel, whole or broken."""

from __future__ import annotations

import time

import pytest

from eslbot.notes import FAR, Notes
from eslbot.outcome import Outcome, Stage
from tests.support.wire import NO_NUMBERS


def notes(answered: bool = True, **variables: str) -> Notes:
    state = {"Answer-State": "answered" if answered else "ringing"}
    return Notes({**state, **{f"variable_eslbot_{name}": value for name, value in variables.items()}})


def test_nothing_was_noted() -> None:
    empty = Notes({})
    assert (empty.stage, empty.take_overs, empty.spoken, empty.attempts) == (None, 0, False, 0)
    assert (empty.next_attempt, empty.held_since, empty.answered_for) == (None, None, 0.0)
    assert empty.ended.outcome is Outcome.CONTROLLER_LOST


def test_everything_was_noted() -> None:
    now = time.time()
    full = notes(
        stage="held",
        take_overs="3",
        spoken="true",
        attempts="2",
        next_attempt=f"{now + 5:.3f}",
        held_since=f"{now - 5:.3f}",
        outcome="bot_ended",
        reason="done",
        properties='{"summary": "billing"}',
    )
    assert (full.stage, full.take_overs, full.spoken, full.attempts) == (Stage.HELD, 3, True, 2)
    assert full.next_attempt == pytest.approx(now + 5, abs=0.01)
    assert full.held_since == pytest.approx(now - 5, abs=0.01)
    assert (full.ended.outcome, full.ended.reason) == (Outcome.BOT_ENDED, "done")
    assert full.ended.properties == {"summary": "billing"}


@pytest.mark.parametrize("text", ["", "nonsense", "HELD"])
def test_an_answered_call_is_at_least_answered(text: str) -> None:
    assert notes(stage=text).stage is Stage.ANSWERED
    assert notes(answered=False, stage="held").stage is None


@pytest.mark.parametrize("text", ["many", "inf", *NO_NUMBERS])
def test_a_number_that_is_none_is_0(text: str) -> None:
    assert (notes(take_overs=text).take_overs, notes(attempts=text).attempts) == (0, 0)


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "-inf", "0", "1e300", "far"])
def test_a_time_that_is_none_was_not_noted(text: str) -> None:
    text = f"{time.time() + 2 * FAR}" if text == "far" else text
    assert notes(held_since=text).held_since is None
    assert notes(next_attempt=text).next_attempt is None


@pytest.mark.parametrize("properties", ["", "{", "[]", "null", '"text"', "7"])
def test_properties_that_are_no_object_end_no_call(properties: str) -> None:
    ended = notes(outcome="bot_ended", properties=properties).ended
    assert (ended.outcome, dict(ended.properties)) == (Outcome.CONTROLLER_LOST, {})


def test_the_time_since_the_answer_is_freeswitchs_own() -> None:
    times = {"Event-Date-Timestamp": "1700000060000000", "Caller-Channel-Answered-Time": "1700000000500000"}
    assert Notes(times).answered_for == pytest.approx(59.5)
    assert Notes({**times, "Event-Date-Timestamp": "1600000000000000"}).answered_for == 0.0
    for name in times:
        for text in NO_NUMBERS:
            assert Notes({**times, name: text}).answered_for == 0.0
