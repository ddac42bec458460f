"""The ledger's writer: whatever dies, and whenever, each fact is in the database once."""

from __future__ import annotations

import json
import signal
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from eslbot.ledger.schema import calls, journals, notifications, timeline
from tests.component.ledger.conftest import WriterHouse
from tests.support.ledger import NOON, Worker, fact, identity, whole_call
from tests.support.postgres import Postgres
from tests.support.processes import until

#: A writer that soon misses who has a call.
SOON = """
import socket, eslbot.ledger.writer as k
k.IDLE_INTERVAL, k.TAKE_OVER_TIMEOUT, k.WORKER_CHECK_INTERVAL = 0.2, 0.3, 0.05
"""


def everything_once(house: WriterHouse, count: int) -> None:
    """Each of ``count`` whole calls is there, once, with all that belongs to it."""
    rows = house.rows(calls)
    assert sorted(row["call_id"] for row in rows) == sorted(f"c{n}" for n in range(count))
    assert {(row["stage"], row["outcome"], row["fault"], row["attempts"]) for row in rows} == {
        ("held", "bot_ended", "none", 1)
    }
    assert all(row["ended_at"] is not None and not row["end_unseen"] for row in rows)
    assert Counter(line["call_id"] for line in house.rows(timeline)) == {f"c{n}": 15 for n in range(count)}
    sent = house.rows(notifications)
    assert Counter(row["call_id"] for row in sent) == {f"c{n}": 1 for n in range(count)}
    assert {row["verdict"] for row in sent} == {"accepted"}


def test_facts_become_rows_and_the_journal_of_a_dead_worker_is_deleted(any_house: WriterHouse) -> None:
    house = any_house
    process = house.writer()
    with Worker(house.journal) as worker:
        lines = [line for n in range(20) for line in whole_call(f"c{n}", NOON + n)]
        worker.write(lines[:150])
        house.live_until(lambda told: told["ledger"]["up"])
        worker.write(lines[150:])
        house.drained()
        everything_once(house, 20)
        (place,) = house.rows(journals)
        assert (place["name"], place["offset"]) == (worker.path.name, worker.path.stat().st_size)
        assert {row["host"] for row in house.rows(calls)} != {None}
    until(lambda: not worker.path.exists(), what="the deletion")
    until(lambda: not house.rows(journals))
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    everything_once(house, 20)


