"""The ledger writer: the one thread of a service that writes its database.

It reads the workers' journals, and writes them to the database and to the projection of the live calls. It
may die, or the database be down, at any moment: journals wait on disk, and how much of each was read is
written in the same transaction as what was read. It runs in the page process, which carries no calls.
"""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
from sqlalchemy import Engine

from eslbot.config.model import Ledger
from eslbot.ledger.database import LedgerDown, migrate, open_database
from eslbot.ledger.facts import What
from eslbot.ledger.journal_reader import Chunk, JournalDirectory, JournalFile
from eslbot.ledger.parsing import BadFact, Fact, read_fact
from eslbot.ledger.projection import LedgerHealth, Projection
from eslbot.ledger.store import MAX_CALLS_PER_TRANSACTION, Batch, LedgerStore, OffsetsMoved
from eslbot.runtime.file_locks import held
from eslbot.telemetry import metrics

log = structlog.get_logger()

#: Seconds between two rounds while somebody looks at the page, and while nobody does: a transaction costs
#: milliseconds, however little is in it.
POLL_INTERVAL, IDLE_INTERVAL = 0.5, 5.0
#: Facts of one transaction, or a little more: journals are read by the chunk.
MAX_BATCH = 500
#: Seconds until a database that is down is tried again: the first time, and at most.
RETRY_MIN, RETRY_MAX = 0.2, 5.0
#: Seconds between two looks for workers that are gone.
WORKER_CHECK_INTERVAL = 2.0
#: Seconds in which a call whose controller is gone must have been taken over.
TAKE_OVER_TIMEOUT = 60.0
#: Seconds without a fact after which a call of another host is closed, by whichever writer sees it.
STALE_AFTER = 6 * 3600.0
#: Seconds between two rounds of deleting old calls, and between two transactions of one round.
EXPIRY_INTERVAL, EXPIRY_PAUSE = 3600.0, 1.0
#: Seconds for the last facts when the service stops.
FINAL_TIMEOUT = 4.0


@dataclass(slots=True)
class CallOwner:
    """Who has a live call: the worker of ``journal``. ``last``: epoch seconds of the call's last fact.

    ``left``: since when nobody has it, by the monotonic clock; None while the worker has it.
    """

    journal: str | None
    last: float
    left: float | None = None


