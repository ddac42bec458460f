"""The questions to the ledger, for the call page and the command line."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import GenericFunction

from eslbot.ledger.fold import REFUSED, Row
from eslbot.ledger.percentile import percentile
from eslbot.ledger.schema import calls, notifications, timeline, turns
from eslbot.outcome import Fault, Outcome, Stage

#: Rows of one answer.
MAX_ROWS = 500
#: Calls that are few: they are looked up, and put in order then. Of more, the newest are read until enough of
#: them are what is looked for, which with so many does not take long.
FEW = 2000
#: Characters of a value that is looked for.
MAX_VALUE = 128
#: Seconds that "the last hour" of :func:`tenants` has, and those in which a tenant without calls is told.
HOUR, KNOWN_FOR = 3600.0, 7 * 86400.0
#: Notifications of the last hour that percentiles are made of.
MAX_POSTS = 20_000

_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_WORDS = {
    "outcome": frozenset(map(str, Outcome)),
    "fault": frozenset(map(str, Fault)),
    "stage": frozenset([*map(str, Stage), REFUSED]),
}


class BadFilter(ValueError):
    """A filter that asks for nothing there is; the message names key and value."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which calls; what is None does not matter. Times are epoch seconds of ``invited_at``.

    ``prefix`` is how a call's id, CRT Object ID, DID or caller begins. ``workspaces`` are the ids of the
    tenants whose calls exist for who asks: None means all. Who may not see ``numbers`` finds a DID or a
    caller by the whole of it only: otherwise it could be found out, a digit at a time.
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
        taken: dict[str, Any] = {}
        for name, value in values.items():
            if name not in _KEYS:
                raise BadFilter(f"{name[:64]!r} is no filter; known are {', '.join(_KEYS)}")
            if value is None:
                continue
            if name in ("attention", "live", "handed_off"):
                good = isinstance(value, bool)
            elif name in ("since", "until"):
                good = (
                    isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12
                )  # NaN is not
            else:
                good = isinstance(value, str) and 0 < len(value) <= MAX_VALUE and "\x00" not in value
                good = good and (name not in _WORDS or value in _WORDS[name])
            if not good:
                known = f"; known are {', '.join(sorted(_WORDS[name]))}" if name in _WORDS else ""
                raise BadFilter(f"{name}: {str(value)[:64]!r} cannot be looked for{known}")
            taken[name] = value
        return cls(**taken, workspaces=None if workspaces is None else frozenset(workspaces))

    @property
    def tenants(self) -> list[str] | None:
        """The ids of those whose calls can be among them, where that is known; None: anybody's."""
        named = self.workspace.lower() if self.workspace and _UUID.fullmatch(self.workspace) else None
        if named is None:
            return None if self.workspaces is None else sorted(self.workspaces)
        return [named] if self.workspaces is None or named in self.workspaces else []

    def indexed(self) -> list[list[ColumnElement[bool]]]:
        """What is looked for and may be rare: each as alternatives, for each of which an index serves."""
        c = calls.c
        found: list[list[ColumnElement[bool]]] = []
        if self.prefix is not None:
            found.append(self._with_prefix(self.prefix))
        if self.crt is not None:
            prefix = self.crt.removesuffix("*")
            found.append(
                [c.crt_object_id == prefix if prefix == self.crt else _begins(c.crt_object_id, prefix)]
            )
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

    def _with_prefix(self, prefix: str) -> list[ColumnElement[bool]]:
        c = calls.c
        numbers = [
            _begins(column, prefix) if self.numbers else column == prefix for column in (c.did, c.caller)
        ]
        return [_begins(c.call_id, prefix), _begins(c.crt_object_id, prefix), *numbers]

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

        With ``in_order`` the database shall read them in the order of their times until it has enough: no
        other index can then serve it, behind which it would have to put all that it finds into that order.
        """
        conditions = self._conditions()
        if conditions and in_order:
            conditions = [_as_number(and_(*conditions)) == 1]
        if self.since is not None:
            conditions.append(calls.c.invited_at >= self.since)
        if self.until is not None:
            conditions.append(calls.c.invited_at < self.until)
        return query.where(and_(*conditions)) if conditions else query


_KEYS = tuple(entry.name for entry in fields(Filter) if entry.name not in ("workspaces", "numbers"))


class begins(GenericFunction[bool]):  # SQLAlchemy names a function by its class
    """``begins(column, first, behind)``: from one text to before another, in the order of their bytes."""

    type = Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Any:
        """Itself: in SQLite a boolean function becomes ``… = 1``, and that no index serves."""
        return self


@compiles(begins)
def _begins_of_sqlite(element: begins, compiler: SQLCompiler, **options: Any) -> str:
    column, first, behind = (compiler.process(part, **options) for part in element.clauses)
    return f"({column} >= {first} AND {column} < {behind})"


@compiles(begins, "postgresql")
def _begins_of_postgresql(element: begins, compiler: SQLCompiler, **options: Any) -> str:
    """Its plain comparisons are in the language's order, in which a hyphen may count for nothing."""
    column, first, behind = (compiler.process(part, **options) for part in element.clauses)
    return f"({column} ~>=~ {first} AND {column} ~<~ {behind})"


