"""Which test files run at one time (tests/support/turn.py)."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from tests.support.turn import Turn

LIMIT = 10.0


class Comer(threading.Thread):
    """Somebody who waits for a turn, and keeps it until told."""

    def __init__(self, folder: Path, alone: bool) -> None:
        super().__init__(daemon=True)
        self.turn, self.alone = Turn(folder / "gate", folder / "room"), alone
        self.has, self.leave = threading.Event(), threading.Event()

    def run(self) -> None:
        self.turn.begin(self.alone)
        self.has.set()
        self.leave.wait(LIMIT)
        self.turn.end()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "gate").touch()
    (tmp_path / "room").touch()
    return tmp_path


def comes(folder: Path, alone: bool) -> Comer:
    comer = Comer(folder, alone)
    comer.start()
    return comer


def gate_is_held(folder: Path) -> bool:
    with (folder / "gate").open("rb") as gate:
        try:
            fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def waits(folder: Path, comer: Comer) -> None:
    """Until it is at the gate's other side, where the room is full."""
    while not gate_is_held(folder):
        assert comer.is_alive() and not comer.has.is_set()


def test_many_at_once(folder: Path) -> None:
    comers = [comes(folder, alone=False) for _ in range(3)]
    assert all(comer.has.wait(LIMIT) for comer in comers)
    for comer in comers:
        comer.leave.set()
        comer.join(LIMIT)
        assert not comer.turn.taken


@pytest.mark.parametrize("first", [False, True], ids=["shared", "alone"])
@pytest.mark.parametrize("second", [False, True], ids=["shared", "alone"])
def test_who_is_alone_waits_for_others_and_they_for_it(folder: Path, first: bool, second: bool) -> None:
    inside = comes(folder, first)
    assert inside.has.wait(LIMIT)
    comer = comes(folder, second)
    if first or second:
        waits(folder, comer)
        assert not comer.has.is_set()
        inside.leave.set()
    assert comer.has.wait(LIMIT)
    inside.leave.set()
    comer.leave.set()


def test_who_comes_behind_one_that_is_to_be_alone_waits_behind_it(folder: Path) -> None:
    inside = comes(folder, alone=False)
    assert inside.has.wait(LIMIT)
    alone = comes(folder, alone=True)
    waits(folder, alone)
    behind = comes(folder, alone=False)
    inside.leave.set()
    assert alone.has.wait(LIMIT)
    assert not behind.has.is_set()
    alone.leave.set()
    assert behind.has.wait(LIMIT)
    behind.leave.set()


def test_an_end_without_a_beginning_is_none(folder: Path) -> None:
    turn = Turn(folder / "gate", folder / "room")
    turn.end()
    assert not turn.taken
