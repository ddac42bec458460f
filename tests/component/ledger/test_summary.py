"""The summaries are the sum over the calls, whatever happens to their writer."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, column, insert, inspect, select, table

from eslbot.ledger import database, summary
from eslbot.ledger.database import migrate, open_database, reading, writing
from eslbot.ledger.parsing import Fact, read_fact
from eslbot.ledger.record import CallRecord
from eslbot.ledger.schema import calls
from eslbot.ledger.store import Batch, LedgerStore, OffsetsMoved
from eslbot.ledger.summary import chart, counts_of, interval_of
from tests.component.ledger.conftest import WriterHouse
from tests.support.ledger import ACME, NOON, OTHER, fact, identity, whole_call


@pytest.fixture
def engine(any_house: WriterHouse) -> Iterator[Engine]:
    engine = open_database(any_house.ledger, create=True)
    migrate(engine)
    yield engine
    engine.dispose()


def batch(start: int, lines: list[dict[str, Any]]) -> Batch:
    made = Batch(offsets={"j": (start, start + len(lines))})
    for line in lines:
        one = read_fact(json.dumps(line).encode())
        assert one is not None
        made.add(one)
    return made


def summed(engine: Engine) -> dict[tuple[int, str], dict[str, int]]:
    with reading(engine) as connection:
        rows = connection.execute(select(summary.summary)).all()
    # A quarter that its calls have left is empty.
    return {(row.at, row.workspace_id): row.figures for row in rows if row.figures}


def added_up(engine: Engine) -> dict[tuple[int, str], dict[str, int]]:
    found: dict[tuple[int, str], Counter[str]] = {}
    with reading(engine) as connection:
        for row in connection.execute(select(calls)).mappings():
            place = interval_of(row["invited_at"]), row["workspace_id"] or ""
            found.setdefault(place, Counter()).update(counts_of(row))
    return {place: dict(counts) for place, counts in found.items() if counts}


def facts(seed: int, count: int = 30) -> list[dict[str, Any]]:
    """Of calls of two tenants in an hour, of which some are refused, cut short or taken over."""
    chance = random.Random(seed)
    lines: list[dict[str, Any]] = []
    for number in range(count):
        call, at = f"c{number}", NOON + chance.uniform(0, 3600)
        who = {"workspace": chance.choice((ACME, OTHER)), "name": "x", "crt_object_id": f"crt-{number}"}
        if chance.random() < 0.2:
            lines.append(
                fact(call, "refused", 0, at, **identity(at=at, **who), status=503, why=chance.choice("ab"))
            )
            continue
        lines += whole_call(call, at, **who)[: chance.choice((3, 8, 12, 15))]
        if chance.random() < 0.5:
            # Only this one knows when the call came: it goes to another quarter.
            more = {"stage": "talking", "take_overs": 1, "invited_at": at - 1000}
            lines.append(fact(call, "taken_over", 7, at, **more))
    lines.sort(key=lambda line: line["at"])
    return lines


@pytest.mark.parametrize("seed", range(3))
def test_at_any_moment_they_are_the_sum_over_the_calls(engine: Engine, seed: int) -> None:
    lines, chance, offset = facts(seed), random.Random(seed), 0
    while lines:
        some, lines = lines[: (size := chance.randrange(1, 60))], lines[size:]
        made = batch(offset, some)
        LedgerStore(engine, "here").write(made, NOON)  # another writer each time, which knows nothing
        with pytest.raises(OffsetsMoved):
            LedgerStore(engine, "there").write(made, NOON)
        offset += len(some)
        assert summed(engine) == added_up(engine)
    before = summed(engine)
    assert {name.split()[0] for counts in before.values() for name in counts} == {
        *("calls", "ended", "good", "take_overs", "refused", "set_up", "first_audio", "hand_off")
    }
    heard = dict.fromkeys((f"c{number}" for number in range(30)), NOON + 10_000)
    LedgerStore(engine, "here").close_unseen(heard, NOON)
    assert summed(engine) == added_up(engine) != before
    before = summed(engine)
    with writing(engine) as connection:
        summary.rebuild(connection)
    assert summed(engine) == before


def test_what_is_rolled_back_is_not_counted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    apply = CallRecord.apply

    def stumble(story: CallRecord, told: list[Fact]) -> None:
        apply(story, told)
        if story.row["call_id"] == "b":
            story.row["stage"] = None  # the database refuses that

    monkeypatch.setattr(CallRecord, "apply", stumble)
    rows = LedgerStore(engine, "here").write(
        batch(0, [*whole_call("a"), *whole_call("b"), *whole_call("c")]), NOON
    )
    assert [row["call_id"] for row in rows] == ["a", "c"]
    assert summed(engine) == added_up(engine)
    assert summed(engine)[int(NOON), ACME]["calls"] == 2


def test_they_are_forgotten_with_their_calls(engine: Engine) -> None:
    store = LedgerStore(engine, "here")
    store.write(batch(0, [*whole_call("a"), *whole_call("b", NOON + 7200)]), NOON)
    assert store.expire(NOON + 3600) is False
    assert [at for at, _ in summed(engine)] == [NOON, NOON + 7200]
    store.expire(NOON + 3600)  # behind the last of the calls that are too old
    assert [at for at, _ in summed(engine)] == [NOON + 7200]
    assert summed(engine) == added_up(engine)


def test_a_database_of_before_is_summed_up_once(
    any_house: WriterHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = open_database(any_house.ledger, create=True)
    config = Config()
    config.set_main_option("script_location", str(database.MIGRATIONS))
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        story = CallRecord.new("a")
        story.apply(batch(0, whole_call("a")).facts["a"])
        there = {known["name"] for known in inspect(connection).get_columns("calls")}
        old = table("calls", *(column(c.name, c.type) for c in calls.columns if c.name in there))
        for call, more in (("good", {}), ("bad", {"fault": "bot"}), ("ours", {"byes_overdue": 1})):
            row = {**story.row, **more, "call_id": call, "updated_at": NOON}
            connection.execute(insert(old).values({c.name: row[c.name] for c in old.columns}))
    migrate(engine)
    assert summed(engine) == added_up(engine) != {}
    with reading(engine) as connection:
        needing = select(calls.c.call_id).where(calls.c.attention).order_by(calls.c.call_id)
        assert list(connection.execute(needing).scalars()) == ["bad", "ours"]
    monkeypatch.setattr(summary, "rebuild", lambda _: pytest.fail("once"))
    migrate(engine)
    engine.dispose()


def test_a_chart(engine: Engine) -> None:
    lines = [
        *whole_call("a"),
        *whole_call("b", NOON + 100),
        *whole_call("c", NOON + 1000)[:5],
        *whole_call("d", NOON + 1000, workspace=OTHER),
        fact("e", "refused", 0, NOON + 10, **identity(at=NOON + 10), status=503, why="worker_full"),
        fact("f", "refused", 0, NOON + 10, status=400, why="malformed_header"),
        *whole_call("before", NOON - 1),
        *whole_call("behind", NOON + 3600),
    ]
    LedgerStore(engine, "here").write(batch(0, lines), NOON)
    noon = int(NOON)
    with reading(engine) as connection:
        told = chart(connection, noon, noon + 3600, 900, None)
        assert [point["at"] for point in told["points"]] == [noon, noon + 900, noon + 1800, noon + 2700]
        assert [(point["calls"], point["ended"]) for point in told["points"]] == [
            (2, 2),
            (2, 1),
            (0, 0),
            (0, 0),
        ]
        assert told["points"][0]["refused"] == {"malformed_header": 1, "worker_full": 1}
        assert told["points"][2]["success"] is None
        assert told["points"][2]["set_up"] == {"count": 0, "p50": None, "p95": None}
        assert told["total"]["hand_off"] == {"count": 3, "p50": pytest.approx(0.2, rel=0.06),
                                             "p95": pytest.approx(0.2, rel=0.06)}  # fmt: skip
        hours = chart(connection, noon - 3600, noon + 3600, 3600, frozenset([ACME]))
        assert [point["calls"] for point in hours["points"]] == [1, 3]
        assert hours["total"]["refused"] == {"worker_full": 1}  # what is nobody's is not a tenant's
        for nobody in (frozenset[str](), frozenset(["nobody"])):
            assert chart(connection, noon, noon + 3600, 900, nobody)["total"]["calls"] == 0
