"""The page's questions to the database: within rights, and bounded in number, time and size."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from eslbot.ledger import query_service
from eslbot.ledger.database import LedgerDown, migrate, open_database, reading
from eslbot.ledger.filters import Filter
from eslbot.ledger.parsing import read_fact
from eslbot.ledger.queries import Place
from eslbot.ledger.query_service import LedgerBusy, QueryService, truncate
from eslbot.ledger.store import Batch, LedgerStore
from tests.component.ledger.conftest import WriterHouse
from tests.support.ledger import NOON, OTHER, whole_call

MINE = frozenset({OTHER})


@pytest.fixture
def engine(any_house: WriterHouse) -> Any:
    """Two tenants' calls, in either database."""
    engine = open_database(any_house.ledger, create=True)
    migrate(engine)
    batch = Batch()
    lines = [
        *whole_call("c0"),
        *whole_call("d0", NOON + 1, workspace=OTHER, name="other"),
        *whole_call("c1", NOON + 2)[:5],
    ]
    for line in lines:
        fact = read_fact(json.dumps(line).encode())
        assert fact is not None
        batch.add(fact)
    LedgerStore(engine, "here").write(batch, NOON + 100)
    yield engine
    engine.dispose()


@pytest.fixture
def asked(engine: Engine) -> QueryService:
    return QueryService(lambda: engine)


def names(rows: list[dict[str, Any]]) -> list[str]:
    return [row["call_id"] for row in rows]


@pytest.mark.slow
def test_it_answers(asked: QueryService) -> None:
    assert not asked.in_use
    assert names(asked.calls(Filter(), 50, None)) == ["c1", "d0", "c0"]
    assert asked.in_use
    assert names(asked.calls(Filter(), 1, Place(NOON + 2, "c1"))) == ["d0"]
    story = asked.call("c0", None)
    assert story is not None
    assert (story.call["crt_object_id"], len(story.timeline)) == ("crt-1", 15)
    assert story.notifications[0]["verdict"] == "accepted"
    assert asked.call("nobody", None) is None


def test_for_a_token_other_tenants_calls_do_not_exist(asked: QueryService) -> None:
    assert names(asked.calls(Filter(workspaces=MINE), 50, None)) == ["d0"]
    assert asked.calls(Filter(workspace="acme", workspaces=MINE), 50, None) == []
    assert asked.calls(Filter(workspaces=frozenset()), 50, None) == []
    assert asked.call("c0", MINE) is None
    assert asked.call("d0", MINE) is not None
    assert asked.restarts(MINE) == {"calls": 0, "last": None, "gap": None}


def test_what_every_page_asks_is_asked_of_the_database_now_and_then(
    asked: QueryService, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[frozenset[str] | None] = []
    real = query_service.tenants.tenants

    def tenants(connection: Any, now: float, workspaces: frozenset[str] | None) -> Any:
        counted.append(workspaces)
        return real(connection, NOON + 60, workspaces)

    monkeypatch.setattr(query_service.tenants, "tenants", tenants)
    for _ in range(3):
        assert [row["workspace"] for row in asked.tenants(None)] == ["acme", "other"]
        assert [row["workspace"] for row in asked.tenants(MINE)] == ["other"]
    assert counted == [None, MINE]
    monkeypatch.setattr(query_service, "CACHE_SECONDS", -1.0)
    asked.tenants(None)
    assert counted == [None, MINE, None]
    assert set(asked._cache) == {(tenants, None)}  # what is not fresh is not kept


def test_without_a_database_it_says_so() -> None:
    with pytest.raises(LedgerDown):
        QueryService(lambda: None).tenants(None)


def test_a_question_that_takes_too_long_is_broken_off(engine: Engine) -> None:
    endless = {
        "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
        "postgresql": "SELECT pg_sleep(60)",
    }[engine.dialect.name]
    began = time.monotonic()
    with pytest.raises(LedgerDown), reading(engine, 0.2) as connection:
        connection.execute(text(endless))
    assert time.monotonic() - began < 30
    with reading(engine, 0.2) as connection:  # the same connection, most likely: it works again
        time.sleep(0.3)
        assert connection.execute(text("SELECT 1")).scalar() == 1 or engine.dialect.name == "sqlite"
    with reading(engine) as connection:
        assert connection.execute(text("SELECT 1")).scalar() == 1


def test_questions_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(query_service, "QUEUE_TIMEOUT", 0.05)
    release, under_way = threading.Event(), threading.Semaphore(0)

    def engine() -> None:
        under_way.release()
        release.wait(10)

    asked = QueryService(engine)

    def ask() -> str:
        try:
            asked.tenants(None)
        except (LedgerBusy, LedgerDown) as error:
            return type(error).__name__
        return "answered"

    with ThreadPoolExecutor(32) as pool:
        first = [pool.submit(ask) for _ in range(query_service.MAX_CONCURRENT)]
        for _ in first:
            assert under_way.acquire(timeout=10)
        more = [pool.submit(ask) for _ in range(10)]
        assert {one.result(10) for one in more} == {"LedgerBusy"}
        release.set()
        assert {one.result(10) for one in first} == {"LedgerDown"}
    assert not under_way.acquire(blocking=False)


def test_what_comes_back_is_bounded() -> None:
    rows = [{"x": "y" * 90} for _ in range(100)]
    assert len(truncate(rows, 1000)) == 9
    assert len(truncate(rows, 10)) == 1
    assert truncate(rows, 10**6) == rows
    assert truncate([], 1) == []
