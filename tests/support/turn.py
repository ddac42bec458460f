"""Whose turn it is, of the test files that run at one time: one that is to be alone waits for the others.

Locks of two files (flock(2)) do it, among all processes of a checkout. The second one is held while a file
runs: by many at once, or by one that is alone. The first one is held while somebody waits for the second:
whoever comes behind one who is to be alone waits behind it, or there would be somebody at any time.
"""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import BinaryIO

HERE = Path(__file__).parent


class Turn:
    """That of one process."""

    def __init__(self, gate: Path = HERE / "__init__.py", room: Path = HERE / "turn.py") -> None:
        self._gate, self._room = gate, room
        self._held: BinaryIO | None = None

    @property
    def taken(self) -> bool:
        """Between :meth:`begin` and :meth:`end`."""
        return self._held is not None

    def begin(self, alone: bool) -> None:
        """Wait for it."""
        with self._gate.open("rb") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            held = self._room.open("rb")
            fcntl.flock(held, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
        self._held = held

    def end(self) -> None:
        """It is the next one's."""
        if self._held is not None:
            fcntl.flock(self._held, fcntl.LOCK_UN)  # a child that was forked has it open, too
            self._held.close()
            self._held = None
