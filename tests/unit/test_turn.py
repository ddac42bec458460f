"""Which test files run at one time (tests/support/turn.py)."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.support.turn import Turn

LIMIT = 10.0


class Comer(threading.Thread):
    """Somebody who waits for a turn, and keeps it until told."""

    def __init__(self, room: Path, alone: bool) -> None:
        super().__init__(daemon=True)
        self._turn, self._alone = Turn(room), alone
        self.has, self.leave = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        self._turn.begin(self._alone)
        self.has.set()
        self.leave.wait(LIMIT)
        self._turn.end()


@pytest.fixture
def room(tmp_path: Path) -> Path:
    path = tmp_path / "room"
    path.touch()
    return path


def waits_in(room: Path) -> bool:
    """Whether the kernel has somebody who waits for the lock (proc_locks(5))."""
    inode = f":{room.stat().st_ino} "
    return any("->" in line and inode in line for line in Path("/proc/locks").read_text().splitlines())


def test_many_at_once(room: Path) -> None:
    comers = [Comer(room, alone=False) for _ in range(3)]
    assert all(comer.has.wait(LIMIT) for comer in comers)
    for comer in comers:
        comer.leave.set()


@pytest.mark.parametrize(("first", "second"), [(False, True), (True, False), (True, True)])
def test_who_is_alone_waits_for_others_and_they_for_it(room: Path, first: bool, second: bool) -> None:
    inside = Comer(room, first)
    assert inside.has.wait(LIMIT)
    comer = Comer(room, second)
    while not waits_in(room):
        assert not comer.has.is_set() and inside.is_alive()
    assert not comer.has.is_set()
    inside.leave.set()
    assert comer.has.wait(LIMIT)
    comer.leave.set()


def test_a_turn_is_taken_from_its_begin_to_its_end(room: Path) -> None:
    turn = Turn(room)
    turn.end()  # of none
    assert not turn.taken
    turn.begin(alone=True)
    assert turn.taken
    turn.end()
    assert not turn.taken
    turn.begin(alone=True)
    turn.end()
