"""The page's queries to the ledger's database, bounded in number, in time and in the size of answers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine

from eslbot.ledger import queries, summary, tenants
from eslbot.ledger.database import LedgerDown, reading
from eslbot.ledger.filters import Filter
from eslbot.ledger.queries import CallDetails, Place
from eslbot.ledger.schema import Row

#: Queries that run at one time, those that may wait for their turn, and for how many seconds.
MAX_CONCURRENT, MAX_QUEUED, QUEUE_TIMEOUT = 4, 4, 2.0
#: Seconds that one query may take.
QUERY_TIMEOUT = 5.0
#: Seconds for which an answer is kept that every page asks for again and again.
CACHE_SECONDS = 2.0
#: Seconds after a query in which the page counts as in use.
IN_USE_FOR = 10.0
#: Bytes of JSON of a call's timeline and of its notifications: a browser has to show them.
MAX_TIMELINE_BYTES, MAX_NOTIFICATIONS_BYTES = 750_000, 125_000


class LedgerBusy(Exception):
    """There are too many queries at this moment."""


class QueryService:
    """Queries the database of ``engine``, which returns None as long as there is no database.

    Each method raises :class:`LedgerDown` and :class:`LedgerBusy`. ``workspaces`` are the ids of the tenants
    whose calls the viewer may see; None means all.
    """

    def __init__(self, engine: Callable[[], Engine | None]) -> None:
        self._engine = engine
        self._running = threading.BoundedSemaphore(MAX_CONCURRENT)
        self._admitted = threading.BoundedSemaphore(MAX_CONCURRENT + MAX_QUEUED)
        self._asked_at = float("-inf")
        self._lock = threading.Lock()
        self._cache: dict[tuple[Callable[..., Any], frozenset[str] | None], tuple[float, Any]] = {}

    @property
    def in_use(self) -> bool:
        """Whether there was a query a moment ago."""
        return time.monotonic() - self._asked_at < IN_USE_FOR

    def calls(self, wanted: Filter, limit: int, before: Place | None) -> list[Row]:
        """Calls, newest first; ``before`` is the place of the last one that is known."""
        return list(self._run(queries.find_calls, wanted, limit, before))

    def chart(self, begin: int, end: int, step: int, workspaces: frozenset[str] | None) -> Row:
        """What the calls of a time came to, a point for each ``step`` seconds."""
        return dict(self._run(summary.chart, begin, end, step, workspaces))

    def call(self, call_id: str, workspaces: frozenset[str] | None) -> CallDetails | None:
        """One call; None where these workspaces have none of this id."""
        found: CallDetails | None = self._run(queries.call_details, call_id, workspaces)
        if found is None:
            return None
        timeline = truncate(found.timeline, MAX_TIMELINE_BYTES)
        sent = truncate(found.notifications, MAX_NOTIFICATIONS_BYTES)
        return CallDetails(found.call, timeline, sent, found.turns)

    def tenants(self, workspaces: frozenset[str] | None) -> list[Row]:
        """Each tenant's last hour."""
        return list(self._cached(tenants.tenants, workspaces))

    def restarts(self, workspaces: frozenset[str] | None) -> Row:
        """FreeSWITCH's restarts of the last hour."""
        return dict(self._cached(tenants.restarts, workspaces))

    def _cached(self, query: Callable[..., Any], workspaces: frozenset[str] | None) -> Any:
        """The answer, which may be a moment old."""
        now = time.monotonic()
        with self._lock:
            known = self._cache.get((query, workspaces))
        if known is not None and now - known[0] <= CACHE_SECONDS:
            self._asked_at = now
            return known[1]
        answer = self._run(query, time.time(), workspaces)
        with self._lock:
            self._cache = {key: one for key, one in self._cache.items() if now - one[0] <= CACHE_SECONDS}
            self._cache[query, workspaces] = (now, answer)
        return answer

    def _run(self, query: Callable[..., Any], *arguments: Any) -> Any:
        self._asked_at = time.monotonic()
        with self._turn():
            engine = self._engine()
            if engine is None:
                raise LedgerDown("the database is down")
            with reading(engine, QUERY_TIMEOUT) as connection:
                return query(connection, *arguments)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._admitted.acquire(blocking=False):
            raise LedgerBusy(f"{MAX_CONCURRENT + MAX_QUEUED} questions are under way")
        try:
            if not self._running.acquire(timeout=QUEUE_TIMEOUT):
                raise LedgerBusy(f"no turn within {QUEUE_TIMEOUT:g} s")
            try:
                yield
            finally:
                self._running.release()
        finally:
            self._admitted.release()


def truncate(rows: list[Row], max_bytes: int) -> list[Row]:
    """The first of ``rows``, as many as ``max_bytes`` of JSON hold; one at least."""
    size = 0
    for number, row in enumerate(rows):
        size += len(json.dumps(row)) + 2
        if number and size > max_bytes:
            return rows[:number]
    return rows
