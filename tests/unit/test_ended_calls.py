"""Remembering ended calls over processes."""

from __future__ import annotations

from eslbot.server.call_counts import ROWS
from eslbot.server.ended_calls import KEPT, EndedCalls
from tests.unit.test_call_counts import in_child


def test_none_is_known_at_first() -> None:
    assert not EndedCalls().knows("a")


def test_a_call_is_known_in_all_processes_and_outlives_its_worker() -> None:
    ended = EndedCalls()
    in_child(lambda: ended.add(7, "a"))  # which has ended since
    assert ended.knows("a") and not ended.knows("b")
    in_child(lambda: ended.add(7, "b"))  # the row's next worker
    assert ended.knows("a") and ended.knows("b")


def test_a_row_forgets_its_own_oldest_alone() -> None:
    ended = EndedCalls()
    ended.add(0, "neighbour below")
    ended.add(2, "neighbour above")
    for number in range(KEPT + 1):
        ended.add(1, f"call-{number}")
    assert not ended.knows("call-0")
    assert all(ended.knows(f"call-{number}") for number in range(1, KEPT + 1))
    assert ended.knows("neighbour below") and ended.knows("neighbour above")


def test_the_last_row_has_room() -> None:
    ended = EndedCalls()
    for number in range(KEPT):
        ended.add(ROWS - 1, f"call-{number}")
    assert ended.knows("call-0") and ended.knows(f"call-{KEPT - 1}")
