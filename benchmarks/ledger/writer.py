"""What the ledger's writer takes for a call: ``python -m benchmarks.ledger.writer``.

The calls are of ten tenants, one and a half minutes each; their facts are read in rounds, as by the writer.
"""

from __future__ import annotations

import json
import time

import click

from benchmarks.frame import measuring
from eslbot.config.model import Ledger, Secret
from eslbot.ledger.database import migrate, open_database
from eslbot.ledger.parsing import read_fact
from eslbot.ledger.store import Batch, LedgerStore

BEGAN = 1_800_000_000.0
#: A call's facts: seconds behind its INVITE, what, and what more.
FACTS = (
    (0.05, "answered", {}),
    (0.06, "bot_connecting", {}),
    (0.3, "bot_connected", {}),
    (0.9, "speech_began", {}),
    *(
        (5.0 + 5 * number, what, {"cut": False} if what == "speech_ended" else {})
        for number, what in enumerate(("speech_ended", "speech_began") * 8)
    ),
    (86.0, "bot_ended", {"outcome": "bot_ended", "reason": "done"}),
    (86.1, "attempt_began", {"number": 1}),
    (86.3, "attempt", {"number": 1, "verdict": "accepted", "status": 200, "seconds": 0.2, "detail": "ok"}),
    (
        95.0,
        "ended",
        {
            "disposition": "recv_bye",
            "cause": "NORMAL_CLEARING",
            "outcome": "bot_ended",
            "handed_off": True,
            "stage": "held",
            "media": {"packets": 460, "mos": 4.4, "codec": "PCMU"},
        },
    ),
)


def lines(calls: int, rate: float) -> list[tuple[float, bytes]]:
    """The lines of a journal with their times."""
    found = []
    for number in range(calls):
        at, tenant = BEGAN + number / rate, number % 10
        who = {
            "invited_at": at,
            "workspace_id": f"2b37ba17-7b20-4b3e-b138-{tenant:012d}",
            "workspace": f"tenant-{tenant}",
            "did": "00919990152080",
            "crt_object_id": f"crt-{number}",
            "caller": f"9198{number:08d}",
            "called": "919990152080",
            "source": "203.0.113.10",
        }
        call = f"6e7cd1a1-0b1a-4ad5-8a2c-{number * 7919 % 10**12:012d}"
        for after, what, more in ((0.01, "admitted", who), *FACTS):
            line = {"call": call, "at": at + after, "what": what, **more}
            found.append((at + after, json.dumps(line).encode()))
    found.sort()
    return found


def measure(url: str, calls: int, rate: float, every: float) -> float:
    """Seconds of this process's CPU for a call."""
    engine = open_database(Ledger(Secret(url), "/none", 1.0), create=True)
    migrate(engine)
    store = LedgerStore(engine, "here")
    told = lines(calls, rate)
    began = time.process_time()
    place, offset, until = 0, 0, BEGAN
    while place < len(told):
        until += every
        batch = Batch()
        while place < len(told) and told[place][0] < until and batch.size < 500:
            fact = read_fact(told[place][1])
            assert fact is not None
            batch.add(fact)
            place += 1
        if batch.size:
            batch.offsets["journal"] = (offset, offset + batch.size)
            offset += batch.size
            store.write(batch, until)
    spent = time.process_time() - began
    engine.dispose()
    return spent / calls


@click.command()
@click.option("--calls", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--rate", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Calls a second.")
@click.option("--url", help="Default: an SQLite file of its own.")
def main(calls: int, rate: float, url: str | None) -> None:
    """Measure the writer's milliseconds of CPU a call: with a page open, and without."""
    with measuring("python -m benchmarks.ledger.writer") as run:
        found = {}
        for every in (0.5, 5.0):
            database = url or f"sqlite:///{run.folder.absolute()}/calls-{every:g}.db"
            found[every] = 1000 * measure(database, calls, rate, every)
        about = run.over()
    print(about.head("The ledger's writer", f"{calls} calls, {rate:g} a second"))
    for every, spent in found.items():
        print(f"{every:g} s: {spent:.3f} ms a call")


if __name__ == "__main__":
    main()
