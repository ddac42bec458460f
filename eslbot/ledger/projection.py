"""The calls that live now, in memory, as the ledger's writer has folded them: what live pages are told of."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from eslbot.ledger.fold import Row
from eslbot.ledger.store import MAX_LIVE

#: Ended calls that are remembered for those who look again; who looks too seldom begins anew.
MAX_ENDED = 1000


@dataclass(frozen=True, slots=True)
class Health:
    """Of the ledger: whether the database takes what is written, the bytes that wait for it, and why not."""

    up: bool
    backlog: int
    problem: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """A call as it was in one version of the projection; ``row`` is never changed.

    ``texts`` is for whoever shows it: what it looks like, for many who look.
    """

    version: int
    row: Row
    texts: dict[bool, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class News:
    """What has changed since a version. ``anew``: ``changed`` are all living calls; forget the others."""

    version: int
    changed: list[Entry]
    ended: list[Entry]
    health: Health
    anew: bool = False


@dataclass(slots=True)
class Projection:
    """Written by one thread, read by any."""

    _lock: threading.Condition = field(default_factory=threading.Condition)
    _version: int = 0
    # In the order of their versions.
    _living: OrderedDict[str, Entry] = field(default_factory=OrderedDict)
    _ended: OrderedDict[str, Entry] = field(default_factory=OrderedDict)
    #: The version up to which ended calls are not remembered any more.
    _forgotten: int = 0
    _health: Health = Health(False, 0)
    _closed: bool = False

    # -- the writer ---------------------------------------------------------------------------------------

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
                place[call_id] = Entry(self._version, row)
            while len(self._living) > MAX_LIVE:
                self._living.popitem(last=False)
            self._forget()
            if self._version != before:
                self._lock.notify_all()

    def drop(self, call_ids: Iterable[str]) -> None:
        """Another host has them now: here they have ended, though nothing is known of their end."""
        with self._lock:
            for call_id in call_ids:
                if (was := self._living.pop(call_id, None)) is not None:
                    self._version += 1
                    self._ended[call_id] = Entry(self._version, was.row)
            self._forget()
            self._lock.notify_all()

    def _forget(self) -> None:
        while len(self._ended) > MAX_ENDED:
            _, oldest = self._ended.popitem(last=False)
            self._forgotten = oldest.version

    def tell(self, health: Health) -> None:
        """How the ledger is."""
        with self._lock:
            if health != self._health:
                self._health = health
                self._version += 1
                self._lock.notify_all()

    def close(self) -> None:
        """There is no more to come: whoever waits is let go."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()

    # -- readers ------------------------------------------------------------------------------------------

    @property
    def health(self) -> Health:
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

    def since(self, version: int | None) -> News:
        """What has changed since ``version``; everything, for None or where that is too long ago."""
        with self._lock:
            if version is None or version < self._forgotten:
                newest = sorted(self._living.values(), key=lambda entry: -float(entry.row["invited_at"]))
                return News(self._version, newest, [], self._health, anew=True)
            changed, ended = _newer(self._living, version), _newer(self._ended, version)
            return News(self._version, changed, ended, self._health)

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


def _newer(entries: OrderedDict[str, Entry], version: int) -> list[Entry]:
    found = []
    for entry in reversed(entries.values()):
        if entry.version <= version:
            break
        found.append(entry)
    found.reverse()
    return found
