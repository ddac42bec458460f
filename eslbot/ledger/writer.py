"""The ledger's writer: the one thread of a service that writes its database.

It reads the workers' journals into the database and into the projection of the living calls. It may die, or
the database be away, at any moment: journals wait on disk, and how far each was read is written in the same
transaction as what was read. It belongs to the page process, which serves no calls.
"""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Engine

from eslbot.config.model import Ledger
from eslbot.ledger.database import LedgerDown, migrate, open_database
from eslbot.ledger.facts import What
from eslbot.ledger.fold import BadFact, Fact, read_fact
from eslbot.ledger.projection import Health, Projection
from eslbot.ledger.store import FEW, Batch, OffsetsMoved, Store
from eslbot.ledger.tail import Folder, Journal, Piece
from eslbot.runtime.file_locks import held
from eslbot.telemetry import metrics

log = structlog.get_logger()

#: Seconds between two rounds while somebody looks at the page, and while nobody does: a transaction costs
#: milliseconds, however little is in it.
LOOK, ROUND = 0.5, 5.0
#: Facts of one transaction, or a little more: a journal is read by the piece.
BATCH = 500
#: Seconds until a database that is down is tried again: the first time, and at most.
RETRY, MAX_RETRY = 0.2, 5.0
#: Seconds between two looks for workers that have gone.
CENSUS = 2.0
#: Seconds in which a call whose controller went away must have been taken over.
UNSEEN = 60.0
#: Seconds without any news after which a call of another host's is closed by whoever sees it.
STALE = 6 * 3600.0
#: Seconds between two rounds of forgetting, and between two transactions of one round.
RETENTION, BREATH = 3600.0, 1.0
#: Seconds for the last facts, once told to end.
LAST_FACTS = 4.0


@dataclass(slots=True)
class Holder:
    """Who has a live call: the worker of ``journal``, heard of last at ``last`` (epoch seconds).

    ``left`` is since when nobody has it (by the monotonic clock); None while the worker has it.
    """

    journal: str | None
    last: float
    left: float | None = None


