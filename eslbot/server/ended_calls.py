"""The calls that ended lately, known to all workers: a FreeSWITCH that dies may bring one back.

FreeSWITCH deletes a call's recovery row a moment behind its BYE (``switch_core_sqldb.c:
switch_core_recovery_untrack`` only queues it). Where it dies within that moment it takes the ended call up
again, and nothing else tells that call from one that was just answered: what a controller has left of it went
with it. So the last that each worker saw end are kept in one anonymous memory map, made by the arbiter before
it forks. A worker writes to a row of its own, which outlives it. Nothing is written to a disk.
"""

from __future__ import annotations

import mmap
from hashlib import blake2b

from eslbot.server.call_counts import ROWS

#: Bytes of a call's digest, and of the count that stands before a row's calls.
_SIZE = 16
#: Calls that a row remembers: its worker's last seconds. With the count a row is one page of memory.
KEPT = 255
_ROW = (1 + KEPT) * _SIZE


class EndedCalls:
    """A ring of digests a worker row (:class:`~eslbot.server.call_counts.CallCounts` gives the rows out)."""

    def __init__(self) -> None:
        self._map = mmap.mmap(-1, ROWS * _ROW)

    def add(self, row: int, call_id: str) -> None:
        """Remember a call whose end this worker has seen; its row's oldest is forgotten for it."""
        start = row * _ROW
        count = int.from_bytes(self._map[start : start + _SIZE], "little")
        at = start + (1 + count % KEPT) * _SIZE
        self._map[at : at + _SIZE] = _digest(call_id)
        self._map[start : start + _SIZE] = (count + 1).to_bytes(_SIZE, "little")

    def knows(self, call_id: str) -> bool:
        """Whether any worker of this host has seen it end lately."""
        return self._map.find(_digest(call_id)) != -1


def _digest(call_id: str) -> bytes:
    return blake2b(call_id.encode(), digest_size=_SIZE).digest()