def _begins(column: ColumnElement[Any], prefix: str) -> ColumnElement[bool]:
    """By comparing, so that an index serves; of no characters everything is the beginning."""
    if not prefix:
        return column.is_not(None)
    return begins(column, prefix, _behind(prefix))


def _behind(prefix: str) -> str:
    """The first text behind all that begin with ``prefix``."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return prefix + MAX_VALUE * "\U0010ffff"
    last = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if last == 0xD800 else last)


@dataclass(frozen=True, slots=True)
class Story:
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
        """For who asks again, from here on."""
        return f"{self.invited_at!r},{self.call_id}"


def find(connection: Connection, wanted: Filter, limit: int = 50, before: Place | None = None) -> list[Row]:
    """Calls as rows, newest first, at most ``limit``; ``before`` is the last one's place."""
    limit = min(max(limit, 1), MAX_ROWS)
    for alternatives in wanted.indexed():
        ids = _few(connection, alternatives)
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


def _few(connection: Connection, alternatives: Sequence[ColumnElement[bool]]) -> set[str] | None:
    """The ids of these calls; None where they are more than :data:`FEW`."""
    found: set[str] = set()
    for condition in alternatives:
        ids = connection.execute(select(calls.c.call_id).where(condition).limit(FEW + 1 - len(found)))
        found.update(ids.scalars())
        if len(found) > FEW:
            return None
    return found


def _rows(connection: Connection, query: Select[Any], limit: int, before: Place | None) -> list[Row]:
    at, call_id = calls.c.invited_at, calls.c.call_id
    if before is not None:
        query = query.where(at <= before.invited_at, or_(at < before.invited_at, call_id < before.call_id))
    query = query.order_by(at.desc(), call_id.desc()).limit(limit)
    return [dict(row) for row in connection.execute(query).mappings()]


def every(connection: Connection, wanted: Filter, limit: int) -> Iterable[Row]:
    """As :func:`find`, without its bound, and without holding them all at one time."""
    before: Place | None = None
    while limit > 0:
        rows = find(connection, wanted, min(limit, MAX_ROWS), before)
        yield from rows
        limit -= len(rows)
        if len(rows) < MAX_ROWS:
            return
        before = Place.of(rows[-1])


def one(connection: Connection, call_id: str, workspaces: frozenset[str] | None = None) -> Story | None:
    """A call by its call id; None where there is none, or none for who asks."""
    row = connection.execute(select(calls).where(calls.c.call_id == call_id)).mappings().first()
    if row is None or (workspaces is not None and row["workspace_id"] not in workspaces):
        return None
    return Story(
        dict(row),
        _timeline(connection, call_id),
        _notifications(connection, call_id),
        _turns(connection, call_id),
    )


def named(connection: Connection, name: str) -> list[str]:
    """The call ids of a call id or a CRT Object ID, newest first, at most 10."""
    query = (
        select(calls.c.call_id)
        .where(or_(calls.c.call_id == name, calls.c.crt_object_id == name))
        .order_by(calls.c.invited_at.desc())
        .limit(10)
    )
    return list(connection.execute(query).scalars())


def _timeline(connection: Connection, call_id: str) -> list[Row]:
    t = timeline.c
    query = select(t.at, t.what, t.facts).where(t.call_id == call_id).order_by(t.at, t.id).limit(5000)
    return [dict(row) for row in connection.execute(query).mappings()]


def _notifications(connection: Connection, call_id: str) -> list[Row]:
    n = notifications.c
    query = select(notifications).where(n.call_id == call_id).order_by(n.began_at, n.id).limit(1000)
    return [dict(row) for row in connection.execute(query).mappings()]


