"""What is read from a channel, whole or broken."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from eslbot.calls.channel_state import FAR, CallClock, ChannelState
from eslbot.outcome import Outcome, Stage
from tests.support.wire import NO_NUMBERS


def state(answered: bool = True, **variables: str) -> ChannelState:
    state = {"Answer-State": "answered" if answered else "ringing"}
    return ChannelState({**state, **{f"variable_eslbot_{name}": value for name, value in variables.items()}})


def test_nothing_was_noted() -> None:
    empty = ChannelState({})
    assert (empty.stage, empty.take_overs, empty.attempts) == (None, 0, 0)
    assert (empty.next_attempt, empty.held_at, empty.answered_for) == (None, None, 0.0)
    assert empty.ended.outcome is Outcome.CONTROLLER_LOST


def test_everything_was_noted() -> None:
    full = state(
        stage="held",
        take_overs="3",
        attempts="2",
        next_attempt="47.250",
        held_at="42.125",
        outcome="bot_ended",
        reason="done",
        properties='{"summary": "billing"}',
    )
    assert (full.stage, full.take_overs, full.attempts) == (Stage.HELD, 3, 2)
    assert (full.next_attempt, full.held_at) == (47.25, 42.125)
    assert (full.ended.outcome, full.ended.reason) == (Outcome.BOT_ENDED, "done")
    assert full.ended.properties == {"summary": "billing"}


@pytest.mark.parametrize("text", ["", "nonsense", "HELD"])
def test_an_answered_call_is_at_least_answered(text: str) -> None:
    assert state(stage=text).stage is Stage.ANSWERED
    assert state(answered=False, stage="held").stage is None


@pytest.mark.parametrize("text", ["many", "inf", *NO_NUMBERS])
def test_a_number_that_is_none_is_0(text: str) -> None:
    assert (state(take_overs=text).take_overs, state(attempts=text).attempts) == (0, 0)


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "-inf", "-1", "1e300", str(2 * FAR)])
def test_a_time_that_is_none_was_not_noted(text: str) -> None:
    assert state(held_at=text).held_at is None
    assert state(next_attempt=text).next_attempt is None


@pytest.mark.parametrize("properties", ["", "{", "[]", "null", '"text"', "7"])
def test_properties_that_are_no_object_end_no_call(properties: str) -> None:
    ended = state(outcome="bot_ended", properties=properties).ended
    assert (ended.outcome, dict(ended.properties)) == (Outcome.CONTROLLER_LOST, {})


def test_the_time_since_the_answer_is_freeswitchs_own() -> None:
    times = {"Event-Date-Timestamp": "1700000060000000", "Caller-Channel-Answered-Time": "1700000000500000"}
    assert ChannelState(times).answered_for == pytest.approx(59.5)
    assert ChannelState({**times, "Event-Date-Timestamp": "1600000000000000"}).answered_for == 0.0
    for name in times:
        for text in NO_NUMBERS:
            assert ChannelState({**times, name: text}).answered_for == 0.0


def test_the_calls_clock_goes_on_where_freeswitchs_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the host's clock, here of an hour, moves it by nothing."""
    monotonic, wall = 1000.0, 1_700_000_000.0
    monkeypatch.setattr(
        "eslbot.calls.channel_state.time", SimpleNamespace(monotonic=lambda: monotonic, time=lambda: wall)
    )
    clock = CallClock(30.0)
    assert clock.now() == 30.0
    monotonic, wall = 1002.5, wall + 3600 + 2.5
    assert clock.now() == 32.5
    assert clock.epoch(30.0) == wall - 2.5


def test_what_the_ledger_is_told_of_a_held_call_is_a_date() -> None:
    times = {"Event-Date-Timestamp": "1700000060000000", "Caller-Channel-Created-Time": "1700000000000000"}
    held = ChannelState({**times, "Answer-State": "answered", "variable_eslbot_held_at": "50.0"}).summary()[
        "held_since"
    ]
    assert held == pytest.approx(time.time() - 10, abs=1)
    assert "held_since" not in ChannelState(times).summary()
