"""A batch is written with its offsets or not at all, and no call's facts hold up another's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from eslbot.config.model import Ledger, Secret
from eslbot.ledger import queries, terminal
from eslbot.ledger.database import migrate, open_database, reading
from eslbot.ledger.parsing import read_fact
from eslbot.ledger.record import CallRecord
from eslbot.ledger.schema import calls, timeline, turns
from eslbot.ledger.store import Batch, LedgerStore, OffsetsMoved
from tests.support.ledger import NOON, whole_call


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = open_database(Ledger(Secret(f"sqlite:///{tmp_path}/calls.db"), "/none", 1.0), create=True)
    migrate(engine)
    yield engine
    engine.dispose()


def batch(start: int, end: int, *names: str) -> Batch:
    """Whole calls, read from ``start`` to ``end`` of the journal ``j``."""
    made = Batch(offsets={"j": (start, end)})
    for name in names:
        for line in whole_call(name):
            fact = read_fact(json.dumps(line).encode())
            assert fact is not None
            made.add(fact)
    return made


def written(engine: Engine) -> tuple[list[str], int]:
    with reading(engine) as connection:
        names = list(connection.execute(select(calls.c.call_id).order_by(calls.c.call_id)).scalars())
        return names, len(connection.execute(select(timeline.c.id)).all())


def test_what_is_in_the_database_already_is_not_written_again(engine: Engine) -> None:
    """The answer to a commit may be lost: then the database has more than the writer thinks."""
    store = LedgerStore(engine, "here")
    store.write(batch(0, 100, "a"), NOON)
    with pytest.raises(OffsetsMoved):
        store.write(batch(0, 100, "a"), NOON)
    assert written(engine) == (["a"], 15)
    assert store.offsets() == {"j": 100}


@pytest.mark.slow
def test_a_call_that_cannot_be_written_does_not_hold_up_the_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply = CallRecord.apply

    def stumble(story: CallRecord, facts: object) -> None:
        apply(story, facts)  # type: ignore[arg-type]
        if story.row["call_id"] == "b":
            story.row["stage"] = None  # the database refuses that

    monkeypatch.setattr(CallRecord, "apply", stumble)
    rows = LedgerStore(engine, "here").write(batch(0, 100, "a", "b", "c"), NOON)
    assert [row["call_id"] for row in rows] == ["a", "c"]
    assert written(engine) == (["a", "c"], 30)
    assert LedgerStore(engine, "here").offsets() == {"j": 100}  # else it would be read for ever


def test_a_row_of_which_nothing_changes_is_not_written_again(engine: Engine) -> None:
    store = LedgerStore(engine, "here")
    store.write(batch(0, 1, "a"), NOON)
    again = Batch(offsets={"j": (1, 2)})
    fact = read_fact(json.dumps({"call": "a", "at": NOON + 8, "what": "mark", "name": "x"}).encode())
    assert fact is not None
    again.add(fact)
    (row,) = store.write(again, NOON + 50)
    assert row["updated_at"] == NOON
    assert written(engine) == (["a"], 16)


def test_turns_are_written_once_and_counted_over_batches(engine: Engine) -> None:
    store = LedgerStore(engine, "here")
    store.write(batch(0, 1, "a"), NOON)
    for number, seconds in ((1, 0.4), (2, 0.8), (2, 0.8)):
        more = Batch(offsets={"j": (store.offsets()["j"], 10 + store.offsets()["j"])})
        line = {
            "call": "a",
            "at": NOON + number,
            "what": "turn",
            "number": number,
            "kind": "answer",
            "seconds": seconds,
        }
        fact = read_fact(json.dumps(line).encode())
        assert fact is not None
        more.add(fact)
        (row,) = store.write(more, NOON + 50)
    assert (row["answers"], row["answer_p50"], row["answer_worst"]) == (2, 0.4, 0.8)
    with reading(engine) as connection:
        story = queries.call_details(connection, "a")
    assert story is not None
    assert [(turn["number"], turn["seconds"], turn["bot"]) for turn in story.turns] == [
        (1, 0.4, None),
        (2, 0.8, None),
    ]
    assert not any(line["what"] == "turn" for line in story.timeline)
    (shown,) = (line for line in terminal.format_call(story) if line.startswith("turns"))
    assert shown == "turns       2 answers, p50 0.40 s, p95 0.80 s, worst 0.80 s"
    assert sum("bot answers the caller" in line for line in terminal.format_call(story)) == 2
    assert json.loads(terminal.call_json(story))["turns"] == story.turns
    while store.expire(NOON + 1e6):
        pass
    with reading(engine) as connection:
        assert connection.execute(select(turns.c.id)).all() == []
