"""Counting calls over processes."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.server.call_counts import COLUMNS, ROWS, CallCounts

A, B = "workspace-a", "workspace-b"


def counts(*workspaces: str) -> CallCounts:
    made = CallCounts()
    made.know(list(workspaces or (A, B)))
    return made


def in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a forked process and wait for its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_nothing_is_counted_at_first() -> None:
    made = counts()
    assert (made.total(A), made.total(B)) == (0, 0)


def test_workspaces_are_counted_apart() -> None:
    made = counts()
    row = made.take_row()
    made.add(row, A, 1)
    made.add(row, A, 1)
    made.add(row, B, 1)
    made.add(row, A, -1)
    assert (made.total(A), made.total(B)) == (1, 1)


def test_processes_add_up() -> None:
    made = counts()
    rows = [made.take_row() for _ in range(3)]
    assert len(set(rows)) == 3
    for number, row in enumerate(rows, 1):
        in_child(lambda row=row, number=number: [made.add(row, A, 1) for _ in range(number)] and None)
    assert made.total(A) == 6


def test_a_child_sees_what_others_count_later() -> None:
    made = counts()
    ours, childs = made.take_row(), made.take_row()
    heard_read, heard_write = os.pipe()

    def child() -> None:
        os.read(heard_read, 1)
        assert made.total(A) == 2
        made.add(childs, A, 5)

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    made.add(ours, A, 2)
    os.write(heard_write, b"x")
    _, status = os.waitpid(pid, 0)
    os.close(heard_read)
    os.close(heard_write)
    assert os.waitstatus_to_exitcode(status) == 0
    assert made.total(A) == 7


def test_the_calls_of_a_worker_that_died_are_forgotten() -> None:
    made = counts()
    dead, living = made.take_row(), made.take_row()
    in_child(lambda: made.add(dead, A, 9))
    made.add(living, A, 1)
    made.free_row(dead)
    assert made.total(A) == 1
    assert made.take_row() == dead
    assert made.total(A) == 1


def test_a_count_never_goes_below_nothing() -> None:
    made = counts()
    row = made.take_row()
    made.add(row, A, -1)
    assert made.total(A) == 0
    made.add(row, A, 1)
    assert made.total(A) == 1


def test_a_reload_keeps_the_columns_it_has_given() -> None:
    made = counts(A)
    row = made.take_row()
    made.add(row, A, 3)
    made.know([B, A])
    made.know([B])
    assert (made.total(A), made.total(B)) == (3, 0)


def test_too_many_workspaces_are_an_error_and_no_overwriting() -> None:
    with pytest.raises(ValueError, match=f"more than {COLUMNS} workspaces"):
        counts(*(str(number) for number in range(COLUMNS + 1)))


def test_too_many_workspaces_leave_what_there_was() -> None:
    made = counts(A)
    with pytest.raises(ValueError, match="restart"):
        made.know([str(number) for number in range(COLUMNS)])
    made.know([A, B])
    row = made.take_row()
    made.add(row, B, 1)
    assert (made.total(A), made.total(B)) == (0, 1)


def test_too_many_workers_are_an_error_that_is_not_the_arbiters_own_end() -> None:
    made = counts()
    for _ in range(ROWS):
        made.take_row()
    with pytest.raises(RuntimeError, match=f"more than {ROWS} workers"):
        made.take_row()


def test_first_and_last_cells_do_not_touch() -> None:
    names = [str(number) for number in range(COLUMNS)]
    made = counts(*names)
    rows = [made.take_row() for _ in range(ROWS)]
    for row in (rows[0], rows[-1]):
        for name in (names[0], names[-1]):
            made.add(row, name, 1)
    assert [made.total(names[n]) for n in (0, 1, -2, -1)] == [2, 0, 0, 2]
    made.free_row(rows[-1])
    assert [made.total(names[n]) for n in (0, 1, -2, -1)] == [1, 0, 0, 1]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from([A, B]), st.sampled_from([1, -1])), max_size=40))
def test_counts_are_what_was_added_whatever_the_order(steps: list[tuple[int, str, int]]) -> None:
    made = counts()
    rows = [made.take_row() for _ in range(4)]
    expected: dict[tuple[int, str], int] = {}
    for row, name, change in steps:
        made.add(rows[row], name, change)
        expected[row, name] = max(0, expected.get((row, name), 0) + change)
    for name in (A, B):
        assert made.total(name) == sum(count for (_, n), count in expected.items() if n == name)
