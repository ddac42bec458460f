"""``python -m benchmarks.turns``."""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from benchmarks.machine import Machine
from benchmarks.turns.measure import Errors, converse
from eslbot.sim.lab import Lab, LabError, Tenant
from eslbot.turns import Kind

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
    with tempfile.TemporaryDirectory(prefix="eslbot-turns-") as folder:
        try:
            with Lab(Path(folder), [Tenant("acme", "hold")], switch=switch, workers=2, ledger=True) as lab:
                print(f"{Machine.here()}\n{lab.switch_name}; load {os.getloadavg()[0]:.1f} at the beginning")
                with ThreadPoolExecutor(at_a_time) as pool:
                    running = [
                        pool.submit(converse, lab, "acme", turns, seed + number) for number in range(calls)
                    ]
                    for number, one in enumerate(running):
                        before = {kind: len(found) for kind, found in errors.seconds.items()}
                        errors.add(*one.result())
                        new = [
                            error
                            for kind, found in errors.seconds.items()
                            for error in found[before.get(kind, 0) :]
                        ]
                        mean = 1000 * sum(new) / max(1, len(new))
                        print(f"call {number + 1}: {len(new)} turns, off by {mean:+.1f} ms in the mean")
        except LabError as error:
            print(f"the benchmark cannot run: {error}", file=sys.stderr)
            sys.exit(1)
    print(f"load {os.getloadavg()[0]:.1f} at the end\n")
    print("\n".join(report(errors)))


def report(errors: Errors) -> list[str]:
    """A table: by how many milliseconds turns are off."""
    lines = [
        "| turn | count | mean | p5 | p50 | p95 | least | most | within ±20 ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, found in (("", errors.seconds), (", the bot's share", errors.bot)):
        for kind in Kind:
            if off := sorted(1000 * one for one in found.get(kind, ())):
                within = sum(abs(one) <= 1000 * BAR for one in off)
                share = [off[min(len(off) - 1, int(len(off) * part))] for part in (0.05, 0.5, 0.95)]
                figures = [sum(off) / len(off), *share, off[0], off[-1]]
                cells = " | ".join(f"{one:+.1f}" for one in figures)
                lines.append(f"| {kind}{name} | {len(off)} | {cells} | {within} of {len(off)} |")
    lines.append("")
    lines.append(
        f"not told {errors.missing}, told and not there {errors.extra}, left out {errors.unsound} (sent late)"
    )
    return lines


if __name__ == "__main__":
    main()
