"""A bot that means well never meets its budget, and one that floods does at once."""

from __future__ import annotations

import pytest

from eslbot.relay.budgets import BYTES, BYTES_AT_ONCE, MESSAGES, MESSAGES_AT_ONCE, Budget

#: 20 ms of L16 at 24,000 Hz as base64 in JSON.
FRAME = 1400


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_pieces_of_ten_milliseconds_may_come_for_ever(clock: Clock) -> None:
    budget = Budget(clock)
    for _ in range(100 * 60):
        assert budget.message(FRAME // 2) is None
        clock.now += 0.01


def test_utterances_may_come_at_once(clock: Clock) -> None:
    budget = Budget(clock)
    for _ in range(10):
        assert [budget.message(FRAME) for _ in range(3000)] == [None] * 3000  # a minute
        clock.now += 60.0
    assert [budget.message(FRAME // 2) for _ in range(6000)] == [None] * 6000


def test_a_flood_of_messages_is_too_much(clock: Clock) -> None:
    budget = Budget(clock)
    assert not any(budget.message(2) for _ in range(MESSAGES_AT_ONCE))
    assert budget.message(2) == f"more than {MESSAGES} messages a second and {MESSAGES_AT_ONCE} at once"


def test_a_flood_of_bytes_is_too_much(clock: Clock) -> None:
    budget = Budget(clock)
    assert budget.message(BYTES_AT_ONCE) is None
    assert budget.message(1) == f"more than {BYTES} bytes a second and {BYTES_AT_ONCE} at once"


def test_more_than_the_rate_is_too_much_in_the_end(clock: Clock) -> None:
    budget = Budget(clock)
    seconds = 0
    while all(budget.message(2) is None for _ in range(2 * MESSAGES)):
        clock.now += 1.0
        seconds += 1
    assert seconds == pytest.approx(MESSAGES_AT_ONCE / MESSAGES, abs=1)


def test_what_was_not_used_is_not_saved_up(clock: Clock) -> None:
    budget = Budget(clock)
    clock.now += 3600.0
    assert not any(budget.message(2) for _ in range(MESSAGES_AT_ONCE))
    assert budget.message(2)
    clock.now += 1.0
    assert not any(budget.message(2) for _ in range(MESSAGES - 1))
