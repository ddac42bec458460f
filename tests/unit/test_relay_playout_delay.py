"""What is learnt of a bot's lateness."""

from __future__ import annotations

import pytest

from eslbot.relay.playout_delay import MAX_DELAY, PlayoutDelay


def utterance(delay: PlayoutDelay, *messages: tuple[float, float]) -> None:
    for arrival, seconds in messages:
        delay.message(arrival, seconds)
    delay.utterance_over()


def test_a_bot_that_is_never_late_needs_none() -> None:
    delay = PlayoutDelay()
    utterance(delay, *((i * 0.001, 0.2) for i in range(20)))
    assert delay.seconds == 0


def test_it_grows_at_once_to_the_greatest_lateness_against_the_earliest_message() -> None:
    delay = PlayoutDelay()
    delay.message(10.0, 0.1)
    delay.message(10.08, 0.1)  # 20 ms early
    delay.message(10.24, 0.1)  # 40 ms late
    assert delay.seconds == pytest.approx(0.063)


def test_it_shrinks_slowly() -> None:
    delay = PlayoutDelay()
    utterance(delay, (0, 0.1), (0.14, 0.1))
    for _ in range(10):
        utterance(delay, (0, 0.1), (0.1, 0.1))
    assert delay.seconds == pytest.approx(0.04 * 0.95**10 + 0.003)


def test_a_pause_behind_a_burst_is_no_lateness() -> None:
    delay = PlayoutDelay()
    burst = [(i * 0.0001, 0.02) for i in range(50)]
    utterance(delay, *burst, (0.9, 0.02), (1.15, 0.02))
    assert delay.seconds == 0


def test_a_pause_longer_than_any_network_makes_is_none() -> None:
    delay = PlayoutDelay()
    utterance(delay, (0, 0.1), (0.1 + MAX_DELAY + 0.01, 0.1))
    assert delay.seconds == 0
    utterance(delay, (0, 0.1), (0.1 + MAX_DELAY - 0.01, 0.1))
    assert delay.seconds == pytest.approx(MAX_DELAY - 0.01 + 0.003)


def test_utterances_have_nothing_to_do_with_each_other() -> None:
    delay = PlayoutDelay()
    utterance(delay, (0, 0.1), (0.1, 0.1))
    utterance(delay, (7.05, 0.1), (7.15, 0.1))
    assert delay.seconds == 0


def test_a_workspace_learns_from_its_calls_and_new_calls_from_it() -> None:
    workspace = PlayoutDelay()
    first, second = workspace.of_call(), workspace.of_call()
    utterance(first, (0, 0.1), (0.15, 0.1))
    assert second.seconds == 0
    assert workspace.seconds == workspace.of_call().seconds == first.seconds == pytest.approx(0.053)
