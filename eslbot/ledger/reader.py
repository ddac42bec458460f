"""The page's questions to the ledger's database: bounded in number, in time and in what comes back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Engine

from eslbot.ledger import queries, summary
from eslbot.ledger.database import LedgerDown, reading
from eslbot.ledger.fold import Row
from eslbot.ledger.queries import Filter, Place, Story

#: Questions to the database at one time; those that may wait for their turn, and for how many seconds.
MAX_QUESTIONS, MAX_WAITING, PATIENCE = 4, 4, 2.0
#: Seconds that one question may take.
QUESTION = 5.0
#: Seconds for which what every page asks again and again is not asked of the database.
FRESH = 2.0
#: Seconds behind a question in which another one may come.
ATTENDED = 10.0
#: Bytes of JSON of a call's timeline, and of its notifications: a browser has to show them.
MAX_TIMELINE, MAX_NOTIFICATIONS = 750_000, 125_000


class LedgerBusy(Exception):
    """The ledger is asked too much at this moment."""


class Reader:
    """Asks the database of ``engine``, which gives None as long as there is none.

    Each question raises :class:`LedgerDown` and :class:`LedgerBusy`. ``workspaces`` are the tenants whose
    calls exist for who asks; None means all.
    """

    def __init__(self, engine: Callable[[], Engine | None]) -> None:
        self._engine = engine
        self._questions = threading.BoundedSemaphore(MAX_QUESTIONS)
        self._places = threading.BoundedSemaphore(MAX_QUESTIONS + MAX_WAITING)
        self._asked_at = float("-inf")
        self._lock = threading.Lock()
        self._known: dict[tuple[Callable[..., Any], frozenset[str] | None], tuple[float, Any]] = {}

    @property
    def attended(self) -> bool:
        """Whether somebody has asked a moment ago."""
        return time.monotonic() - self._asked_at < ATTENDED

    def calls(self, wanted: Filter, limit: int, before: Place | None) -> list[Row]:
        """Calls, the newest first; ``before`` is the last one's place."""
        return list(self._ask(queries.find, wanted, limit, before))

    def chart(self, begin: int, end: int, step: int, workspaces: frozenset[str] | None) -> Row:
        """The calls of a time in figures, a point for each ``step`` seconds."""
        return dict(self._ask(summary.chart, begin, end, step, workspaces))

    def call(self, call_id: str, workspaces: frozenset[str] | None) -> Story | None:
        """One call; None where there is none for these workspaces."""
        story: Story | None = self._ask(queries.one, call_id, workspaces)
        if story is None:
            return None
        return Story(
            story.call,
            fit(story.timeline, MAX_TIMELINE),
            fit(story.notifications, MAX_NOTIFICATIONS),
            story.turns,
        )

    def tenants(self, workspaces: frozenset[str] | None) -> list[Row]:
        """Each tenant's last hour."""
        return list(self._lately(queries.tenants, workspaces))

    def restarts(self, workspaces: frozenset[str] | None) -> Row:
        """FreeSWITCH's restarts of the last hour."""
        return dict(self._lately(queries.restarts, workspaces))

    # -----------------------------------------------------------------------------------------------------

    def _lately(self, question: Callable[..., Any], workspaces: frozenset[str] | None) -> Any:
        """The answer now, or that of a moment ago."""
        now = time.monotonic()
        with self._lock:
            known = self._known.get((question, workspaces))
        if known is not None and now - known[0] <= FRESH:
            self._asked_at = now
            return known[1]
        told = self._ask(question, time.time(), workspaces)
        with self._lock:
            self._known = {key: one for key, one in self._known.items() if now - one[0] <= FRESH}
            self._known[question, workspaces] = (now, told)
        return told

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        self._asked_at = time.monotonic()
        with self._turn():
            engine = self._engine()
            if engine is None:
                raise LedgerDown("the database is down")
            with reading(engine, QUESTION) as connection:
                return question(connection, *arguments)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise LedgerBusy(f"{MAX_QUESTIONS + MAX_WAITING} questions are under way")
        try:
            if not self._questions.acquire(timeout=PATIENCE):
                raise LedgerBusy(f"no turn within {PATIENCE:g} s")
            try:
                yield
            finally:
                self._questions.release()
        finally:
            self._places.release()


def fit(rows: list[Row], most: int) -> list[Row]:
    """The first of ``rows``, as many as ``most`` bytes of JSON hold; one at least."""
    size = 0
    for number, row in enumerate(rows):
        size += len(json.dumps(row)) + 2
        if number and size > most:
            return rows[:number]
    return rows
