"""How many calls each workspace has up, over all workers of this host.

Workers are processes; they share one anonymous memory map that the arbiter makes before it forks. Each worker
counts in a row of its own, so that no two ever write the same cell, and a row is cleared when its worker is
gone, however it went.
"""

from __future__ import annotations

import mmap
from array import array

#: Workers at one time, the old and the new ones of a reload together, and workspaces ever seen.
ROWS = 256
COLUMNS = 1024

_NOTHING = array("I", [0]) * COLUMNS


class CallCounts:
    """Counts by worker row and workspace; columns are given out by the arbiter and never taken back."""

    def __init__(self) -> None:
        # A workspace's cells lie side by side: they are added up at each call; a row is cleared seldom.
        self._cells = memoryview(mmap.mmap(-1, ROWS * COLUMNS * _NOTHING.itemsize)).cast("I")
        self._columns: dict[str, int] = {}
        self._taken: set[int] = set()

    def know(self, workspace_ids: list[str]) -> None:
        """Give a column to each new workspace; before the fork. Raises ValueError, and then gave none."""
        if len(self._columns.keys() | set(workspace_ids)) > COLUMNS:
            raise ValueError(f"more than {COLUMNS} workspaces since the start; restart to forget old ones")
        for workspace_id in workspace_ids:
            self._columns.setdefault(workspace_id, len(self._columns))

    def take_row(self) -> int:
        """A row for a worker about to be forked. Raises RuntimeError when there are too many."""
        row = next((row for row in range(ROWS) if row not in self._taken), None)
        if row is None:  # never a StopIteration: gunicorn's arbiter takes that for its own end
            raise RuntimeError(f"more than {ROWS} workers at one time")
        self._taken.add(row)
        return row

    def free_row(self, row: int) -> None:
        """Clear the row of a worker that is gone."""
        self._cells[row::ROWS] = memoryview(_NOTHING)
        self._taken.discard(row)

    def add(self, row: int, workspace_id: str, change: int) -> None:
        """Count one call more (1) or less (-1) in the worker's own row."""
        cell = self._columns[workspace_id] * ROWS + row
        self._cells[cell] = max(0, self._cells[cell] + change)

    def total(self, workspace_id: str) -> int:
        """Calls of a workspace in all workers."""
        first = self._columns[workspace_id] * ROWS
        return sum(self._cells[first : first + ROWS])
