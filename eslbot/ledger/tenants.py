"""How each tenant's calls went in the last hour, and FreeSWITCH's restarts."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, literal, or_, select

from eslbot.ledger.filters import Filter, as_number
from eslbot.ledger.percentile import percentile
from eslbot.ledger.schema import REFUSED, Row, calls, notifications

#: Seconds of "the last hour", and those after its last call in which a tenant is listed.
HOUR, LISTED_FOR = 3600.0, 7 * 86400.0
#: Notifications of the last hour that percentiles are made of.
MAX_NOTIFICATIONS = 20_000


def tenants(connection: Connection, now: float, workspaces: frozenset[str] | None = None) -> list[Row]:
    """Each tenant's calls now, and how those that ended in the last hour came out."""
    c, mine = calls.c, Filter(workspaces=workspaces)
    found: dict[str, Row] = {}

    def query(*columns: ColumnElement[Any]) -> Select[Any]:
        """By tenant, whose name is that of its latest calls."""
        chosen = select(c.workspace_id, func.max(c.workspace), *columns)
        return mine.narrow(chosen.where(c.workspace_id.is_not(None))).group_by(c.workspace_id)

    for workspace_id, name in connection.execute(query().where(c.invited_at >= now - LISTED_FOR)):
        found.setdefault(workspace_id, _tenant(workspace_id, name))
    for workspace_id, name, count in connection.execute(query(func.count()).where(c.ended_at.is_(None))):
        found.setdefault(workspace_id, _tenant(workspace_id, name))["active"] = count
    # A literal: PostgreSQL takes two parameters of the same value for two expressions.
    refusal = c.stage == literal(REFUSED, literal_execute=True)
    lost = func.sum(as_number(and_(c.bot_ended_at.is_not(None), c.handed_off_at.is_(None))))
    ended = query(c.outcome, refusal, c.fault, func.count(), lost).where(c.ended_at >= now - HOUR)
    for workspace_id, name, outcome, refused, fault, count, not_handed_off in connection.execute(
        ended.group_by(c.outcome, refusal, c.fault)
    ):
        row = found.setdefault(workspace_id, _tenant(workspace_id, name))
        for kind, word in (("last_hour", REFUSED if refused else outcome), ("faults", fault)):
            if word is not None:
                row[kind][word] = row[kind].get(word, 0) + count
        row["not_handed_off"] += not_handed_off or 0
    answers = _answer_times(connection, mine, now)
    for workspace_id, row in found.items():
        row["last_handed_off_at"] = _last_hand_off(connection, workspace_id, now)
        for share in (50, 95):
            row[f"post_seconds_p{share}"] = percentile(sorted(answers[workspace_id]), share)
    return sorted(found.values(), key=lambda row: (row["workspace"] or "", row["workspace_id"]))


def _tenant(workspace_id: str, name: str | None) -> Row:
    return {
        "workspace_id": workspace_id,
        "workspace": name,
        "active": 0,
        "last_hour": {},
        "faults": {},
        "last_handed_off_at": None,
        "not_handed_off": 0,
    }


def _last_hand_off(connection: Connection, workspace_id: str, now: float) -> float | None:
    c = calls.c
    query = select(c.handed_off_at).where(
        c.workspace_id == workspace_id, c.handed_off_at.is_not(None), c.invited_at >= now - LISTED_FOR
    )
    return connection.scalar(query.order_by(c.invited_at.desc()).limit(1))


def _answer_times(connection: Connection, mine: Filter, now: float) -> defaultdict[str, list[float]]:
    """How many seconds Ameyo's answers took, in calls that ended in the last hour."""
    n, c = notifications.c, calls.c
    query = mine.narrow(
        select(c.workspace_id, n.seconds)
        .join(notifications, n.call_id == c.call_id)
        .where(c.ended_at >= now - HOUR, c.workspace_id.is_not(None), n.seconds.is_not(None))
        .limit(MAX_NOTIFICATIONS)
    )
    found: defaultdict[str, list[float]] = defaultdict(list)
    for workspace_id, seconds in connection.execute(query):
        found[workspace_id].append(seconds)
    return found


def restarts(connection: Connection, now: float, workspaces: frozenset[str] | None = None) -> Row:
    """During how many calls FreeSWITCH has restarted in the last hour, when last, and its longest absence."""
    c = calls.c
    columns: tuple[ColumnElement[Any], ...] = (
        func.count(),
        func.max(c.restarted_at),
        func.max(c.restart_gap),
    )
    query = select(*columns).where(
        or_(c.ended_at.is_(None), c.ended_at >= now - HOUR),  # for its index: `restarted_at` has none
        c.restarted_at >= now - HOUR,
    )
    count, last, gap = connection.execute(Filter(workspaces=workspaces).narrow(query)).one()
    return {"calls": count, "last": last, "gap": gap}
