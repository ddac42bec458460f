"""What search and charts take with very many calls: ``python -m benchmarks.ledger``."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
from sqlalchemy import Connection, Engine, func, select

from benchmarks.frame import Run, measuring
from benchmarks.ledger.made import DAYS, TENANTS, make
from eslbot.config.model import Ledger, Secret
from eslbot.ledger.database import migrate, open_database, reading, writing
from eslbot.ledger.filters import Filter
from eslbot.ledger.queries import Place, find_calls
from eslbot.ledger.schema import calls as calls_table
from eslbot.ledger.summary import chart, rebuild
from eslbot.sim.loadtest.tables import table

#: Times that each question is asked.
TIMES = 5


def questions(newest: dict[str, Any], middle: dict[str, Any]) -> dict[str, Callable[[Connection], Any]]:
    """By what they are about; the calls are one of now, and one of the middle of the time."""
    few, all_but_one = frozenset(TENANTS[-3:]), frozenset(TENANTS[1:])
    end = int(newest["invited_at"] // 3600 + 1) * 3600

    def search(**wanted: Any) -> Callable[[Connection], Any]:
        return lambda connection: find_calls(connection, Filter(**wanted), 50)

    return {
        "the newest": search(),
        "from the middle on": lambda connection: find_calls(connection, Filter(), 50, Place.of(middle)),
        "of one small tenant": search(workspace=TENANTS[-1]),
        "of 19 of 20 tenants": search(workspaces=all_but_one),
        "prefix: a call id": search(prefix=middle["call_id"]),
        "prefix: 11 of a CRT Object ID": search(prefix=middle["crt_object_id"][:11]),
        "prefix: a caller but 3 digits": search(prefix=middle["caller"][:-3]),
        "prefix: a DID of some 1,400 calls": search(prefix=middle["did"]),
        "prefix: 0091, which all have": search(prefix="0091"),
        "prefix: 0091 of 3 small tenants": search(prefix="0091", workspaces=few),
        "prefix: a common one, and nothing": search(prefix="0091", fault="ameyo"),
        "outcome: 3 of 1,000,000": search(outcome="our_bye"),
        "outcome: 2 of 100": search(outcome="bot_failed"),
        "needs attention": search(attention=True),
        "live": search(live=True),
        "chart of 24 h, whole": lambda connection: chart(connection, end - 86400, end, 900, None),
        "chart of 7 days, whole": lambda connection: chart(connection, end - 7 * 86400, end, 3600, None),
        "chart of 7 days, a tenant": lambda connection: chart(
            connection, end - 7 * 86400, end, 3600, frozenset([TENANTS[0]])
        ),
    }


@click.command()
@click.option("--calls", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--url", help="A database, made where it is empty; default: an SQLite file of its own.")
def main(calls: int, url: str | None) -> None:
    """Measure what search and charts take with very many calls."""
    with measuring("python -m benchmarks.ledger") as run:
        database = Secret(url or f"sqlite:///{run.folder.absolute()}/calls.db")
        engine = open_database(Ledger(database, "/none", 1.0), create=True)
        _prepare(engine, calls, run)
        settings, rows = _measure(engine, run)
        engine.dispose()
        about = run.over()
    print(about.head("The ledger", settings))
    print(table(("question", "ms"), rows))


def _prepare(engine: Engine, count: int, run: Run) -> None:
    migrate(engine)
    with reading(engine) as connection:
        if connection.execute(select(calls_table.c.call_id).limit(1)).first() is not None:
            return
    make(engine, count)
    began = time.perf_counter()
    with writing(engine) as connection:
        rebuild(connection)
    run.say(f"all calls summed up in {time.perf_counter() - began:.1f} s")


def _measure(engine: Engine, run: Run) -> tuple[str, list[tuple[str, str]]]:
    """What was asked, and what each question took."""
    with reading(engine) as connection:
        count = connection.execute(select(func.count()).select_from(calls_table)).scalar_one()
        (newest,) = find_calls(connection, Filter(), 1)
        (middle,) = find_calls(connection, Filter(until=newest["invited_at"] - DAYS * 43200), 1)
    rows = []
    for name, question in questions(newest, middle).items():
        with reading(engine) as connection:
            taken = []
            for _ in range(TIMES):
                began = time.perf_counter()
                question(connection)
                taken.append(time.perf_counter() - began)
        rows.append((name, f"{1000 * min(taken):.1f}"))
        run.say(f"{name}: {rows[-1][1]} ms")
    return f"{count:,} calls in {engine.dialect.name}, the best of {TIMES}", rows


if __name__ == "__main__":
    main()
