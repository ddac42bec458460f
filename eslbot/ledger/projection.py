"""The projection: the live calls in memory, as the ledger writer has them, for live pages."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from eslbot.ledger.schema import Row
from eslbot.ledger.store import MAX_LIVE

#: Ended calls that are kept for readers who come again; a reader that comes too late gets everything anew.
MAX_ENDED_CALLS = 1000


@dataclass(frozen=True, slots=True)
class LedgerHealth:
    """Whether the database can be written, the bytes of journals that wait for it, and why it cannot."""

    up: bool
    backlog: int
    problem: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LiveCall:
    """A call as it was in one version of the projection; ``row`` is never changed.

    ``texts`` caches its JSON for many viewers, by whether they may see numbers.
    """

    version: int
    row: Row
    texts: dict[bool, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Update:
    """What has changed since a version. ``anew``: ``changed`` are all live calls; forget any others."""

    version: int
    changed: list[LiveCall]
    ended: list[LiveCall]
    health: LedgerHealth
    anew: bool = False


@dataclass(slots=True)
class Projection:
    """Live calls with versions: written by one thread, read by any."""

    _lock: threading.Condition = field(default_factory=threading.Condition)
    _version: int = 0
    # In the order of their versions.
    _living: OrderedDict[str, LiveCall] = field(default_factory=OrderedDict)
    _ended: OrderedDict[str, LiveCall] = field(default_factory=OrderedDict)
    #: The version up to which ended calls are forgotten.
    _forgotten: int = 0
    _health: LedgerHealth = LedgerHealth(False, 0)
    _closed: bool = False

    # -- for the writer --------------------------------------------------------------------------------------

    def put(self, rows: Iterable[Row]) -> None:
        """These calls are now as in ``rows``, which are not changed afterwards."""
        with self._lock:
            before = self._version
            for row in rows:
                self._version += 1
                call_id = row["call_id"]
                self._living.pop(call_id, None)
                self._ended.pop(call_id, None)
                place = self._living if row["ended_at"] is None else self._ended
                place[call_id] = LiveCall(self._version, row)
            while len(self._living) > MAX_LIVE:
                self._living.popitem(last=False)
            self._forget()
            if self._version != before:
                self._lock.notify_all()

    def drop(self, call_ids: Iterable[str]) -> None:
        """Another host has these calls now: for this one they are over."""
        with self._lock:
            for call_id in call_ids:
                if (was := self._living.pop(call_id, None)) is not None:
                    self._version += 1
                    self._ended[call_id] = LiveCall(self._version, was.row)
            self._forget()
            self._lock.notify_all()

    def _forget(self) -> None:
        while len(self._ended) > MAX_ENDED_CALLS:
            _, oldest = self._ended.popitem(last=False)
            self._forgotten = oldest.version

    def set_health(self, health: LedgerHealth) -> None:
        """How the ledger is now."""
        with self._lock:
            if health != self._health:
                self._health = health
                self._version += 1
                self._lock.notify_all()

    def close(self) -> None:
        """End every wait: there is nothing more to come."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    # -- for readers -----------------------------------------------------------------------------------------

    @property
    def health(self) -> LedgerHealth:
        """How the ledger is."""
        return self._health

    @property
    def closed(self) -> bool:
        """Whether the process is about to end."""
        return self._closed

    @property
    def living(self) -> Mapping[str, Row]:
        """Every living call by its id."""
        with self._lock:
            return MappingProxyType({call_id: entry.row for call_id, entry in self._living.items()})

    def since(self, version: int | None) -> Update:
        """What has changed since ``version``; everything, for None or where that is too long ago."""
        with self._lock:
            if version is None or version < self._forgotten:
                newest = sorted(self._living.values(), key=lambda entry: -float(entry.row["invited_at"]))
                return Update(self._version, newest, [], self._health, anew=True)
            changed, ended = _newer(self._living, version), _newer(self._ended, version)
            return Update(self._version, changed, ended, self._health)

    def wait(self, version: int, seconds: float) -> bool:
        """Wait until there is something newer than ``version``; whether there is, within ``seconds``."""
        deadline = time.monotonic() + seconds
        with self._lock:
            while self._version <= version and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._lock.wait(left)
            return self._version > version


def _newer(entries: OrderedDict[str, LiveCall], version: int) -> list[LiveCall]:
    found = []
    for entry in reversed(entries.values()):
        if entry.version <= version:
            break
        found.append(entry)
    found.reverse()
    return found
