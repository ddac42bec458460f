"""The tables that the migrations make, and what is said of a database that cannot be used."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, select, text

from eslbot.config.model import Ledger, Secret
from eslbot.ledger import database
from eslbot.ledger.database import LedgerDown, migrate, open_database, reading, writing
from eslbot.ledger.schema import calls, metadata
from tests.component.ledger.conftest import WriterHouse
from tests.support.ledger import NOON
from tests.support.processes import ROOT


def opened(house: WriterHouse) -> Engine:
    return open_database(house.ledger, create=True)


def test_the_migrations_make_the_tables_of_the_schema(any_house: WriterHouse) -> None:
    engine = opened(any_house)
    assert migrate(engine) == migrate(engine) == "0005"  # twice without harm
    with reading(engine) as connection:
        # SQLite needs no second index of its primary key; alembic does not look at that.
        others = {"calls_call_id"} if engine.dialect.name == "sqlite" else set()
        options = {"compare_type": True, "include_object": lambda _o, name, *_: name not in others}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
    there = inspect(engine)
    for table in metadata.sorted_tables:  # what alembic does not compare
        assert {(c["name"], c["nullable"]) for c in there.get_columns(table.name)} == {
            (c.name, c.nullable) for c in table.columns
        }
        assert there.get_pk_constraint(table.name)["constrained_columns"] == [
            c.name for c in table.primary_key
        ]
        assert {(i["name"], tuple(i["column_names"])) for i in there.get_indexes(table.name)} == {
            (i.name, tuple(c.name for c in i.columns)) for i in table.indexes if i.name not in others
        }
    engine.dispose()


def test_several_may_migrate_at_once(any_house: WriterHouse) -> None:
    engines = [opened(any_house) for _ in range(4)]
    told: list[str] = []
    threads = [threading.Thread(target=lambda e=e: told.append(migrate(e))) for e in engines]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert told == ["0005"] * 4
    for engine in engines:
        engine.dispose()


#: The call that a writer of the first version writes.
OLD_CALL = {
    "call_id": "old", "invited_at": NOON, "updated_at": NOON, "stage": "talking", "attempts": 0,
    "take_overs": 0, "byes_overdue": 0, "end_unseen": False,
}  # fmt: skip


def write_as_the_first_version(engine: Engine, call_id: str) -> None:
    names = ", ".join(OLD_CALL)
    marks = ", ".join(f":{name}" for name in OLD_CALL)
    with writing(engine) as connection:
        connection.execute(
            text(f"INSERT INTO calls ({names}) VALUES ({marks})"), {**OLD_CALL, "call_id": call_id}
        )


def test_an_older_database_keeps_its_calls_and_the_version_before_can_still_write(
    any_house: WriterHouse,
) -> None:
    engine = opened(any_house)
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    write_as_the_first_version(engine, "before")
    with (
        pytest.raises(
            LedgerDown, match="of an older version, bring them up to date with: eslbot ledger migrate"
        ),
        reading(engine) as connection,
    ):
        connection.execute(select(calls)).all()
    assert migrate(engine) == "0005"
    write_as_the_first_version(engine, "behind")  # a rolled-back service, or another host's
    with reading(engine) as connection:
        rows = connection.execute(select(calls).order_by(calls.c.call_id)).mappings().all()
    assert [(row["call_id"], row["restarts"], row["restarted_at"], row["restart_gap"]) for row in rows] == [
        ("before", 0, None, None),
        ("behind", 0, None, None),
    ]
    assert {(row["answers"], row["answer_p50"], row["barge_ins"]) for row in rows} == {(0, None, 0)}
    engine.dispose()


def another_writer(file: Path) -> sqlite3.Connection:
    """It has begun to write a new database, whose journal is not a write-ahead log yet."""
    writer = sqlite3.connect(file, isolation_level=None)
    writer.executescript("CREATE TABLE other (x); BEGIN IMMEDIATE")
    return writer


def test_a_new_database_is_opened_when_another_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = another_writer(tmp_path / "calls.db")
    pauses: list[float] = []
    monkeypatch.setattr(database.time, "sleep", lambda seconds: (pauses.append(seconds), writer.commit()))
    engine = open_database(ledger(f"sqlite:///{tmp_path}/calls.db"))
    with reading(engine) as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert len(pauses) == 1
    engine.dispose()
    writer.close()


def test_one_that_another_keeps_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = another_writer(tmp_path / "calls.db")
    monkeypatch.setattr(database, "BUSY_TIMEOUT", 0.05)
    engine = open_database(ledger(f"sqlite:///{tmp_path}/calls.db"))
    with pytest.raises(LedgerDown, match=r"locked; .*\(fuser .*calls\.db names it\)"), reading(engine):
        pass
    engine.dispose()
    writer.close()


def test_a_newer_database_is_used_as_it_is(any_house: WriterHouse) -> None:
    engine = opened(any_house)
    migrate(engine)
    with writing(engine) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.exec_driver_sql("ALTER TABLE calls ADD COLUMN later TEXT")
    assert migrate(engine) == "9999"
    engine.dispose()


def test_a_transaction_that_fails_leaves_nothing(any_house: WriterHouse) -> None:
    engine = opened(any_house)
    migrate(engine)
    with pytest.raises(LedgerDown), writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO journals VALUES ('a', 1, 1)")
        connection.exec_driver_sql("INSERT INTO nowhere VALUES (1)")
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM journals").scalar() == 0
    engine.dispose()


def ledger(url: str) -> Ledger:
    return Ledger(Secret(url), "/none", 1.0)


def test_a_missing_file_is_not_made_by_who_only_asks(tmp_path: Path) -> None:
    with pytest.raises(LedgerDown, match=r"there is no database .*calls\.db; the service makes it"):
        open_database(ledger(f"sqlite:///{tmp_path}/calls.db"))
    assert not list(tmp_path.iterdir())


@pytest.fixture(params=[0, 0o022], ids=["no umask", "the usual umask"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(path: Path) -> dict[str, str]:
    return {file.name: f"{file.stat().st_mode & 0o777:o}" for file in path.parent.glob(f"{path.name}*")}


@pytest.mark.usefixtures("umask")
def test_a_new_file_is_for_its_user_alone_whoever_makes_it(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    engine = open_database(ledger(f"sqlite:///{path}"), create=True)
    migrate(engine)
    assert modes(path) == {"calls.db": "600", "calls.db-wal": "600", "calls.db-shm": "600"}
    engine.dispose()


@pytest.mark.usefixtures("umask")
def test_a_file_that_everybody_may_read_is_closed_and_what_its_group_may_stays(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    with sqlite3.connect(path) as before:
        before.execute("PRAGMA journal_mode = WAL")
        before.execute("CREATE TABLE other (id)")
        for file in tmp_path.iterdir():
            file.chmod(0o644)
        before.execute("BEGIN IMMEDIATE")
        open_database(ledger(f"sqlite:///{path}"), create=True).dispose()
        assert modes(path) == {"calls.db": "640", "calls.db-wal": "640", "calls.db-shm": "640"}
        # That was done without opening the file: this connection has its lock still.
        with (
            closing(sqlite3.connect(path, timeout=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("BEGIN IMMEDIATE")
    before.close()


def test_what_is_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "calls.db").write_text("This is a letter to my aunt. " * 100)
    with pytest.raises(LedgerDown, match=r"calls\.db: file is not a database"):
        migrate(open_database(ledger(f"sqlite:///{tmp_path}/calls.db")))


def test_tables_that_are_not_there_are_told_with_the_remedy(any_house: WriterHouse) -> None:
    engine = opened(any_house)
    with (
        pytest.raises(LedgerDown, match="make the tables with: eslbot ledger migrate"),
        reading(engine) as asked,
    ):
        asked.exec_driver_sql("SELECT * FROM calls")
    engine.dispose()


def test_errors_do_not_tell_the_password() -> None:
    engine = open_database(ledger("postgresql+psycopg://me:secret-word@127.0.0.1:1/calls"))
    with pytest.raises(LedgerDown, match="onnection refused") as caught:
        migrate(engine)
    assert "secret-word" not in str(caught.value)
    assert "me:********@127.0.0.1" in str(caught.value)


@pytest.mark.parametrize("query", ["password=secret-w%6Frd", "sslpassword=secret-word&sslmode=no-such"])
def test_errors_do_not_tell_a_password_that_stands_behind_the_question_mark(query: str) -> None:
    engine = open_database(ledger(f"postgresql+psycopg://me@127.0.0.1:1/calls?{query}"))
    with pytest.raises(LedgerDown) as caught:
        migrate(engine)
    for told in ("secret-word", "secret-w%6Frd"):
        assert told not in str(caught.value)
    assert "password=********" in str(caught.value)


def test_a_missing_driver_is_told_with_the_remedy() -> None:
    code = """
import sys
sys.modules["psycopg"] = None
from eslbot.config.model import Ledger, Secret
from eslbot.ledger import database
from eslbot.ledger.database import LedgerDown, open_database
try:
    open_database(Ledger(Secret("postgresql+psycopg://me:secret-word@h/d"), "/j", 1.0))
except LedgerDown as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert "pip install 'eslbot[postgres]'" in done.stdout, done.stderr
    assert "secret-word" not in done.stdout