def test_a_writer_killed_at_any_moment_loses_and_doubles_nothing(any_house: WriterHouse) -> None:
    house, count = any_house, 120
    workers = [Worker(house.journal) for _ in range(2)]
    house.writer()
    house.live_until(lambda told: told["ledger"]["up"])
    for n in range(count):
        workers[n % 2].write(whole_call(f"c{n}", NOON + n))
        if n % 40 == 20:  # somewhere within a batch, or not
            time.sleep(0.05 * (n // 40))
            house.kill(house.processes[-1])
            house.writer()
    house.drained()
    everything_once(house, count)
    for worker in workers:
        worker.die()


def test_postgresql_stopped_and_started_while_calls_go_on(
    pg_house: WriterHouse, postgresql: Postgres
) -> None:
    house = pg_house
    house.writer()
    house.live_until(lambda told: told["ledger"]["up"])
    with Worker(house.journal) as worker:
        written = 0

        def some(count: int) -> None:
            nonlocal written
            for _ in range(count):
                worker.write(whole_call(f"c{written}", NOON + written))
                written += 1

        for _ in range(2):
            some(50)
            postgresql.stop()
            some(50)
            house.live_until(lambda told: not told["ledger"]["up"] and told["ledger"]["backlog"] > 0)
            some(50)
            assert house.ask("calls")["error"] == "database_down"
            assert house.ask("tenants")["error"] == "database_down"
            postgresql.start()
            some(50)
            house.drained()
        everything_once(house, written)
    assert "ledger_batch_refused" not in house.log


def test_live_calls_are_told_of_while_the_database_is_down(
    pg_house: WriterHouse, postgresql: Postgres
) -> None:
    house = pg_house
    house.writer()
    with Worker(house.journal) as worker:
        worker.write(whole_call("c0")[:5])
        house.live_until(lambda told: told["live"])
        postgresql.stop()
        told = house.live_until(lambda told: not told["ledger"]["up"])
        assert [row["call_id"] for row in told["live"]] == ["c0"]


def test_a_database_that_cannot_be_written_is_waited_for(house: WriterHouse, tmp_path: Path) -> None:
    (tmp_path / "calls.db").mkdir()
    house.writer()
    with Worker(house.journal) as worker:
        worker.write(whole_call("c0"))
        down = house.wait_for("ledger_down")
        assert "unable to open database file" in down["error"]
        assert "must be writable for the service's user" in down["error"]
        told = house.live_until(lambda told: told["ledger"]["backlog"] > 0)
        assert told["ledger"]["up"] is False
        (tmp_path / "calls.db").rmdir()
        house.drained()
        everything_once(house, 1)
    assert len(house.events("ledger_down")) == 1  # told once, not at each try


def test_a_disk_without_room_is_waited_for(house: WriterHouse) -> None:
    """SQLite's own bound on its file stands for the disk's."""
    small = """
import pathlib, sys
from sqlalchemy import event, Engine
room = pathlib.Path(sys.argv[-1]).parent / "room"
@event.listens_for(Engine, "begin")
def _bound(connection):
    connection.exec_driver_sql("PRAGMA max_page_count = %d" % (100000 if room.exists() else 40))
"""
    house.writer(small)
    with Worker(house.journal) as worker:
        for n in range(300):
            worker.write(whole_call(f"c{n}", NOON + n))
        assert "is full; make room" in house.wait_for("ledger_down")["error"]
        (house.folder / "room").touch()
        house.drained()
        everything_once(house, 300)


def test_what_is_no_fact_is_skipped_and_counted(house: WriterHouse) -> None:
    with Worker(house.journal) as worker:
        worker.write_bytes(b'{"half a line\n' + b"\xff\xfe\x00\n" + b"[1,2]\n" + b"x" * 300_000 + b"\n")
        worker.write(whole_call("c0"))
        worker.write([{"what": "ended", "call": "c\x00", "at": NOON}, fact("c0", "beamed", 3)])
        worker.write_bytes(b'{"call": "c0", "what": "bye_ov')  # it dies within a line
    house.writer()
    until(lambda: not worker.path.exists(), what="the deletion")
    everything_once(house, 1)
    assert sum(line["lines"] for line in house.events("journal_lines_skipped")) == 6
    strangers = [
        house.journal / name for name in ("notes.txt", "x.jsonl", "here-1-2.jsonl.bak", "here-1-2.jsonl")
    ]
    for stranger in strangers[:3]:
        stranger.write_text(json.dumps(whole_call("c9")[0]) + "\n")
    strangers[3].symlink_to(strangers[1])
    with Worker(house.journal) as worker:
        worker.write(whole_call("c1"))
    until(lambda: not worker.path.exists(), what="the deletion")  # so it has looked
    everything_once(house, 2)
    assert all(stranger.is_file() for stranger in strangers)


def test_a_second_writer_waits_for_the_first(house: WriterHouse) -> None:
    first = house.writer()
    house.live_until(lambda told: told["ledger"]["up"])
    second = house.writer()
    house.wait_for("ledger_writer_waits")
    with Worker(house.journal) as worker:
        worker.write(whole_call("c0"))
        first.send_signal(signal.SIGTERM)
        assert first.wait(10) == 0
        house.wait_for("ledger_writer_begins", 2)
        house.drained()
        everything_once(house, 1)
    assert second.stdin is not None
    second.stdin.close()  # its arbiter is gone
    assert second.wait(10) == 0


def test_a_call_that_nobody_has_is_closed_and_opened_when_somebody_has_it(house: WriterHouse) -> None:
    house.writer(SOON)
    worker = Worker(house.journal)
    worker.write([*whole_call("c0")[:5], *whole_call("c1", NOON + 5)[:5]])
    worker.write([fact("c0", "left", 1, why="shutdown")])

    def row(call_id: str) -> dict[str, object]:
        return next((row for row in house.rows(calls) if row["call_id"] == call_id), {})

    house.live_until(lambda told: told["live"])
    until(lambda: row("c0").get("end_unseen"), what="the end of c0")
    assert (row("c0")["ended_at"], row("c0")["outcome"]) == (NOON + 1, "controller_lost")
    assert row("c1")["ended_at"] is None  # its worker has it
    worker.die()
    until(lambda: row("c1").get("end_unseen"), what="the end of c1")
    assert not worker.path.exists()
    with Worker(house.journal) as other:
        other.write([fact("c0", "taken_over", 3, **identity(), stage="talking", take_overs=1)])
        until(lambda: row("c0")["ended_at"] is None)
        other.write([line for line in whole_call("c0") if line["at"] > NOON + 3])
        until(lambda: row("c0")["outcome"] == "bot_ended" and row("c0")["ended_at"])
        assert (row("c0")["end_unseen"], row("c0")["fault"], row("c0")["take_overs"]) == (False, "none", 1)


def test_a_writer_that_starts_again_knows_who_has_which_call(house: WriterHouse) -> None:
    lives, dead = Worker(house.journal), Worker(house.journal)
    lives.write(whole_call("c0")[:5])
    dead.write(whole_call("c1", NOON + 1)[:5])
    house.writer()
    house.drained()
    house.kill(house.processes[-1])
    dead.die()
    house.writer(SOON)
    until(lambda: any(row["end_unseen"] for row in house.rows(calls)), what="the end of c1")
    rows = {row["call_id"]: row for row in house.rows(calls)}
    assert rows["c1"]["end_unseen"]
    assert rows["c0"]["ended_at"] is None
    assert [row["call_id"] for row in house.live()["live"]] == ["c0"]
    lives.die()


def test_two_hosts_of_one_database(pg_house: WriterHouse, tmp_path: Path) -> None:
    """A call goes on at another host: neither writer ends it, and both tell one story."""
    here = pg_house
    (tmp_path / "there").mkdir()
    with closing(WriterHouse(tmp_path / "there", here.ledger.url.reveal())) as there:
        here.writer(SOON + "socket.gethostname = lambda: 'here'")
        there.writer(SOON + "socket.gethostname = lambda: 'there'")  # both migrate at once
        here.drained()
        there.drained()
        with Worker(here.journal) as one, Worker(there.journal, "there") as other:
            lines = whole_call("c0")
            one.write(lines[:5])
            here.drained()
            other.write([fact("c0", "taken_over", 1.0, **identity(), stage="talking", take_overs=1)])
            there.drained()
            one.write([fact("c0", "left", 0.99, why="shutdown")])  # read last, though it was first
            here.drained()
            one.die()
            told = here.wait_for("calls_end_unseen")
            assert (told["calls"], told["elsewhere"]) == (0, 1)
            (row,) = here.rows(calls)
            assert (row["ended_at"], row["host"], row["take_overs"]) == (None, "there", 1)
            other.write(lines[5:])
            there.drained()
        (row,) = here.rows(calls)
        assert (row["ended_at"], row["end_unseen"], row["fault"]) == (NOON + 9.3, False, "none")
        assert len(here.rows(timeline)) == 17


def test_restarts_of_freeswitch_are_counted_and_told(any_house: WriterHouse) -> None:
    house, now = any_house, time.time()
    with Worker(house.journal) as worker:
        worker.write(
            [*whole_call("c0", now - 60)[:5], *whole_call("c1", now - 50), *whole_call("c2", now - 5000)]
        )
        worker.write([
            fact("c0", "switch_restarted", 10, now - 60, restarts=1, gap=1.7),
            fact("c1", "switch_restarted", 2, now - 50, restarts=2),
            fact("c2", "switch_restarted", 2, now - 5000, restarts=1, gap=9.9),
        ])  # fmt: skip
        house.writer()
        house.live_until(lambda told: told["ledger"]["up"])
        house.drained()
        rows = {row["call_id"]: (row["restarts"], row["restart_gap"]) for row in house.rows(calls)}
        assert rows == {"c0": (1, 1.7), "c1": (2, None), "c2": (1, 9.9)}
        told = house.ask("switch")["restarts"]
        assert told == {"calls": 2, "last": pytest.approx(now - 48), "gap": 1.7}
        lines = [line["facts"] for line in house.ask("calls/c0")["timeline"]]
        assert lines[-1] == {"restarts": 1, "gap": 1.7}


def test_old_records_are_forgotten(house: WriterHouse) -> None:
    now = time.time()
    house.config.write_text(house.config.read_text().replace("[ledger]", '[ledger]\nretention = "1h"'))
    soon = (
        "import eslbot.ledger.writer as k, eslbot.ledger.store as s\n"
        "k.IDLE_INTERVAL = k.EXPIRY_INTERVAL = k.EXPIRY_PAUSE = 0.05\ns.MAX_CALLS_PER_TRANSACTION = 2"
    )
    with Worker(house.journal) as worker:
        for n in range(7):
            worker.write(whole_call(f"old{n}", now - 7200 + n))
        worker.write(whole_call("c0", now - 60))
        worker.write(whole_call("c1", now - 7200)[:5])  # it lives
        house.writer(soon)
        until(lambda: house.live_until(lambda told: told["ledger"]["up"]) and len(house.rows(calls)) == 2)
    assert {row["call_id"] for row in house.rows(calls)} == {"c0", "c1"}
    assert {row["call_id"] for row in house.rows(timeline)} == {"c0", "c1"}
    assert {row["call_id"] for row in house.rows(notifications)} == {"c0"}


def test_a_page_that_looks_is_told_what_changes(house: WriterHouse) -> None:
    house.writer()
    house.live_until(lambda told: told["ledger"]["up"])
    with Worker(house.journal) as worker:
        lines = whole_call("c0")
        worker.write(lines[:-1])
        told = house.live_until(lambda told: told["live"] and told["live"][0]["stage"] == "held")
        assert told["live"][0]["call_id"] == "c0"
        worker.write([lines[-1]])
        house.live_until(lambda told: not told["live"])
        assert house.ask("calls")["calls"][0]["fault"] == "none"
        house.live_until(lambda told: told["ledger"] == {"up": True, "backlog": 0})


def test_many_live_calls(house: WriterHouse) -> None:
    with Worker(house.journal) as worker:
        for n in range(1500):
            worker.write([fact(f"c{n}", "admitted", 0, NOON + n, **identity(at=NOON + n))])
        house.writer()
        told = house.live_until(lambda told: len(told["live"]) == 1500)
        assert len({row["call_id"] for row in told["live"]}) == 1500


def test_it_is_not_patched_by_gevent(house: WriterHouse) -> None:
    """Nor does it load what calls need: its threads are the system's."""
    told = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('loaded', [n for n in ('gevent', 'greenswitch') if n in"
        " sys.modules], file=sys.stderr))"
    )
    process = house.writer(told)
    house.live_until(lambda told: told["ledger"]["up"])
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert "loaded []" in house.log
