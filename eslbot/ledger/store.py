"""Writes what was read of the journals to the database, each batch in one transaction with its offsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, bindparam, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from eslbot.ledger import summary
from eslbot.ledger.database import LedgerDown, lock_writers, reading, writing
from eslbot.ledger.facts import What
from eslbot.ledger.fold import Fact, Row, Story
from eslbot.ledger.schema import calls, journals, notifications, timeline, turns
from eslbot.ledger.summary import Changes

log = structlog.get_logger()

#: Facts for which the call's notifications must be known.
_OF_AMEYO = frozenset({What.ATTEMPT_BEGAN, What.ATTEMPT, What.ENDED})
#: Calls live at one time that are kept in mind.
MAX_LIVE = 50_000
#: Calls closed, or deleted, in one transaction.
FEW = 200


class OffsetsMoved(Exception):
    """The journals are further in the database than was thought: the answer to a commit was lost."""


@dataclass(slots=True)
class Batch:
    """Facts of some calls, and how far each journal is once they are written."""

    facts: dict[str, list[Fact]] = field(default_factory=dict)
    #: By journal: from where it was read, and up to where.
    offsets: dict[str, tuple[int, int]] = field(default_factory=dict)
    size: int = 0

    def add(self, fact: Fact) -> None:
        """One more."""
        self.facts.setdefault(fact.call, []).append(fact)
        self.size += 1


class Store:
    """The database, as the writer of ``host`` writes it."""

    def __init__(self, engine: Engine, host: str) -> None:
        self._engine = engine
        self._host = host
        insert: Any = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert
        upsert = insert(calls)
        self._upsert_call = upsert.on_conflict_do_update(
            index_elements=["call_id"],
            set_={c.name: upsert.excluded[c.name] for c in calls.columns if c.name != "call_id"},
        )
        upsert = insert(journals)
        self._upsert_journal = upsert.on_conflict_do_update(
            index_elements=["name"],
            set_={name: upsert.excluded[name] for name in ("offset", "seen_at")},
        )
        self._update_notification = (
            update(notifications)
            .where(notifications.c.id == bindparam("known"))
            .values({name: bindparam(f"new_{name}") for name in _OF_ANSWER})
        )

    # -- what is there ------------------------------------------------------------------------------------

    def ping(self) -> None:
        """Raises :class:`LedgerDown` where the database does not answer."""
        with reading(self._engine) as connection:
            connection.execute(select(1))

    def offsets(self) -> dict[str, int]:
        """How far each journal is in the database. Raises :class:`LedgerDown`."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(journals.c.name, journals.c.offset))
            return {row.name: row.offset for row in rows}

    def live(self) -> tuple[list[Row], dict[str, float]]:
        """This host's calls that have not ended, and when each was heard of last. Raises LedgerDown."""
        with reading(self._engine) as connection:
            found = connection.execute(
                select(calls)
                .where(calls.c.ended_at.is_(None), calls.c.host == self._host)
                .order_by(calls.c.invited_at.desc())
                .limit(MAX_LIVE)
            )
            rows = [dict(row) for row in found.mappings()]
            last: dict[str, float] = {}
            for some in _by_few([row["call_id"] for row in rows]):
                last.update(_last_heard(connection, some))
        return rows, last

    def stale(self, before: float) -> list[str]:
        """A few calls that have not ended, and whose rows nobody has written since. Raises LedgerDown."""
        with reading(self._engine) as connection:
            found = connection.execute(
                select(calls.c.call_id)
                .where(calls.c.ended_at.is_(None), calls.c.updated_at < before)
                .limit(FEW)
            )
            return list(found.scalars())

    # -- writing ------------------------------------------------------------------------------------------

    def write(self, batch: Batch, now: float) -> list[Row]:
        """All of ``batch`` or nothing; returns the calls' rows as they are then, also where none changed.

        Raises :class:`LedgerDown`, and :class:`OffsetsMoved` where the database has more than was thought.
        """
        try:
            with writing(self._engine) as connection:
                self._begin(connection, batch)
                stories = self._write(connection, batch.facts, now)
                self._note_offsets(connection, batch, now)
            return [story.row for story in stories]
        except (LedgerDown, OffsetsMoved):
            raise
        except Exception:  # something of one call's that nobody thought of
            log.exception("ledger_batch_refused", calls=len(batch.facts))
        return self._write_singly(batch, now)

    def _write_singly(self, batch: Batch, now: float) -> list[Row]:
        """One call a savepoint: what cannot be written must not hold up all that follows."""
        rows = []
        with writing(self._engine) as connection:
            self._begin(connection, batch)
            for call_id, facts in batch.facts.items():
                try:
                    with connection.begin_nested():
                        (story,) = self._write(connection, {call_id: facts}, now)
                    rows.append(story.row)
                except Exception as error:
                    if isinstance(error, DBAPIError) and not isinstance(error, DataError | IntegrityError):
                        raise
                    log.exception("ledger_call_refused", call_id=call_id, facts=len(facts))
            self._note_offsets(connection, batch, now)
        return rows

    def _begin(self, connection: Connection, batch: Batch) -> None:
        lock_writers(connection)
        found = connection.execute(
            select(journals.c.name, journals.c.offset).where(journals.c.name.in_(list(batch.offsets)))
        )
        stored = {row.name: row.offset for row in found}
        for name, (start, _) in batch.offsets.items():
            if stored.get(name, 0) != start:
                raise OffsetsMoved(name)

    def _write(self, connection: Connection, facts: Mapping[str, Sequence[Fact]], now: float) -> list[Story]:
        stories = self._stories(connection, facts)
        changed, summed = [], Changes()
        for story in stories:
            told = sorted(facts[story.row["call_id"]], key=lambda fact: fact.at)
            before = dict(story.row)
            story.tell(told)
            # Who has left it says nothing of who has it now: another host's writer may have written that.
            if story.row["host"] is None or any(fact.what is not What.LEFT for fact in told):
                story.row["host"] = self._host
            if story.row != before:
                story.row["updated_at"] = now
                changed.append(story.row)
                summed.move(before if before["invited_at"] is not None else None, story.row)
        self._save(connection, stories, changed, summed)
        return stories

    def _stories(self, connection: Connection, facts: Mapping[str, Sequence[Fact]]) -> list[Story]:
        """The calls as the database has them."""
        if not facts:
            return []
        found = connection.execute(select(calls).where(calls.c.call_id.in_(list(facts)))).mappings()
        stories = {row["call_id"]: Story(dict(row)) for row in found}
        asked = [call for call in stories if any(fact.what in _OF_AMEYO for fact in facts[call])]
        if asked:
            sent = connection.execute(
                select(notifications)
                .where(notifications.c.call_id.in_(asked))
                .order_by(notifications.c.began_at, notifications.c.id)
            )
            for row in sent.mappings():
                stories[row["call_id"]].notifications.append(dict(row))
        asked = [call for call in stories if any(fact.what is What.TURN for fact in facts[call])]
        if asked:
            known = connection.execute(select(turns).where(turns.c.call_id.in_(asked)).order_by(turns.c.id))
            for row in known.mappings():
                stories[row["call_id"]].turns.append(dict(row))
        return [stories.get(call) or Story.new(call) for call in facts]

    def _save(
        self, connection: Connection, stories: Sequence[Story], changed: Sequence[Row], summed: Changes
    ) -> None:
        """``changed`` are the rows of those ``stories`` of which more is new than a line of the timeline."""
        if changed:
            connection.execute(self._upsert_call, changed)
        summed.save(connection)
        lines = [line for story in stories for line in story.timeline]
        if lines:
            connection.execute(timeline.insert(), lines)
        taken = [
            {k: v for k, v in row.items() if k != "id"}
            for story in stories
            for row in story.turns
            if row["id"] is None
        ]
        if taken:
            connection.execute(turns.insert(), taken)
        sent = [row for story in stories for row in story.notifications if row["sent_by"] is None]
        new = [{k: v for k, v in row.items() if k != "id"} for row in sent if row["id"] is None]
        if new:
            connection.execute(notifications.insert(), new)
        known = [
            {"known": row["id"], **{f"new_{name}": row[name] for name in _OF_ANSWER}}
            for row in sent
            if row["id"] is not None
        ]
        if known:
            connection.execute(self._update_notification, known)

    def _note_offsets(self, connection: Connection, batch: Batch, now: float) -> None:
        places = [{"name": name, "offset": end, "seen_at": now} for name, (_, end) in batch.offsets.items()]
        if places:
            connection.execute(self._upsert_journal, places)

    def forget_journals(self, names: Sequence[str]) -> None:
        """They are deleted. Raises :class:`LedgerDown`."""
        with writing(self._engine) as connection:
            connection.execute(delete(journals).where(journals.c.name.in_(list(names))))

    def close_unseen(self, heard: Mapping[str, float], now: float) -> list[Row]:
        """Close those of the calls in ``heard`` of which nobody has heard since; returns their rows.

        ``heard`` is when this host heard of each last (epoch seconds): another host may have taken it over.
        Raises :class:`LedgerDown`.
        """
        closed: list[Row] = []
        for some in _by_few(list(heard)):
            with writing(self._engine) as connection:
                lock_writers(connection)
                found = connection.execute(
                    select(calls).where(calls.c.call_id.in_(some), calls.c.ended_at.is_(None))
                )
                rows = {row["call_id"]: dict(row) for row in found.mappings()}
                last = _last_heard(connection, list(rows))
                stories, summed = [], Changes()
                for call_id, row in rows.items():
                    at = last.get(call_id, row["invited_at"])
                    if at <= heard[call_id] + 0.001:
                        story = Story(row, self._sent(connection, call_id))
                        before = dict(row)
                        story.close_unseen(at)
                        row["updated_at"] = now
                        summed.move(before, row)
                        stories.append(story)
                self._save(connection, stories, [story.row for story in stories], summed)
            closed += [story.row for story in stories]
        return closed

    def _sent(self, connection: Connection, call_id: str) -> list[Row]:
        found = connection.execute(select(notifications).where(notifications.c.call_id == call_id))
        return [dict(row) for row in found.mappings()]

    def expire(self, before: float) -> bool:
        """Delete a few calls that ended before then; whether there may be more. Raises LedgerDown."""
        with writing(self._engine) as connection:
            query = select(calls.c.call_id).where(calls.c.ended_at < before)
            old = list(connection.execute(query.order_by(calls.c.ended_at).limit(FEW)).scalars())
            for table in (timeline, notifications, turns, calls) if old else ():
                connection.execute(delete(table).where(table.c.call_id.in_(old)))
            if not old:
                connection.execute(delete(journals).where(journals.c.seen_at < before))
                summary.expire(connection, before)
        return len(old) == FEW


#: What the answer to a notification changes in its row.
_OF_ANSWER = ("began_at", "verdict", "status", "seconds", "detail")


def _last_heard(connection: Connection, call_ids: Sequence[str]) -> dict[str, float]:
    found = connection.execute(
        select(timeline.c.call_id, func.max(timeline.c.at).label("last"))
        .where(timeline.c.call_id.in_(call_ids))
        .group_by(timeline.c.call_id)
    )
    return {row.call_id: row.last for row in found}


def _by_few(names: Sequence[str]) -> Iterable[Sequence[str]]:
    return (names[start : start + FEW] for start in range(0, len(names), FEW))
