"""What is learnt of a bot's lateness."""

from __future__ import annotations

import pytest

from eslbot.relay.margin import LONGEST, Margin


def utterance(margin: Margin, *messages: tuple[float, float]) -> None:
    for arrival, seconds in messages:
        margin.message(arrival, seconds)
    margin.utterance_over()


def test_a_bot_that_is_never_late_needs_none() -> None:
    margin = Margin()
    utterance(margin, *((i * 0.001, 0.2) for i in range(20)))
    assert margin.seconds == 0


def test_it_grows_at_once_to_the_greatest_lateness_against_the_earliest_message() -> None:
    margin = Margin()
    margin.message(10.0, 0.1)
    margin.message(10.08, 0.1)  # 20 ms early
    margin.message(10.24, 0.1)  # 40 ms late
    assert margin.seconds == pytest.approx(0.063)


def test_it_shrinks_slowly() -> None:
    margin = Margin()
    utterance(margin, (0, 0.1), (0.14, 0.1))
    for _ in range(10):
        utterance(margin, (0, 0.1), (0.1, 0.1))
    assert margin.seconds == pytest.approx(0.04 * 0.95**10 + 0.003)


def test_a_pause_behind_a_burst_is_no_lateness() -> None:
    margin = Margin()
    burst = [(i * 0.0001, 0.02) for i in range(50)]
    utterance(margin, *burst, (0.9, 0.02), (1.15, 0.02))
    assert margin.seconds == 0


def test_a_pause_longer_than_any_network_makes_is_none() -> None:
    margin = Margin()
    utterance(margin, (0, 0.1), (0.1 + LONGEST + 0.01, 0.1))
    assert margin.seconds == 0
    utterance(margin, (0, 0.1), (0.1 + LONGEST - 0.01, 0.1))
    assert margin.seconds == pytest.approx(LONGEST - 0.01 + 0.003)


def test_utterances_have_nothing_to_do_with_each_other() -> None:
    margin = Margin()
    utterance(margin, (0, 0.1), (0.1, 0.1))
    utterance(margin, (7.05, 0.1), (7.15, 0.1))
    assert margin.seconds == 0


def test_a_workspace_learns_from_its_calls_and_new_calls_from_it() -> None:
    workspace = Margin()
    first, second = workspace.of_call(), workspace.of_call()
    utterance(first, (0, 0.1), (0.15, 0.1))
    assert second.seconds == 0
    assert workspace.seconds == workspace.of_call().seconds == first.seconds == pytest.approx(0.053)
