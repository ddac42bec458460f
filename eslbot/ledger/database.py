"""The ledger's database: SQLite beside the service, or PostgreSQL by URL.

Whatever is wrong with it is raised as :class:`LedgerDown`, which says what and what to do. Whether to wait is
the caller's decision.
"""

from __future__ import annotations

import math
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from eslbot.config.model import Ledger
from eslbot.config.urls import database_secrets, database_shown
from eslbot.telemetry import redaction
from eslbot.telemetry.redaction import Redactor

log = structlog.get_logger()

#: Seconds until a connection must stand, and in which one statement must be done.
CONNECT_TIMEOUT = 5
STATEMENT_TIMEOUT = 30
#: Seconds that a writer of SQLite waits for another one.
BUSY_TIMEOUT = 5
#: Seconds between two tries where SQLite does not wait by itself.
BUSY_PAUSE = 0.02
#: Steps of SQLite's virtual machine between two checks of a query's time: about a millisecond.
SQLITE_STEPS = 20_000
#: Our advisory locks in PostgreSQL: one for whoever migrates, one for whoever writes.
MIGRATION_LOCK, WRITER_LOCK = 0x65736C626F740001, 0x65736C626F740002

MIGRATIONS = Path(__file__).parent / "migrations"
#: The revision that brought summaries: calls of an older database are summed up once.
SUMMARY_REVISION = "0005"


class LedgerDown(Exception):
    """The database cannot be used now; the message says why, and holds no password."""


def open_database(ledger: Ledger, *, create: bool = False) -> Engine:
    """An engine for the ledger's URL; nothing is connected yet.

    With ``create`` an SQLite file is made where there is none. Raises :class:`LedgerDown` where the driver
    or the file is missing.
    """
    try:
        url = make_url(ledger.url.reveal())
        return _sqlite(url, create) if url.get_backend_name() == "sqlite" else _postgresql(url)
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise LedgerDown(
            f"the driver of {ledger.shown} is not installed ({error}); install it with: "
            "pip install 'eslbot[postgres]'"
        ) from None


