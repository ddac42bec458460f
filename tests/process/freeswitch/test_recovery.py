"""A real FreeSWITCH behind a crash, and what `eslbot recovery` does before its next start."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from eslbot.recovery.before_start import before_start
from eslbot.recovery.state import read
from eslbot.sim.freeswitch import FreeSwitchError
from tests.process.freeswitch.conftest import Caller, Session, Switch, running, taken_up, until


@pytest.fixture
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Switch]:
    with running(tmp_path_factory) as switch:
        switch.controllers.open()
        yield switch


def core(switch: Switch) -> Path:
    return switch.process.work / "db" / "core.db"


def rows(switch: Switch) -> int:
    with closing(sqlite3.connect(core(switch))) as database:
        (count,) = database.execute("select count(*) from recovery").fetchone()
    return int(count)


@contextmanager
def a_call(switch: Switch, folder: Path) -> Iterator[Session]:
    """Answered, and taken up later: its PBX waits for the re-INVITE, and sends BYE at the end."""
    with Caller(switch, folder, during=taken_up()) as caller, caller.call():
        session = switch.controllers.accept()
        session.connect()
        session.execute("answer")
        until(lambda: rows(switch) == 1, "the call is not in the core database")
        yield session


def tear(path: Path, table: str) -> None:
    """The first page of ``table`` is not what it should be, as where it died between two writes."""
    with closing(sqlite3.connect(path)) as database:
        (size,) = database.execute("pragma page_size").fetchone()
        (page,) = database.execute("select rootpage from sqlite_master where name=?", (table,)).fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xa5" * size)


def test_a_torn_database_keeps_freeswitch_down_until_it_is_put_aside(fresh: Switch, tmp_path: Path) -> None:
    fresh.process.kill()
    core(fresh).write_bytes(b"\xa5" * 8192)
    with pytest.raises(FreeSwitchError, match="ended with exit code"):
        fresh.process.start()
    (told, _) = before_start(core(fresh).parent, tmp_path / "word.json")
    assert "was torn" in told
    fresh.process.start()
    assert fresh.channels() == 0
    assert core(fresh).stat().st_mode & 0o777 == 0o600, "FreeSWITCH leaves the mode as it is"


def test_the_calls_of_a_torn_database_come_back(fresh: Switch, tmp_path: Path) -> None:
    with a_call(fresh, tmp_path) as session:
        fresh.process.kill()
        tear(core(fresh), "interfaces")
        told = before_start(core(fresh).parent, tmp_path / "word.json")
        assert "1 calls of it were saved" in told[0]
        fresh.process.start()
        again = fresh.controllers.accept().connect()
        assert (again["Unique-ID"], again["Answer-State"]) == (session.uuid, "answered")
        until(lambda: rows(fresh) == 1, "it is not kept again")


def test_a_loop_ends_without_the_calls(fresh: Switch, tmp_path: Path) -> None:
    now = iter((100.0, 110.0, 120.0))
    kept = tmp_path / "kept.db"
    with a_call(fresh, tmp_path) as session:
        fresh.process.kill()
        shutil.copyfile(core(fresh), kept)
        for _ in range(3):
            before_start(core(fresh).parent, tmp_path / "word.json", clock=lambda: next(now))
        word = read(tmp_path / "word.json")
        assert (word.restarts, word.flushes, word.dropped) == (3, 1, 1)
        assert rows(fresh) == 0
        fresh.process.start()
        assert fresh.channels() == 0
        # The call is taken up after all, so that its PBX is told, and this test is at its end.
        fresh.process.stop()
        shutil.copyfile(kept, core(fresh))
        fresh.process.start()
        assert fresh.controllers.accept().connect()["Unique-ID"] == session.uuid
