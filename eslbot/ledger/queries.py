"""Looking calls up in the ledger: lists of them, and one with all that is known of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, or_, select

from eslbot.ledger.filters import Filter
from eslbot.ledger.schema import Row, calls, notifications, timeline, turns

#: Rows of one answer.
MAX_ROWS = 500
#: So many calls are looked up by an index and sorted then. Where more match, the newest calls are read until
#: enough of them match, which then does not take long.
MAX_LOOKED_UP = 2000


@dataclass(frozen=True, slots=True)
class CallDetails:
    """All that is known of one call: rows of the tables, in the order in which it happened."""

    call: Row
    timeline: list[Row]
    notifications: list[Row]
    turns: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Place:
    """A call's place in a list, newest first: two calls may have come at the same moment."""

    invited_at: float
    call_id: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Place:
        """Of a row of `calls`."""
        return cls(row["invited_at"], row["call_id"])

    @property
    def text(self) -> str:
        """For the client, to ask for what comes behind it."""
        return f"{self.invited_at!r},{self.call_id}"


def find_calls(
    connection: Connection, wanted: Filter, limit: int = 50, before: Place | None = None
) -> list[Row]:
    """Rows of calls, newest first, at most ``limit``; ``before`` is the place of the last one read."""
    limit = min(max(limit, 1), MAX_ROWS)
    for alternatives in wanted.indexed():
        ids = _few_ids(connection, alternatives)
        if ids is not None:
            query = wanted.narrow(select(calls).where(calls.c.call_id.in_(ids)))
            return _rows(connection, query, limit, before) if ids else []
    if wanted.tenants is None:
        return _rows(connection, wanted.narrow(select(calls), in_order=True), limit, before)
    rows: list[Row] = []
    for tenant in wanted.tenants:
        theirs = select(calls).where(calls.c.workspace_id == tenant)
        rows += _rows(connection, wanted.narrow(theirs, in_order=True), limit, before)
    rows.sort(key=lambda row: (row["invited_at"], row["call_id"]), reverse=True)
    return rows[:limit]


def _few_ids(connection: Connection, alternatives: Sequence[ColumnElement[bool]]) -> set[str] | None:
    """The ids of these calls; None where they are more than :data:`MAX_LOOKED_UP`."""
    found: set[str] = set()
    for condition in alternatives:
        limit = MAX_LOOKED_UP + 1 - len(found)
        found.update(connection.scalars(select(calls.c.call_id).where(condition).limit(limit)))
        if len(found) > MAX_LOOKED_UP:
            return None
    return found


def _rows(connection: Connection, query: Select[Any], limit: int, before: Place | None) -> list[Row]:
    at, call_id = calls.c.invited_at, calls.c.call_id
    if before is not None:
        query = query.where(at <= before.invited_at, or_(at < before.invited_at, call_id < before.call_id))
    return _fetch(connection, query.order_by(at.desc(), call_id.desc()).limit(limit))


def _fetch(connection: Connection, query: Select[Any]) -> list[Row]:
    return [dict(row) for row in connection.execute(query).mappings()]


def iterate_calls(connection: Connection, wanted: Filter, limit: int) -> Iterable[Row]:
    """As :func:`find_calls`, for any ``limit``, without holding all of them at one time."""
    before: Place | None = None
    while limit > 0:
        rows = find_calls(connection, wanted, min(limit, MAX_ROWS), before)
        yield from rows
        limit -= len(rows)
        if len(rows) < MAX_ROWS:
            return
        before = Place.of(rows[-1])


def call_details(
    connection: Connection, call_id: str, workspaces: frozenset[str] | None = None
) -> CallDetails | None:
    """A call by its call id; None where there is none, or none that the viewer of ``workspaces`` may see."""
    row = connection.execute(select(calls).where(calls.c.call_id == call_id)).mappings().first()
    if row is None or (workspaces is not None and row["workspace_id"] not in workspaces):
        return None
    t, n, u = timeline.c, notifications.c, turns.c
    facts = select(t.at, t.what, t.facts).where(t.call_id == call_id).order_by(t.at, t.id)
    sent = select(notifications).where(n.call_id == call_id).order_by(n.began_at, n.id)
    taken = select(u.at, u.number, u.kind, u.seconds, u.bot, u.by).where(u.call_id == call_id)
    return CallDetails(
        dict(row),
        _fetch(connection, facts.limit(5000)),
        _fetch(connection, sent.limit(1000)),
        _fetch(connection, taken.order_by(u.at, u.id).limit(1000)),
    )


def call_ids_named(connection: Connection, name: str) -> list[str]:
    """The call ids of a call id or a CRT Object ID, newest first, at most 10."""
    c = calls.c
    query = select(c.call_id).where(or_(c.call_id == name, c.crt_object_id == name))
    return list(connection.scalars(query.order_by(c.invited_at.desc()).limit(10)))
