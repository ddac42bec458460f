"""``python -m benchmarks.turns``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import click

from benchmarks.frame import measuring
from benchmarks.turns.measure import Errors, converse
from eslbot.sim.lab import Tenant
from eslbot.sim.loadtest.tables import table
from eslbot.turns import Kind
from tests.support.lab import Lab

#: Seconds within which a turn is to be (the issue's bar).
BAR = 0.020


@click.command()
@click.option("--calls", type=click.IntRange(1, 200), default=12, show_default=True)
@click.option(
    "--at-a-time", type=click.IntRange(1, 20), default=3, show_default=True, help="Calls at one time."
)
@click.option("--turns", type=click.IntRange(1, 100), default=12, show_default=True, help="Of each call.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option(
    "--switch", type=click.Choice(["freeswitch", "stand-in"]), default="freeswitch", show_default=True
)
def main(calls: int, at_a_time: int, turns: int, seed: int, switch: str) -> None:
    """Hold the ledger's turns against a capture of the RTP on both legs.

    Exits 0 when it was measured, whatever the figures, and 1 when it could not be.
    """
    errors = Errors()
    with (
        measuring("python -m benchmarks.turns") as run,
        Lab(run.folder, [Tenant("acme", "hold")], switch=switch, workers=2, ledger=True) as lab,
        ThreadPoolExecutor(at_a_time) as pool,
    ):
        run.about.switch = lab.switch_name
        running = [pool.submit(converse, lab, "acme", turns, seed + number) for number in range(calls)]
        for number, one in enumerate(running):
            before = {kind: len(found) for kind, found in errors.seconds.items()}
            errors.add(*one.result())
            new = [error for kind, found in errors.seconds.items() for error in found[before.get(kind, 0) :]]
            mean = 1000 * sum(new) / max(1, len(new))
            run.say(f"call {number + 1}: {len(new)} turns, off by {mean:+.1f} ms in the mean")
        about = run.over()
    print(about.head("Turns", f"{calls} calls of {turns} turns, seed {seed}"))
    print("\n".join(report(errors)))


def report(errors: Errors) -> list[str]:
    """A table: by how many milliseconds turns are off."""
    rows = []
    for name, found in (("", errors.seconds), (", the bot's share", errors.bot)):
        for kind in Kind:
            if off := sorted(1000 * one for one in found.get(kind, ())):
                within = sum(abs(one) <= 1000 * BAR for one in off)
                share = [off[min(len(off) - 1, int(len(off) * part))] for part in (0.05, 0.5, 0.95)]
                figures = [sum(off) / len(off), *share, off[0], off[-1]]
                cells = [f"{one:+.1f}" for one in figures]
                rows.append((f"{kind}{name}", f"{len(off)}", *cells, f"{within} of {len(off)}"))
    head = ("turn", "count", "mean", "p5", "p50", "p95", "least", "most", "within ±20 ms")
    lines = [table(head, rows)]
    lines.append(
        f"not told {errors.missing}, told and not there {errors.extra}, left out {errors.unsound} (sent late)"
    )
    return lines


if __name__ == "__main__":
    main()