def _sqlite(url: URL, create: bool) -> Engine:
    path = Path(url.database or "")
    if create:
        _keep_private(path)
    elif not path.exists():
        raise LedgerDown(
            f"there is no database {path}; the service makes it when it starts, or: eslbot ledger migrate"
        )
    engine = create_engine(
        url, connect_args={"timeout": BUSY_TIMEOUT}, pool_size=4, pool_timeout=10, hide_parameters=True
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        # We begin transactions ourselves, below: the driver does so only at the first write, behind what was
        # read.
        connection.isolation_level = None
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _keep_private(path: Path) -> None:
    """Make the file unless it is there, and readable by nobody else: it has callers' numbers.

    SQLite gives the files beside it the same mode. The file is not opened here: closing it would release the
    locks that other connections of this process have on it (``fcntl(2)``). Raises :class:`LedgerDown`.
    """
    try:
        try:
            os.mknod(path, stat.S_IFREG | stat.S_IRUSR | stat.S_IWUSR)
        except FileExistsError:
            for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm"))):
                with suppress(FileNotFoundError):
                    found = file.stat()
                    if found.st_uid == os.geteuid() and found.st_mode & stat.S_IRWXO:
                        file.chmod(stat.S_IMODE(found.st_mode) & ~stat.S_IRWXO)
    except OSError as error:
        raise LedgerDown(
            f"{path}: {error.strerror}; the file and its directory must be writable for the service's user"
        ) from error


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead logging.

    SQLite does not wait for a writer here, whatever the busy timeout is: of several that opened a new
    database at one moment one in fifty was refused (measured).
    """
    deadline = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(BUSY_PAUSE)


def _postgresql(url: URL) -> Engine:
    # A host that is gone says nothing: hence keepalives, and a bound on what was sent and not acknowledged.
    alive = {
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 15_000,
    }
    named = {"connect_timeout": CONNECT_TIMEOUT, "application_name": "eslbot", **alive}
    engine = create_engine(
        url,
        connect_args={name: value for name, value in named.items() if name not in url.query},
        pool_size=4,
        pool_timeout=10,
        pool_pre_ping=True,
        hide_parameters=True,  # callers' numbers
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT}s'")
            # A writer that hangs in a transaction must not keep the other hosts' from writing.
            cursor.execute(f"SET idle_in_transaction_session_timeout = '{STATEMENT_TIMEOUT}s'")
        connection.commit()

    return engine


@contextmanager
def reading(engine: Engine, seconds: float | None = None) -> Iterator[Connection]:
    """A connection for queries of at most ``seconds``. Raises :class:`LedgerDown`."""
    with _ledger_down(engine), engine.connect() as connection:
        if seconds is None:
            yield connection
        elif engine.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {math.ceil(1000 * seconds)}")
            yield connection
        else:
            with _interrupted(connection, seconds):
                yield connection


@contextmanager
def _interrupted(connection: Connection, seconds: float) -> Iterator[None]:
    """SQLite has no time-out for statements: it is made to look at the clock every so many steps."""
    deadline = time.monotonic() + seconds
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)
    driver.set_progress_handler(lambda: time.monotonic() > deadline, SQLITE_STEPS)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction, committed at the end.

    Raises :class:`LedgerDown`: nothing is written then, unless only the answer to the commit was lost. What
    is wrong with the data itself is SQLAlchemy's DataError or IntegrityError.
    """
    with _ledger_down(engine), engine.execution_options(writes=True).begin() as connection:
        yield connection


@contextmanager
def _ledger_down(engine: Engine) -> Iterator[None]:
    try:
        yield
    except (DataError, IntegrityError):
        raise
    except (DBAPIError, NoConnectionFree) as error:
        raise LedgerDown(_explain(engine, error)) from error


def _explain(engine: Engine, error: Exception) -> str:
    """One line, without secrets: drivers quote the host, and libpq any parameter that it cannot read."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    url = engine.url.render_as_string(hide_password=False)
    own = Redactor(database_secrets(url))
    what = redaction.beginning(" ".join(line.strip() for line in lines[:3]), 300, own)
    where = database_shown(url)
    if engine.dialect.name == "sqlite":
        where = str(engine.url.database)
        if "unable to open" in what or "readonly" in what:
            what += "; the file and its directory must be writable for the service's user"
        elif "is locked" in what:
            what += f"; another program keeps it: end that one (fuser {where} names it), then try again"
        elif "is full" in what:
            what += "; make room: facts wait in the journals until then"
    if "no such table" in what or getattr(cause, "sqlstate", None) == "42P01":
        what += "; make the tables with: eslbot ledger migrate"
    elif "no such column" in what or getattr(cause, "sqlstate", None) == "42703":
        what += "; its tables are of an older version, bring them up to date with: eslbot ledger migrate"
    return f"{where}: {what}"


def upsert(dialect: str, table: Table) -> Any:
    """An INSERT of whole rows that replaces those with the same primary key."""
    statement: Any = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    columns = {
        column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key
    }
    return statement.on_conflict_do_update(index_elements=list(table.primary_key), set_=columns)


def lock_writers(connection: Connection) -> None:
    """Keep other hosts' writers from writing until the transaction's end; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITER_LOCK})


def migrate(engine: Engine) -> str:
    """Bring the tables to this version; returns their revision. Raises :class:`LedgerDown`.

    A database that a newer eslbot has migrated stays as it is: migrations only add, so a rollback can use it.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory

    from eslbot.ledger.summary import rebuild

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":  # another host's writer may start just now
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        here = MigrationContext.configure(connection).get_current_revision()
        if here is not None and here not in known:
            log.warning("ledger_is_newer", revision=here, remedy="nothing to do: this version works with it")
            return here
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        if here is not None and here < SUMMARY_REVISION:
            rebuild(connection)
        return str(MigrationContext.configure(connection).get_current_revision())
