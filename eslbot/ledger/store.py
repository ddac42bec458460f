"""Writes what was read of the journals to the database, each batch in one transaction with its offsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection, Engine, Table, bindparam, delete, func, select, update
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from eslbot.ledger import summary
from eslbot.ledger.database import LedgerDown, lock_writers, reading, upsert, writing
from eslbot.ledger.facts import What
from eslbot.ledger.parsing import Fact
from eslbot.ledger.record import CallRecord
from eslbot.ledger.schema import Row, calls, journals, notifications, timeline, turns
from eslbot.ledger.summary import SummaryChanges

log = structlog.get_logger()

#: Facts that need the call's notifications to be loaded.
_NEED_NOTIFICATIONS = frozenset({What.ATTEMPT_BEGAN, What.ATTEMPT, What.ENDED})
#: What the answer to a notification changes in its row.
_OF_ANSWER = ("began_at", "verdict", "status", "seconds", "detail")
#: Calls live at one time that are kept in memory.
MAX_LIVE = 50_000
#: Calls that are closed or deleted in one transaction.
MAX_CALLS_PER_TRANSACTION = 200


class OffsetsMoved(Exception):
    """The database has more of a journal than was thought: the answer to a commit was lost."""


@dataclass(slots=True)
class Batch:
    """Facts by call, and how far each journal is once they are written."""

    facts: dict[str, list[Fact]] = field(default_factory=dict)
    #: By journal: from where it was read, and up to where.
    offsets: dict[str, tuple[int, int]] = field(default_factory=dict)
    size: int = 0

    def add(self, fact: Fact) -> None:
        """One more."""
        self.facts.setdefault(fact.call, []).append(fact)
        self.size += 1


class LedgerStore:
    """The database, as the writer of ``host`` writes it. Every method raises :class:`LedgerDown`."""

    def __init__(self, engine: Engine, host: str) -> None:
        self._engine = engine
        self._host = host
        self._upsert_call = upsert(engine.dialect.name, calls)
        self._upsert_journal = upsert(engine.dialect.name, journals)
        self._update_notification = (
            update(notifications)
            .where(notifications.c.id == bindparam("known"))
            .values({name: bindparam(f"new_{name}") for name in _OF_ANSWER})
        )

    # -- reading --------------------------------------------------------------------------------------------

    def ping(self) -> None:
        """Whether the database answers."""
        with reading(self._engine) as connection:
            connection.execute(select(1))

    def offsets(self) -> dict[str, int]:
        """How much of each journal is in the database."""
        with reading(self._engine) as connection:
            return _offsets(connection)

    def live(self) -> tuple[list[Row], dict[str, float]]:
        """This host's calls that have not ended, and the time of each one's last fact."""
        with reading(self._engine) as connection:
            found = connection.execute(
                select(calls)
                .where(calls.c.ended_at.is_(None), calls.c.host == self._host)
                .order_by(calls.c.invited_at.desc())
                .limit(MAX_LIVE)
            )
            rows = [dict(row) for row in found.mappings()]
            last: dict[str, float] = {}
            for some in _batches([row["call_id"] for row in rows]):
                last.update(_last_heard(connection, some))
        return rows, last

    def stale(self, before: float) -> list[str]:
        """A few calls that have not ended, and whose rows were last written before then."""
        query = select(calls.c.call_id).where(calls.c.ended_at.is_(None), calls.c.updated_at < before)
        with reading(self._engine) as connection:
            return list(connection.scalars(query.limit(MAX_CALLS_PER_TRANSACTION)))

    # -- writing --------------------------------------------------------------------------------------------

    def write(self, batch: Batch, now: float) -> list[Row]:
        """Write all of ``batch`` or nothing; returns the calls' rows as they are then, also unchanged ones.

        Raises :class:`OffsetsMoved` where the database has more of a journal than was thought.
        """
        try:
            with writing(self._engine) as connection:
                self._begin(connection, batch)
                records = self._write(connection, batch.facts, now)
                self._save_offsets(connection, batch, now)
            return [record.row for record in records]
        except (LedgerDown, OffsetsMoved):
            raise
        except Exception:  # something in one call's facts that nobody thought of
            log.exception("ledger_batch_refused", calls=len(batch.facts))
        return self._write_singly(batch, now)

    def _write_singly(self, batch: Batch, now: float) -> list[Row]:
        """With a savepoint a call: one that cannot be written must not hold up all that follow."""
        rows = []
        with writing(self._engine) as connection:
            self._begin(connection, batch)
            for call_id, facts in batch.facts.items():
                try:
                    with connection.begin_nested():
                        (record,) = self._write(connection, {call_id: facts}, now)
                    rows.append(record.row)
                except Exception as error:
                    if isinstance(error, DBAPIError) and not isinstance(error, DataError | IntegrityError):
                        raise
                    log.exception("ledger_call_refused", call_id=call_id, facts=len(facts))
            self._save_offsets(connection, batch, now)
        return rows

    def _begin(self, connection: Connection, batch: Batch) -> None:
        lock_writers(connection)
        stored = _offsets(connection, list(batch.offsets))
        for name, (start, _) in batch.offsets.items():
            if stored.get(name, 0) != start:
                raise OffsetsMoved(name)

    def _write(
        self, connection: Connection, facts: Mapping[str, Sequence[Fact]], now: float
    ) -> list[CallRecord]:
        records = self._load(connection, facts)
        changed, changes = [], SummaryChanges()
        for record in records:
            in_order = sorted(facts[record.row["call_id"]], key=lambda fact: fact.at)
            before = dict(record.row)
            record.apply(in_order)
            # A worker that has left the call does not know who has it now: perhaps another host, whose writer
            # may have written that already.
            if record.row["host"] is None or any(fact.what is not What.LEFT for fact in in_order):
                record.row["host"] = self._host
            if record.row != before:
                record.row["updated_at"] = now
                changed.append(record.row)
                changes.replace(before if before["invited_at"] is not None else None, record.row)
        self._save(connection, records, changed, changes)
        return records

    def _load(self, connection: Connection, facts: Mapping[str, Sequence[Fact]]) -> list[CallRecord]:
        """The calls as the database has them; a new record for a call that it does not have."""
        if not facts:
            return []
        records = {row["call_id"]: CallRecord(row) for row in _rows_of(connection, calls, list(facts))}

        def needing(*kinds: What) -> list[str]:
            return [call for call in records if any(fact.what in kinds for fact in facts[call])]

        sent = _rows_of(connection, notifications, needing(*_NEED_NOTIFICATIONS))
        for row in sorted(sent, key=lambda row: float(row["began_at"])):
            records[row["call_id"]].notifications.append(row)
        for row in _rows_of(connection, turns, needing(What.TURN)):
            records[row["call_id"]].turns.append(row)
        return [records.get(call) or CallRecord.new(call) for call in facts]

    def _save(
        self,
        connection: Connection,
        records: Sequence[CallRecord],
        changed: Sequence[Row],
        changes: SummaryChanges,
    ) -> None:
        """``changed`` are those rows of ``calls`` that are not as they were."""
        if changed:
            connection.execute(self._upsert_call, changed)
        changes.save(connection)
        sent = [row for record in records for row in record.notifications if row["sent_by"] is None]
        for table, new in (
            (timeline, [row for record in records for row in record.timeline]),
            (turns, [row for record in records for row in record.turns if "id" not in row]),
            (notifications, [row for row in sent if "id" not in row]),
        ):
            if new:
                connection.execute(table.insert(), new)
        known = [
            {"known": row["id"], **{f"new_{name}": row[name] for name in _OF_ANSWER}}
            for row in sent
            if "id" in row
        ]
        if known:
            connection.execute(self._update_notification, known)

    def _save_offsets(self, connection: Connection, batch: Batch, now: float) -> None:
        rows = [{"name": name, "offset": end, "seen_at": now} for name, (_, end) in batch.offsets.items()]
        if rows:
            connection.execute(self._upsert_journal, rows)

    def forget_journals(self, names: Sequence[str]) -> None:
        """Their files are deleted."""
        with writing(self._engine) as connection:
            connection.execute(delete(journals).where(journals.c.name.in_(names)))

    def close_unseen(self, heard: Mapping[str, float], now: float) -> list[Row]:
        """Close those of the calls in ``heard`` that have no later fact; returns their rows.

        ``heard``: the time of the last fact that this host knows (epoch seconds). Another host may have taken
        the call over.
        """
        closed: list[Row] = []
        for some in _batches(list(heard)):
            records, changes = [], SummaryChanges()
            with writing(self._engine) as connection:
                lock_writers(connection)
                live = [row for row in _rows_of(connection, calls, some) if row["ended_at"] is None]
                last = _last_heard(connection, [row["call_id"] for row in live])
                for row in live:
                    at = last.get(row["call_id"]) or float(row["invited_at"])
                    if at > heard[row["call_id"]] + 0.001:
                        continue
                    record = CallRecord(row, _rows_of(connection, notifications, [row["call_id"]]))
                    before = dict(row)
                    record.close_unseen(at)
                    row["updated_at"] = now
                    changes.replace(before, row)
                    records.append(record)
                self._save(connection, records, [record.row for record in records], changes)
            closed += [record.row for record in records]
        return closed

    def expire(self, before: float) -> bool:
        """Delete a few calls that ended before then; whether there may be more."""
        with writing(self._engine) as connection:
            query = select(calls.c.call_id).where(calls.c.ended_at < before).order_by(calls.c.ended_at)
            old = list(connection.scalars(query.limit(MAX_CALLS_PER_TRANSACTION)))
            for table in (timeline, notifications, turns, calls) if old else ():
                connection.execute(delete(table).where(table.c.call_id.in_(old)))
            if not old:
                connection.execute(delete(journals).where(journals.c.seen_at < before))
                summary.expire(connection, before)
        return len(old) == MAX_CALLS_PER_TRANSACTION


def _offsets(connection: Connection, names: Sequence[str] | None = None) -> dict[str, int]:
    query = select(journals.c.name, journals.c.offset)
    if names is not None:
        query = query.where(journals.c.name.in_(names))
    return {row.name: row.offset for row in connection.execute(query)}


def _rows_of(connection: Connection, table: Table, call_ids: Sequence[str]) -> list[Row]:
    """A table's rows of these calls, in the order in which they were written."""
    if not call_ids:
        return []
    query = select(table).where(table.c.call_id.in_(call_ids)).order_by(*table.primary_key)
    return [dict(row) for row in connection.execute(query).mappings()]


def _last_heard(connection: Connection, call_ids: Sequence[str]) -> dict[str, float]:
    """The time of each call's last fact."""
    found = connection.execute(
        select(timeline.c.call_id, func.max(timeline.c.at).label("last"))
        .where(timeline.c.call_id.in_(call_ids))
        .group_by(timeline.c.call_id)
    )
    return {row.call_id: row.last for row in found}


def _batches(names: Sequence[str]) -> Iterable[Sequence[str]]:
    step = MAX_CALLS_PER_TRANSACTION
    return (names[start : start + step] for start in range(0, len(names), step))
