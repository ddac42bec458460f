"""Which calls are looked for, and that as SQL which an index can serve."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Select, and_, case, or_, true
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from eslbot.ledger.schema import REFUSED, calls
from eslbot.outcome import Fault, Outcome, Stage

#: Characters of a value that is looked for.
MAX_VALUE = 128

_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_WORDS = {
    "outcome": frozenset(map(str, Outcome)),
    "fault": frozenset(map(str, Fault)),
    "stage": frozenset([*map(str, Stage), REFUSED]),
}


class BadFilter(ValueError):
    """A filter that no call can match; the message names key and value."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls. What is None does not matter. Times are epoch seconds of ``invited_at``.

    ``prefix`` is how a call's id, CRT Object ID, DID or caller begins. ``workspaces`` are the ids of the
    tenants that the viewer may see; None means all. A viewer who may not see ``numbers`` finds a DID or a
    caller by the whole number only: otherwise it could be found out digit by digit.
    """

    workspace: str | None = None
    did: str | None = None
    crt: str | None = None
    caller: str | None = None
    outcome: str | None = None
    fault: str | None = None
    stage: str | None = None
    prefix: str | None = None
    attention: bool | None = None
    live: bool | None = None
    handed_off: bool | None = None
    since: float | None = None
    until: float | None = None
    workspaces: frozenset[str] | None = None
    numbers: bool = True

    @classmethod
    def of(cls, values: Mapping[str, Any], workspaces: Iterable[str] | None = None) -> Filter:
        """From JSON. Raises :class:`BadFilter`."""
        for name, value in values.items():
            if name not in _KEYS:
                raise BadFilter(f"{name[:64]!r} is no filter; known are {', '.join(_KEYS)}")
            if value is not None and not _is_valid(name, value):
                known = f"; known are {', '.join(sorted(_WORDS[name]))}" if name in _WORDS else ""
                raise BadFilter(f"{name}: {str(value)[:64]!r} cannot be looked for{known}")
        given = {name: value for name, value in values.items() if value is not None}
        return cls(**given, workspaces=None if workspaces is None else frozenset(workspaces))

    @property
    def tenants(self) -> list[str] | None:
        """The ids of the only tenants whose calls can match; None where any tenant's can."""
        named = self.workspace.lower() if self.workspace and _UUID.fullmatch(self.workspace) else None
        if named is None:
            return None if self.workspaces is None else sorted(self.workspaces)
        return [named] if self.workspaces is None or named in self.workspaces else []

    def indexed(self) -> list[list[ColumnElement[bool]]]:
        """The conditions that may match few calls: each as alternatives, every one of them with an index."""
        c = calls.c
        found: list[list[ColumnElement[bool]]] = []
        if self.prefix is not None:
            numbers = (
                begins_with(column, self.prefix) if self.numbers else column == self.prefix
                for column in (c.did, c.caller)
            )
            ids = (begins_with(column, self.prefix) for column in (c.call_id, c.crt_object_id))
            found.append([*ids, *numbers])
        if self.crt is not None:
            prefix = self.crt.removesuffix("*")
            exact = prefix == self.crt
            found.append([c.crt_object_id == prefix if exact else begins_with(c.crt_object_id, prefix)])
        found += [
            [column == value]
            for column, value in ((c.did, self.did), (c.caller, self.caller), (c.outcome, self.outcome))
            if value is not None
        ]
        if self.attention:
            found.append([c.attention == true()])
        if self.live:
            found.append([c.ended_at.is_(None)])
        return found

    def _conditions(self) -> list[ColumnElement[bool]]:
        """All but the time."""
        c = calls.c
        found = [or_(*alternatives) for alternatives in self.indexed()]
        if self.workspaces is not None:
            found.append(c.workspace_id.in_(sorted(self.workspaces)))
        if self.workspace is not None:
            found.append(or_(c.workspace == self.workspace, c.workspace_id == self.workspace.lower()))
        found += [
            column == value
            for column, value in ((c.fault, self.fault), (c.stage, self.stage))
            if value is not None
        ]
        if self.attention is False:
            found.append(c.attention != true())
        if self.live is False:
            found.append(c.ended_at.is_not(None))
        if self.handed_off is not None:
            found.append(c.handed_off_at.is_not(None) if self.handed_off else c.handed_off_at.is_(None))
        return found

    def narrow(self, query: Select[Any], *, in_order: bool = False) -> Select[Any]:
        """``query`` for these calls only.

        With ``in_order`` the database is to read calls in the order of their times until it has enough. So no
        other index may serve the query: the database would have to sort all that it finds by that index.
        """
        conditions = self._conditions()
        if conditions and in_order:
            conditions = [as_number(and_(*conditions)) == 1]
        if self.since is not None:
            conditions.append(calls.c.invited_at >= self.since)
        if self.until is not None:
            conditions.append(calls.c.invited_at < self.until)
        return query.where(and_(*conditions)) if conditions else query


_KEYS = tuple(entry.name for entry in fields(Filter) if entry.name not in ("workspaces", "numbers"))


def _is_valid(name: str, value: Any) -> bool:
    if name in ("attention", "live", "handed_off"):
        return isinstance(value, bool)
    if name in ("since", "until"):
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
    if not isinstance(value, str) or not 0 < len(value) <= MAX_VALUE or "\x00" in value:
        return False
    return name not in _WORDS or value in _WORDS[name]


def as_number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    """1 or 0."""
    return case((condition, 1), else_=0)


class between_bytes(GenericFunction[bool]):  # SQLAlchemy names a function by its class
    """``between_bytes(column, first, end)``: from one text to before another, in the order of their bytes."""

    type = Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Any:
        """Itself: SQLite would get ``… = 1``, which no index serves."""
        return self


@compiles(between_bytes)
def _between_bytes_sqlite(element: between_bytes, compiler: SQLCompiler, **options: Any) -> str:
    column, first, end = (compiler.process(part, **options) for part in element.clauses)
    return f"({column} >= {first} AND {column} < {end})"


@compiles(between_bytes, "postgresql")
def _between_bytes_postgresql(element: between_bytes, compiler: SQLCompiler, **options: Any) -> str:
    """Plain comparisons follow the language's order, in which a hyphen may not count."""
    column, first, end = (compiler.process(part, **options) for part in element.clauses)
    return f"({column} ~>=~ {first} AND {column} ~<~ {end})"


def begins_with(column: ColumnElement[Any], prefix: str) -> ColumnElement[bool]:
    """By comparisons, which an index serves; every text begins with the empty prefix."""
    return between_bytes(column, prefix, _after(prefix)) if prefix else column.is_not(None)


def _after(prefix: str) -> str:
    """The first text behind all that begin with ``prefix``."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return prefix + MAX_VALUE * "\U0010ffff"
    last = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if last == 0xD800 else last)
