"""The calls that live now, as the keeper remembers them: what who watches is told of."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from eslbot.ledger.fold import Row
from eslbot.ledger.store import MAX_LIVE

#: Ended calls that are remembered for those who watch, who look every second; one is some 6 kB.
MAX_ENDED = 1000


@dataclass(frozen=True, slots=True)
class Health:
    """Of the ledger: whether the database takes what is written, and the bytes that wait for it."""

    up: bool
    backlog: int


class Live:
    """Written by the keeper's thread, read by the desk's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version = 0
        # Rows and the versions in which they came, in that order.
        self._rows: OrderedDict[str, tuple[int, Row]] = OrderedDict()
        self._ended: OrderedDict[str, tuple[int, Row]] = OrderedDict()
        self.health = Health(False, 0)

    def put(self, rows: Iterable[Row]) -> None:
        """These calls are now as in ``rows``."""
        with self._lock:
            for row in rows:
                self._version += 1
                call_id = row["call_id"]
                self._rows.pop(call_id, None)
                self._ended.pop(call_id, None)
                place = self._rows if row["ended_at"] is None else self._ended
                place[call_id] = (self._version, row)
            while len(self._rows) > MAX_LIVE:
                self._rows.popitem(last=False)
            while len(self._ended) > MAX_ENDED:
                self._ended.popitem(last=False)

    def drop(self, call_ids: Iterable[str]) -> None:
        """Another host's keeper has them now: here they have ended, though nothing is known of their end."""
        with self._lock:
            for call_id in call_ids:
                if (was := self._rows.pop(call_id, None)) is not None:
                    self._version += 1
                    self._ended[call_id] = (self._version, was[1])

    def all(self) -> tuple[int, list[Row]]:
        """Every live call, the newest first, and the version to ask :meth:`since` with."""
        with self._lock:
            rows = [row for _, row in self._rows.values()]
            version = self._version
        return version, sorted(rows, key=lambda row: -float(row["invited_at"]))

    def since(self, version: int) -> tuple[int, list[Row], list[Row]]:
        """The version now, and what has changed and what has ended since ``version``."""
        with self._lock:
            return self._version, _newer(self._rows, version), _newer(self._ended, version)


def _newer(rows: OrderedDict[str, tuple[int, Row]], version: int) -> list[Row]:
    found = []
    for when, row in reversed(rows.values()):
        if when <= version:
            break
        found.append(row)
    found.reverse()
    return found
