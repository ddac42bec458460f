"""Searching is the same by every way, and every way has its index."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, insert

from eslbot.ledger import filters, queries
from eslbot.ledger.database import migrate, open_database, reading, writing
from eslbot.ledger.filters import Filter
from eslbot.ledger.queries import Place, find_calls, iterate_calls
from eslbot.ledger.record import CallRecord, needs_attention
from eslbot.ledger.schema import calls
from tests.component.ledger.conftest import WriterHouse
from tests.support.ledger import ACME, NOON, OTHER

BOTH = frozenset([ACME, OTHER])


def made(number: int) -> dict[str, Any]:
    """A call of one of two tenants; three come at each moment."""
    row = CallRecord.new(f"{number:02d}-call").row
    row |= {
        "workspace_id": (ACME, OTHER)[number % 2],
        "workspace": ("acme", "other")[number % 2],
        "did": f"00919990{number % 7:06d}",
        "crt_object_id": f"crt-{number % 5}-{number}",
        "caller": f"+9198{number:04d}0000",
        "invited_at": NOON + number // 3,
        "ended_at": None if number % 10 == 0 else NOON + 100,
        "updated_at": NOON,
        "stage": "held",
        "outcome": ("bot_ended", "bot_failed")[number % 9 == 0],
        "fault": ("none", "bot")[number % 9 == 0],
    }
    return {**row, "attention": needs_attention(row)}


ROWS = [made(number) for number in range(60)]


@pytest.fixture
def engine(any_house: WriterHouse) -> Iterator[Engine]:
    engine = open_database(any_house.ledger, create=True)
    migrate(engine)
    with writing(engine) as connection:
        connection.execute(insert(calls), ROWS)
    yield engine
    engine.dispose()


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    with reading(engine) as connection:
        yield connection


def begins(*names: str) -> Any:
    return lambda row, prefix: any(row[name].startswith(prefix) for name in names)


IDS, NUMBERS = ("call_id", "crt_object_id"), ("did", "caller")
SEARCHES: list[tuple[dict[str, Any], Any]] = [
    ({}, lambda row: True),
    *(
        ({"prefix": prefix}, lambda row, prefix=prefix: begins(*IDS, *NUMBERS)(row, prefix))
        for prefix in ("1", "crt-3", "crt-3-", "0091999000000", "+9198001", "00919990000003", "%", "c_t", "C")
    ),
    (
        {"prefix": "crt-1", "workspaces": frozenset([OTHER])},
        lambda row: begins(*IDS)(row, "crt-1") and row["workspace_id"] == OTHER,
    ),
    ({"prefix": "0091", "workspaces": BOTH}, lambda row: True),
    ({"workspaces": BOTH, "outcome": "bot_failed"}, lambda row: row["outcome"] == "bot_failed"),
    ({"workspace": ACME}, lambda row: row["workspace_id"] == ACME),
    ({"workspace": "acme"}, lambda row: row["workspace_id"] == ACME),
    ({"workspace": ACME, "workspaces": frozenset([OTHER])}, lambda row: False),
    ({"workspaces": frozenset()}, lambda row: False),
    ({"attention": True}, lambda row: row["attention"]),
    ({"attention": True, "workspace": OTHER}, lambda row: row["attention"] and row["workspace_id"] == OTHER),
    ({"live": True}, lambda row: row["ended_at"] is None),
    (
        {"crt": "crt-2*", "since": NOON + 5, "until": NOON + 9},
        lambda row: row["crt_object_id"].startswith("crt-2") and 5 <= row["invited_at"] - NOON < 9,
    ),
    # Who may not see numbers: by the whole of one only.
    ({"prefix": "0091999", "numbers": False}, lambda row: False),
    ({"prefix": "+9198001", "numbers": False}, lambda row: False),
    ({"prefix": "00919990000003", "numbers": False}, lambda row: row["did"] == "00919990000003"),
    ({"prefix": "crt-4", "numbers": False}, lambda row: begins(*IDS)(row, "crt-4")),
]  # fmt: skip


@pytest.mark.parametrize("few", [0, 3, 2000])
@pytest.mark.parametrize(("wanted", "good"), SEARCHES)
def test_a_search_finds_the_same_whichever_way_it_goes(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], good: Any, few: int
) -> None:
    monkeypatch.setattr(queries, "MAX_LOOKED_UP", few)
    expected = sorted((row["invited_at"], row["call_id"]) for row in ROWS if good(row))[::-1]
    found = find_calls(connection, Filter(**wanted), 100)
    assert [(row["invited_at"], row["call_id"]) for row in found] == expected
    # By pages, which divide calls that came at one moment.
    paged: list[Any] = []
    before = None
    while page := find_calls(connection, Filter(**wanted), 4, before):
        paged += page
        before = Place.of(page[-1])
    assert paged == found
    monkeypatch.setattr(queries, "MAX_ROWS", 7)
    assert list(iterate_calls(connection, Filter(**wanted), 1000)) == found
    assert list(iterate_calls(connection, Filter(**wanted), 10)) == found[:10]


@pytest.mark.parametrize(
    "sort", ["abc", "00919", "a-b", "é", "\u0939", "\ud7ff", "x\U0010ffff", "\U0010ffff"]
)
def test_what_is_behind_a_prefix_is_behind_all_that_begin_with_it(sort: str) -> None:
    behind = filters._after(sort).encode()
    assert sort.encode() < (sort + "\U0010ffff").encode() < behind
    assert not filters._after(sort).startswith(sort) or sort.strip("\U0010ffff") == ""


# -- plans --------------------------------------------------------------------------------------------------


def plans(engine: Engine, wanted: Filter, before: Place | None = None) -> list[str]:
    """How the database goes about each statement of a search."""
    asked: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, parameters))

    with reading(engine) as connection:
        event.listen(engine, "before_cursor_execute", note)
        try:
            find_calls(connection, wanted, 50, before)
        finally:
            event.remove(engine, "before_cursor_execute", note)
        if engine.dialect.name == "postgresql":  # of 60 rows it would read them all
            for way in ("seqscan", "bitmapscan", "sort"):
                connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
            found = [connection.exec_driver_sql(f"EXPLAIN {text}", values).all() for text, values in asked]
            return [" ".join(row[0].strip() for row in rows) for rows in found]
        found = [
            connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all() for text, values in asked
        ]
        return ["; ".join(row[3] for row in rows) for rows in found]


INDEXED = [
    ({"prefix": "crt-3"}, ["call_id", "crt_object_id", "did", "caller"]),
    ({"prefix": "crt-3", "numbers": False}, ["call_id", "crt_object_id", "did", "caller"]),
    ({"crt": "crt-3*"}, ["crt_object_id"]),
    ({"crt": "crt-3-3"}, ["crt_object_id"]),
    ({"did": "0091"}, ["did"]),
    ({"caller": "0091"}, ["caller"]),
    ({"outcome": "bot_failed"}, ["outcome"]),
    ({"attention": True}, ["attention"]),
    ({"live": True}, ["ended_at"]),
]


@pytest.mark.parametrize(("wanted", "by"), INDEXED)
def test_what_is_rare_is_looked_up(engine: Engine, wanted: dict[str, Any], by: list[str]) -> None:
    told = plans(engine, Filter(**wanted))
    names = [
        "sqlite_autoindex_calls_1|calls_pkey|calls_call_id" if name == "call_id" else f"calls_{name}"
        for name in by
    ]
    for name, plan in zip(names, told, strict=False):
        assert re.search(rf"\b({name})\b", plan), plan
        assert not re.search(r"SCAN calls(?! USING)|Seq Scan", plan), plan
    rows = told[len(by) :]  # none where nothing is found
    assert all("USING INDEX" in plan or "Index Scan" in plan for plan in rows), rows


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({}, "calls_invited_at"),
        ({"since": NOON}, "calls_invited_at"),
        ({"prefix": "crt-"}, "calls_invited_at"),
        ({"outcome": "bot_ended"}, "calls_invited_at"),
        ({"attention": True}, "calls_invited_at"),
        ({"workspace": ACME}, "calls_workspace"),
        ({"workspaces": BOTH, "prefix": "crt-"}, "calls_workspace"),
    ],
)
@pytest.mark.parametrize("before", [None, Place(NOON + 10, "x")])
def test_what_is_not_is_read_in_its_order(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, wanted: dict[str, Any], index: str, before: Place | None
) -> None:
    monkeypatch.setattr(queries, "MAX_LOOKED_UP", 1)
    last = plans(engine, Filter(**wanted), before)[-1]
    if engine.dialect.name == "sqlite":
        assert re.search(rf"USING INDEX {index}\b", last), last
        assert "USE TEMP B-TREE FOR ORDER BY" not in last, last  # but for calls of one moment
    else:
        assert re.search(rf"Index Scan Backward using {index}\b", last), last
        assert "Incremental Sort" in last, last