def _turns(connection: Connection, call_id: str) -> list[Row]:
    t = turns.c
    query = select(t.at, t.number, t.kind, t.seconds, t.bot, t.by).where(t.call_id == call_id)
    return [dict(row) for row in connection.execute(query.order_by(t.at, t.id).limit(1000)).mappings()]


def tenants(connection: Connection, now: float, workspaces: frozenset[str] | None = None) -> list[Row]:
    """Each tenant's health: calls now, and how those that ended in the last hour came out."""
    c = calls.c
    mine = Filter(workspaces=workspaces)
    found: dict[str, Row] = {}

    def tenant(workspace_id: str, name: str | None) -> Row:
        return found.setdefault(
            workspace_id,
            {
                "workspace_id": workspace_id,
                "workspace": name,
                "active": 0,
                "last_hour": {},
                "faults": {},
                "last_handed_off_at": None,
                "not_handed_off": 0,
                "post_seconds_p50": None,
                "post_seconds_p95": None,
            },
        )

    who = (c.workspace_id, func.max(c.workspace))
    known = mine.narrow(select(*who).where(c.workspace_id.is_not(None), c.invited_at >= now - KNOWN_FOR))
    for workspace_id, name in connection.execute(known.group_by(c.workspace_id)):
        tenant(workspace_id, name)
    live = mine.narrow(select(*who, func.count()).where(c.workspace_id.is_not(None), c.ended_at.is_(None)))
    for workspace_id, name, count in connection.execute(live.group_by(c.workspace_id)):
        tenant(workspace_id, name)["active"] = count
    # Spelt out: PostgreSQL takes two parameters, though of one value, for two expressions.
    refusal = c.stage == literal(REFUSED, literal_execute=True)
    lost = func.sum(_as_number(and_(c.bot_ended_at.is_not(None), c.handed_off_at.is_(None))))
    ended = mine.narrow(
        select(*who, c.outcome, refusal, c.fault, func.count(), lost).where(
            c.workspace_id.is_not(None), c.ended_at >= now - HOUR
        )
    )
    for workspace_id, name, outcome, refused, fault, count, not_handed_off in connection.execute(
        ended.group_by(c.workspace_id, c.outcome, refusal, c.fault)
    ):
        row = tenant(workspace_id, name)
        for kind, word in (("last_hour", REFUSED if refused else outcome), ("faults", fault)):
            if word is not None:
                row[kind][word] = row[kind].get(word, 0) + count
        row["not_handed_off"] += not_handed_off or 0
    posts = _posts(connection, mine, now)
    for workspace_id, row in found.items():
        row["last_handed_off_at"] = connection.execute(
            select(c.handed_off_at)
            .where(
                c.workspace_id == workspace_id,
                c.handed_off_at.is_not(None),
                c.invited_at >= now - KNOWN_FOR,
            )
            .order_by(c.invited_at.desc())
            .limit(1)
        ).scalar()
        measured = sorted(posts.get(workspace_id, ()))
        row["post_seconds_p50"] = percentile(measured, 50)
        row["post_seconds_p95"] = percentile(measured, 95)
    return sorted(found.values(), key=lambda row: (row["workspace"] or "", row["workspace_id"]))


def restarts(connection: Connection, now: float, workspaces: frozenset[str] | None = None) -> Row:
    """Under how many calls FreeSWITCH has restarted in the last hour, when last, and the longest gap."""
    c = calls.c
    figures: tuple[ColumnElement[Any], ...] = (
        func.count(),
        func.max(c.restarted_at),
        func.max(c.restart_gap),
    )
    query = select(*figures).where(
        or_(c.ended_at.is_(None), c.ended_at >= now - HOUR),  # for its index: the other column has none
        c.restarted_at >= now - HOUR,
    )
    count, last, gap = connection.execute(Filter(workspaces=workspaces).narrow(query)).one()
    return {"calls": count, "last": last, "gap": gap}


def _as_number(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, 1), else_=0)


def _posts(connection: Connection, mine: Filter, now: float) -> dict[str, list[float]]:
    """How long Ameyo's answers took, of the calls that ended in the last hour."""
    n, c = notifications.c, calls.c
    query = mine.narrow(
        select(c.workspace_id, n.seconds)
        .join(notifications, n.call_id == c.call_id)
        .where(c.ended_at >= now - HOUR, c.workspace_id.is_not(None), n.seconds.is_not(None))
        .limit(MAX_POSTS)
    )
    found: dict[str, list[float]] = {}
    for workspace_id, seconds in connection.execute(query):
        found.setdefault(workspace_id, []).append(seconds)
    return found


