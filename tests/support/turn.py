"""Whose turn it is, of the test files that run at one time: one that is to be alone waits for the others.

A lock of a file that all processes of a run know (flock(2)) does it: it is held while a test file runs, by
many at once, or by one that is alone. Those come last in a run (tests/conftest.py): there is no queue, and
earlier they would wait until the others had no more.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO


class Turn:
    """That of one process."""

    def __init__(self, room: Path) -> None:
        self._room = room
        self._held: BinaryIO | None = None

    @property
    def taken(self) -> bool:
        """Between :meth:`begin` and :meth:`end`."""
        return self._held is not None

    def begin(self, alone: bool) -> None:
        """Wait for it."""
        held = self._room.open("rb")
        fcntl.flock(held, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        self._held = held

    def end(self) -> None:
        """It is the next one's."""
        if self._held is not None:
            fcntl.flock(self._held, fcntl.LOCK_UN)  # a child that was forked has it open, too
            self._held.close()
            self._held = None