class Writer:
    """Of one directory of journals. ``attended`` tells whether somebody looks at the page.

    ``over`` is told each call that has ended, and must not wait.
    """

    def __init__(
        self,
        ledger: Ledger,
        projection: Projection,
        attended: Callable[[], bool],
        host: str | None = None,
        over: Callable[[str], None] = lambda call_id: None,
    ) -> None:
        self._ledger = ledger
        self._host = (host or socket.gethostname())[:128]
        self._folder = Folder(Path(ledger.journal))
        self._projection = projection
        self._attended = attended
        self._over = over
        self._engine: Engine | None = None
        self._store: Store | None = None
        self._offsets: dict[str, int] = {}
        self._holders: dict[str, Holder] = {}
        self._remembers = False
        self._stop = threading.Event()
        self._retry_at, self._retry = 0.0, RETRY
        self._told: str | None = None
        self._census_at = self._expire_at = 0.0
        #: Its last sign of life, and since when something has been waiting to be written, without a pause; by
        #: the monotonic clock.
        self.beat = time.monotonic()
        self.waiting_since: float | None = None

    @property
    def engine(self) -> Engine | None:
        """The database; None as long as it could not be opened."""
        return self._engine

    def stop(self) -> None:
        """End :meth:`run`, behind the last facts; for any thread."""
        self._stop.set()

    def run(self) -> None:
        """Write until :meth:`stop`."""
        lock = self._wait_for_lock()
        if lock is None:
            return
        try:
            log.info("ledger_writer_begins", journal=self._ledger.journal, database=self._ledger.shown)
            due = 0.0
            while not self._stop.is_set():
                self.beat = time.monotonic()
                if self._attended() or self._told is not None or time.monotonic() >= due:
                    due = time.monotonic() + ROUND
                    self.tick()
                self._stop.wait(LOOK)
            self._last_facts()
        finally:
            os.close(lock)
        log.info("ledger_writer_ends", backlog=self._folder.backlog)

    def _wait_for_lock(self) -> int | None:
        """The lock of the directory; None when told to end before it could be had."""
        waited = False
        while not self._stop.is_set():
            self.beat = time.monotonic()
            try:
                lock = self._lock()
            except OSError as error:
                self._is_down(
                    f"{self._folder.path}: {error.strerror}; the directory must be writable for the "
                    "service's user"
                )
                self._tell_health()
            else:
                if lock is not None:
                    return lock
                if not waited:
                    remedy = "another process writes this directory's ledger; its end is waited for"
                    log.info("ledger_writer_waits", remedy=remedy)
                waited = True
            self._stop.wait(LOOK)
        return None

    def _lock(self) -> int | None:
        """None where another process has it. Raises OSError."""
        self._folder.path.mkdir(mode=0o750, parents=True, exist_ok=True)
        return held(self._folder.path / "writer.lock")

    # -- one round ----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Read what there is, write it, and see to what is due."""
        try:
            self._folder.look(self._offsets)
        except OSError as error:
            self._is_down(f"{self._folder.path}: {error.strerror}")
            return
        self._tell_health()
        if time.monotonic() < self._retry_at:
            return
        try:
            if self._store is None:
                self._connect()
            while self._write_some() and not self._stop.is_set():
                self._folder.look(self._offsets)
            self._see_to_it()
            self._is_up()
        except LedgerDown as error:
            self._is_down(str(error))
        except OffsetsMoved as error:
            log.warning("journal_was_further", journal=str(error))
            self._seek()
        except OSError as error:
            self._is_down(f"{self._folder.path}: {error.strerror}")
        self._tell_health()

    def _connect(self) -> None:
        """Raises :class:`LedgerDown`."""
        if self._engine is None:
            engine = open_database(self._ledger, create=True)
            try:
                revision = migrate(engine)
            except LedgerDown:
                engine.dispose()
                raise
            self._engine = engine
            log.info("ledger_open", revision=revision)
        store = Store(self._engine, self._host)
        self._offsets = store.offsets()
        self._store = store
        self._seek()
        if self._remembers:
            return
        self._remember()
        self._remembers = True
        gc.collect()
        gc.freeze()  # what is here now stays, and need not be looked through again and again

    def _seek(self) -> None:
        """Go on from where the database has each journal. Raises :class:`LedgerDown`."""
        assert self._store is not None
        self._offsets = self._store.offsets()
        for journal in self._folder.journals.values():
            journal.offset, journal.within_line = self._offsets.get(journal.name, 0), False

    def _remember(self) -> None:
        """Which calls live, and who has them: the first from the database, the other from the journals."""
        assert self._store is not None
        rows, last = self._store.live()
        now = time.monotonic()
        self._holders = {
            row["call_id"]: Holder(None, last.get(row["call_id"]) or float(row["invited_at"]), now)
            for row in rows
        }
        for journal in sorted(self._folder.journals.values(), key=lambda journal: journal.began):
            for line in self._folder.read_again(journal) if self._holders else ():
                fact = _fact(line)
                if fact is not None and fact.call in self._holders:
                    self._note_holder(fact, journal.name)
        self._projection.put(rows)

    def _is_up(self) -> None:
        if self._told is not None:
            log.info("ledger_up", backlog=self._folder.backlog)
        self._told, self._retry, self._retry_at = None, RETRY, 0.0

    def _is_down(self, why: str) -> None:
        self._retry_at = time.monotonic() + self._retry
        self._retry = min(self._retry * 2, MAX_RETRY)
        if why != self._told:
            log.error("ledger_down", error=why, remedy="mend it; the journals wait, and no call is affected")
        self._told = why
        if self._store is not None:  # what became of the last commit is seen when it is back
            self._store = None

    def _tell_health(self) -> None:
        up, backlog = self._store is not None and self._told is None, self._folder.backlog
        self.waiting_since = None if not backlog else self.waiting_since or time.monotonic()
        self._projection.tell(Health(up, backlog, self._told))
        metrics.LEDGER_UP.set(1 if up else 0)
        metrics.LEDGER_BACKLOG_BYTES.set(backlog)

    # -- facts --------------------------------------------------------------------------------------------

    def _write_some(self) -> bool:
        """A batch; whether there may be more. Raises :class:`LedgerDown` and :class:`OffsetsMoved`."""
        assert self._store is not None
        self.beat = time.monotonic()
        batch = Batch()
        read: list[tuple[Journal, Piece, list[Fact]]] = []
        for journal in self._folder.in_order():
            if batch.size >= BATCH:
                break
            piece = self._folder.read(journal)
            if piece is None:
                continue
            facts = self._facts(journal, piece)
            for fact in facts:
                batch.add(fact)
            batch.offsets[journal.name] = (journal.offset, piece.end)
            read.append((journal, piece, facts))
        if not read:
            return False
        rows = self._store.write(batch, time.time())
        for journal, piece, _ in read:
            journal.offset, journal.within_line = piece.end, piece.within_line
            self._offsets[journal.name] = piece.end
        told = [(fact, journal.name) for journal, _, facts in read for fact in facts]
        for fact, name in sorted(told, key=lambda pair: pair[0].at):
            self._note_holder(fact, name)
        for row in rows:
            if row["ended_at"] is not None:
                self._holders.pop(row["call_id"], None)
        for fact, _ in told:
            if fact.what in (What.ENDED, What.REFUSED):
                self._over(fact.call)
        self._projection.put(rows)
        metrics.LEDGER_FACTS.inc(batch.size)
        metrics.LEDGER_CALLS_WRITTEN.inc(len(rows))
        return batch.size >= BATCH

    def _facts(self, journal: Journal, piece: Piece) -> list[Fact]:
        facts, bad = [], 0
        for line in piece.lines:
            try:
                fact = read_fact(line)
            except BadFact:
                bad += 1
                continue
            if fact is not None:
                facts.append(fact)
        bad += piece.within_line and not journal.within_line
        if bad:
            log.warning("journal_lines_skipped", journal=journal.name, lines=bad)
        return facts

    def _note_holder(self, fact: Fact, name: str) -> None:
        """Who has the call now."""
        holder = self._holders.get(fact.call)
        if fact.what in (What.ENDED, What.REFUSED):
            self._holders.pop(fact.call, None)
        elif fact.what is not What.LEFT:
            last = max(fact.at, holder.last) if holder else fact.at
            self._holders[fact.call] = Holder(name, last)
        elif holder is not None and holder.journal == name:
            holder.last = max(holder.last, fact.at)
            holder.left = time.monotonic()

    # -- what is due --------------------------------------------------------------------------------------

    def _see_to_it(self) -> None:
        """Workers that have gone, calls nobody has, records that are too old. Raises :class:`LedgerDown`."""
        store = self._store
        assert store is not None
        now = time.monotonic()
        if now >= self._census_at:
            self._census_at = now + CENSUS
            store.ping()  # where nothing is written, nothing else would tell
            self._bury()
            self._close_unseen()
        if now >= self._expire_at:
            self._expire_at = now + (BREATH if self._forget() else RETENTION)

    def _bury(self) -> None:
        """The journals of dead workers, once they are read to their end."""
        assert self._store is not None
        gone = []
        now = time.monotonic()
        for journal in list(self._folder.journals.values()):
            if not self._folder.is_abandoned(journal):
                continue
            if (rest := journal.unread) and self._folder.read(journal) is not None:
                continue  # it is read first
            for holder in self._holders.values():
                if holder.journal == journal.name and holder.left is None:
                    holder.left = now
            if rest:  # half a line, which nobody will ever end
                log.warning("journal_lines_skipped", journal=journal.name, lines=1)
                journal.offset = journal.size
            if self._folder.delete(journal):
                gone.append(journal.name)
        if gone:
            self._store.forget_journals(gone)
            for name in gone:
                self._offsets.pop(name, None)

    def _close_unseen(self) -> None:
        assert self._store is not None
        overdue = time.monotonic() - UNSEEN
        heard = {
            call_id: holder.last
            for call_id, holder in self._holders.items()
            if holder.left is not None and holder.left <= overdue
        }
        if heard:
            rows = self._store.close_unseen(heard, time.time())
            for call_id in heard:
                del self._holders[call_id]
            for row in rows:
                self._over(row["call_id"])
            self._projection.put(rows)
            self._projection.drop(heard.keys() - {row["call_id"] for row in rows})
            log.warning("calls_end_unseen", calls=len(rows), elsewhere=len(heard) - len(rows))

    def _forget(self) -> bool:
        """A few of the calls that are too old; whether there may be more."""
        assert self._store is not None
        now = time.time()
        if stale := [name for name in self._store.stale(now - STALE) if name not in self._holders]:
            self._projection.put(self._store.close_unseen(dict.fromkeys(stale, now - STALE), now))
        return self._store.expire(now - self._ledger.retention) or len(stale) == FEW

    def _last_facts(self) -> None:
        """The workers are gone: what they wrote last, if the database takes it."""
        deadline = time.monotonic() + LAST_FACTS
        self._retry_at = 0.0
        try:
            if self._store is None:
                self._connect()
            self._folder.look(self._offsets)
            while self._write_some() and time.monotonic() < deadline:
                self._folder.look(self._offsets)
            self._bury()
        except (LedgerDown, OffsetsMoved, OSError) as error:
            log.warning("facts_left_in_journals", backlog=self._folder.backlog, error=str(error))


def _fact(line: bytes) -> Fact | None:
    try:
        return read_fact(line)
    except BadFact:
        return None