#: What :func:`stats` measures in seconds: from one column to another.
MEASURES = {
    "set_up": ("invited_at", "answered_at"),
    "bot_connect": ("answered_at", "bot_connected_at"),
    "first_audio": ("answered_at", "first_audio_at"),
    "bot_end_to_post": ("bot_ended_at", "notified_at"),
    "hold_until_bye": ("handed_off_at", "ended_at"),
}


@dataclass(slots=True)
class _Group:
    """One tenant's calls, or all."""

    calls: int = 0
    live: int = 0
    refused: int = 0
    answered: int = 0
    due: int = 0  # for a hand-off: the bot's part is over
    handed_off: int = 0
    attempts: int = 0
    take_overs: int = 0
    byes_overdue: int = 0
    restarts: int = 0
    recovered: int = 0  # calls that FreeSWITCH has died under
    restart_gap: float | None = None  # the longest
    ends_unseen: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, array[float]] = field(default_factory=lambda: {name: array("d") for name in MEASURES})

    def add(self, row: RowMapping) -> None:
        self.calls += 1
        self.live += row["ended_at"] is None
        self.answered += row["answered_at"] is not None
        handed_off = row["handed_off_at"] is not None
        self.handed_off += handed_off
        self.due += handed_off or row["bot_ended_at"] is not None
        for name in ("attempts", "take_overs", "byes_overdue", "restarts"):
            setattr(self, name, getattr(self, name) + row[name])
        self.recovered += row["restarts"] > 0
        if row["restart_gap"] is not None:
            self.restart_gap = max(row["restart_gap"], self.restart_gap or 0.0)
        self.ends_unseen += bool(row["end_unseen"])
        if row["stage"] == REFUSED:
            self.refused += 1
            self.refusals[row["refusal"] or "unknown"] += 1
        elif row["outcome"] is not None:
            self.outcomes[row["outcome"]] += 1
        if row["fault"] is not None:
            self.faults[row["fault"]] += 1
        for name, (begin, end) in MEASURES.items():
            if (
                row[begin] is not None
                and row[end] is not None
                and not (name == "hold_until_bye" and row["end_unseen"])
            ):
                self.seconds[name].append(max(0.0, row[end] - row[begin]))

    def told(self) -> Row:
        measured = {name: sorted(values) for name, values in self.seconds.items()}
        return {
            "calls": self.calls,
            "live": self.live,
            "refused": self.refused,
            "answered": self.answered,
            "hand_off_due": self.due,
            "handed_off": self.handed_off,
            "hand_off_rate": round(self.handed_off / self.due, 6) if self.due else None,
            "attempts": self.attempts,
            "take_overs": self.take_overs,
            "byes_overdue": self.byes_overdue,
            "recovered": self.recovered,
            "restarts": self.restarts,
            "restart_gap": self.restart_gap,
            "ends_unseen": self.ends_unseen,
            "outcomes": dict(self.outcomes.most_common()),
            "faults": dict(self.faults.most_common()),
            "refusals": dict(self.refusals.most_common(20)),
            "seconds": {
                name: {
                    "count": len(values),
                    **{f"p{share}": percentile(values, share) for share in (50, 95, 99)},
                    "max": round(values[-1], 6) if values else None,
                }
                for name, values in measured.items()
            },
        }


def stats(connection: Connection, wanted: Filter) -> Row:
    """Counts and percentiles of the calls of a filter, ``{"all": …, "workspaces": {name: …}}``."""
    names = [
        "workspace_id", "workspace", "stage", "outcome", "fault", "refusal", "attempts", "take_overs",
        "byes_overdue", "restarts", "restart_gap", "end_unseen", "invited_at", "answered_at",
        "bot_connected_at", "first_audio_at", "bot_ended_at", "notified_at", "handed_off_at", "ended_at",
    ]  # fmt: skip
    query = wanted.narrow(select(*(calls.c[name] for name in names)))
    whole, groups = _Group(), dict[str, _Group]()
    rows = connection.execution_options(yield_per=2000).execute(query)
    for row in rows.mappings():
        whole.add(row)
        name = row["workspace"] or row["workspace_id"] or "unknown"
        if name not in groups and len(groups) >= 1000:  # refusals may name anything
            name = "others"
        groups.setdefault(name, _Group()).add(row)
    return {
        "all": whole.told(),
        "workspaces": {name: group.told() for name, group in sorted(groups.items())},
    }