class LedgerWriter:
    """Writes what the journals of one directory hold.

    Args:
        ledger: Where the journals are, and the database.
        projection: Gets the live calls and the ledger's health.
        page_in_use: Whether somebody looks at the page.
        host: This host's name, by default the system's.
        on_call_ended: Called with the id of each call that has ended. It must not wait.
    """

    def __init__(
        self,
        ledger: Ledger,
        projection: Projection,
        page_in_use: Callable[[], bool],
        host: str | None = None,
        on_call_ended: Callable[[str], None] = lambda call_id: None,
    ) -> None:
        self._ledger = ledger
        self._host = (host or socket.gethostname())[:128]
        self._directory = JournalDirectory(Path(ledger.journal))
        self._projection = projection
        self._page_in_use = page_in_use
        self._on_call_ended = on_call_ended
        self._engine: Engine | None = None
        self._store: LedgerStore | None = None
        self._offsets: dict[str, int] = {}
        self._owners: dict[str, CallOwner] = {}
        self._live_loaded = False
        self._stop = threading.Event()
        self._retry_at, self._retry = 0.0, RETRY_MIN
        self._problem: str | None = None
        self._worker_check_at = self._expire_at = 0.0
        #: Its last sign of life, and since when there has always been something to write (monotonic clock).
        self.beat = time.monotonic()
        self.waiting_since: float | None = None

    @property
    def engine(self) -> Engine | None:
        """The database; None until it could be opened."""
        return self._engine

    def stop(self) -> None:
        """Have :meth:`run` write the last facts and end; for any thread."""
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
                if self._page_in_use() or self._problem is not None or time.monotonic() >= due:
                    due = time.monotonic() + IDLE_INTERVAL
                    self.tick()
                self._stop.wait(POLL_INTERVAL)
            self._write_final_facts()
        finally:
            os.close(lock)
        log.info("ledger_writer_ends", backlog=self._directory.backlog)

    def _wait_for_lock(self) -> int | None:
        """The directory's lock; None when told to stop before it was free."""
        waited = False
        while not self._stop.is_set():
            self.beat = time.monotonic()
            try:
                lock = self._lock()
            except OSError as error:
                self._report_down(
                    f"{self._directory.path}: {error.strerror}; the directory must be writable for the "
                    "service's user"
                )
                self._publish_health()
            else:
                if lock is not None:
                    return lock
                if not waited:
                    remedy = "another process writes this directory's ledger; its end is waited for"
                    log.info("ledger_writer_waits", remedy=remedy)
                waited = True
            self._stop.wait(POLL_INTERVAL)
        return None

    def _lock(self) -> int | None:
        """The directory's lock; None while another process has it. Raises OSError."""
        self._directory.path.mkdir(mode=0o750, parents=True, exist_ok=True)
        return held(self._directory.path / "writer.lock")

    # -- one round ----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Write what is new in the journals, and do the maintenance that is due."""
        try:
            self._directory.scan(self._offsets)
        except OSError as error:
            self._report_down(f"{self._directory.path}: {error.strerror}")
            return
        self._publish_health()
        if time.monotonic() < self._retry_at:
            return
        try:
            if self._store is None:
                self._connect()
            while self._write_batch() and not self._stop.is_set():
                self._directory.scan(self._offsets)
            self._do_maintenance()
            self._report_up()
        except LedgerDown as error:
            self._report_down(str(error))
        except OffsetsMoved as error:
            log.warning("journal_was_further", journal=str(error))
            self._load_offsets()
        except OSError as error:
            self._report_down(f"{self._directory.path}: {error.strerror}")
        self._publish_health()

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
        self._store = LedgerStore(self._engine, self._host)
        self._load_offsets()
        if self._live_loaded:
            return
        self._load_live_calls()
        self._live_loaded = True
        gc.collect()
        gc.freeze()  # what is here now stays, and need not be traversed again and again

    def _load_offsets(self) -> None:
        """Read on from where the database has each journal. Raises :class:`LedgerDown`."""
        assert self._store is not None
        self._offsets = self._store.offsets()
        for journal in self._directory.journals.values():
            journal.offset, journal.within_line = self._offsets.get(journal.name, 0), False

    def _load_live_calls(self) -> None:
        """Load the live calls from the database, and who has them from the journals."""
        assert self._store is not None
        rows, last = self._store.live()
        now = time.monotonic()
        self._owners = {
            row["call_id"]: CallOwner(None, last.get(row["call_id"]) or float(row["invited_at"]), now)
            for row in rows
        }
        for journal in sorted(self._directory.journals.values(), key=lambda journal: journal.began):
            for line in self._directory.replay(journal) if self._owners else ():
                with suppress(BadFact):
                    fact = read_fact(line)
                    if fact is not None and fact.call in self._owners:
                        self._note_owner(fact, journal.name)
        self._projection.put(rows)

    def _report_up(self) -> None:
        if self._problem is not None:
            log.info("ledger_up", backlog=self._directory.backlog)
        self._problem, self._retry, self._retry_at = None, RETRY_MIN, 0.0

    def _report_down(self, why: str) -> None:
        self._retry_at = time.monotonic() + self._retry
        self._retry = min(self._retry * 2, RETRY_MAX)
        if why != self._problem:
            log.error("ledger_down", error=why, remedy="mend it; the journals wait, and no call is affected")
        self._problem = why
        self._store = None  # the next one reads the offsets again, and so sees what became of the last commit

    def _publish_health(self) -> None:
        up, backlog = self._store is not None and self._problem is None, self._directory.backlog
        self.waiting_since = None if not backlog else self.waiting_since or time.monotonic()
        self._projection.set_health(LedgerHealth(up, backlog, self._problem))
        metrics.LEDGER_UP.set(1 if up else 0)
        metrics.LEDGER_BACKLOG_BYTES.set(backlog)

    # -- facts --------------------------------------------------------------------------------------------

    def _write_batch(self) -> bool:
        """Write a batch; whether there may be more. Raises :class:`LedgerDown` and :class:`OffsetsMoved`."""
        assert self._store is not None
        self.beat = time.monotonic()
        batch = Batch()
        read: list[tuple[JournalFile, Chunk, list[Fact]]] = []
        for journal in self._directory.unread_journals():
            if batch.size >= MAX_BATCH:
                break
            chunk = self._directory.read(journal)
            if chunk is None:
                continue
            facts = self._facts(journal, chunk)
            for fact in facts:
                batch.add(fact)
            batch.offsets[journal.name] = (journal.offset, chunk.end)
            read.append((journal, chunk, facts))
        if not read:
            return False
        rows = self._store.write(batch, time.time())
        for journal, chunk, _ in read:
            journal.offset, journal.within_line = chunk.end, chunk.within_line
            self._offsets[journal.name] = chunk.end
        written = [(fact, journal.name) for journal, _, facts in read for fact in facts]
        for fact, name in sorted(written, key=lambda pair: pair[0].at):
            self._note_owner(fact, name)
        for row in rows:
            if row["ended_at"] is not None:
                self._owners.pop(row["call_id"], None)
        for fact, _ in written:
            if fact.what in (What.ENDED, What.REFUSED):
                self._on_call_ended(fact.call)
        self._projection.put(rows)
        metrics.LEDGER_FACTS.inc(batch.size)
        metrics.LEDGER_CALLS_WRITTEN.inc(len(rows))
        return batch.size >= MAX_BATCH

    def _facts(self, journal: JournalFile, chunk: Chunk) -> list[Fact]:
        facts, bad = [], 0
        for line in chunk.lines:
            try:
                fact = read_fact(line)
            except BadFact:
                bad += 1
                continue
            if fact is not None:
                facts.append(fact)
        bad += chunk.within_line and not journal.within_line
        if bad:
            log.warning("journal_lines_skipped", journal=journal.name, lines=bad)
        return facts

    def _note_owner(self, fact: Fact, name: str) -> None:
        """Remember who has the call."""
        owner = self._owners.get(fact.call)
        if fact.what in (What.ENDED, What.REFUSED):
            self._owners.pop(fact.call, None)
        elif fact.what is not What.LEFT:
            last = max(fact.at, owner.last) if owner else fact.at
            self._owners[fact.call] = CallOwner(name, last)
        elif owner is not None and owner.journal == name:
            owner.last = max(owner.last, fact.at)
            owner.left = time.monotonic()

    # -- what is due --------------------------------------------------------------------------------------

    def _do_maintenance(self) -> None:
        """See to journals of dead workers, calls that nobody has, old calls. Raises :class:`LedgerDown`."""
        store = self._store
        assert store is not None
        now = time.monotonic()
        if now >= self._worker_check_at:
            self._worker_check_at = now + WORKER_CHECK_INTERVAL
            store.ping()  # as long as nothing is written, nothing else would notice that it is down
            self._delete_finished_journals()
            self._close_unseen()
        if now >= self._expire_at:
            self._expire_at = now + (EXPIRY_PAUSE if self._expire() else EXPIRY_INTERVAL)

    def _delete_finished_journals(self) -> None:
        """Delete the journals of dead workers that are read to their end."""
        assert self._store is not None
        gone = []
        now = time.monotonic()
        for journal in list(self._directory.journals.values()):
            if not self._directory.is_abandoned(journal):
                continue
            if (rest := journal.unread) and self._directory.read(journal) is not None:
                continue  # it is read first
            for owner in self._owners.values():
                if owner.journal == journal.name and owner.left is None:
                    owner.left = now
            if rest:  # half a line, which nobody will finish
                log.warning("journal_lines_skipped", journal=journal.name, lines=1)
                journal.offset = journal.size
            if self._directory.delete(journal):
                gone.append(journal.name)
        if gone:
            self._store.forget_journals(gone)
            for name in gone:
                self._offsets.pop(name, None)

    def _close_unseen(self) -> None:
        """Close the calls that nobody has taken over in time."""
        assert self._store is not None
        overdue = time.monotonic() - TAKE_OVER_TIMEOUT
        heard = {
            call_id: owner.last
            for call_id, owner in self._owners.items()
            if owner.left is not None and owner.left <= overdue
        }
        if heard:
            rows = self._store.close_unseen(heard, time.time())
            for call_id in heard:
                del self._owners[call_id]
            for row in rows:
                self._on_call_ended(row["call_id"])
            self._projection.put(rows)
            self._projection.drop(heard.keys() - {row["call_id"] for row in rows})
            log.warning("calls_end_unseen", calls=len(rows), elsewhere=len(heard) - len(rows))

    def _expire(self) -> bool:
        """Delete a few calls that are too old; whether there may be more."""
        assert self._store is not None
        now = time.time()
        if stale := [name for name in self._store.stale(now - STALE_AFTER) if name not in self._owners]:
            self._projection.put(self._store.close_unseen(dict.fromkeys(stale, now - STALE_AFTER), now))
        return self._store.expire(now - self._ledger.retention) or len(stale) == MAX_CALLS_PER_TRANSACTION

    def _write_final_facts(self) -> None:
        """Write what the workers wrote last, if the database can be written."""
        deadline = time.monotonic() + FINAL_TIMEOUT
        self._retry_at = 0.0
        try:
            if self._store is None:
                self._connect()
            self._directory.scan(self._offsets)
            while self._write_batch() and time.monotonic() < deadline:
                self._directory.scan(self._offsets)
            self._delete_finished_journals()
        except (LedgerDown, OffsetsMoved, OSError) as error:
            log.warning("facts_left_in_journals", backlog=self._directory.backlog, error=str(error))
