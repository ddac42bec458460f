"""``python -m benchmarks.reliability``."""

from __future__ import annotations

import random
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.frame import Run, measuring
from benchmarks.reliability.cases import CROWDS, DEATHS, Bench
from benchmarks.reliability.report import Report
from benchmarks.reliability.results import Unmeasured
from eslbot.sim.service import LabError

CASES = ("kills", "uplink", "away", "storm", "calm", "hup", "rolling", "deaths")

#: Seconds after which the run is given up.
LIMIT = 1500


@click.command()
@click.option(
    "--switch", type=click.Choice(["freeswitch", "stand-in", "auto"]), default="auto", show_default=True
)
@click.option("--case", "cases", multiple=True, type=click.Choice(CASES), help="Only this; may be repeated.")
@click.option("--quick", is_flag=True, help="A tenth of everything: two minutes.")
@click.option("--kills", type=click.IntRange(1, 1000), help="In one call; 200, with --quick 20.")
@click.option(
    "--spacing", type=click.FloatRange(0, 10), default=0.0, help="Seconds more between two of them."
)
@click.option("--calls", type=click.IntRange(1, 200), help="Under the storm; 60, with --quick 10.")
@click.option("--seconds", type=click.FloatRange(2, 600), help="Of storm and deploys; 60, with --quick 8.")
@click.option(
    "--rate", type=click.FloatRange(0.1, 50), default=5.0, show_default=True, help="Calls a second."
)
@click.option("--workers", type=click.IntRange(2, 16), default=3, show_default=True, help="Of eslbot.")
@click.option("--seed", type=int, default=4, show_default=True, help="Of everything that chance decides.")
@click.option("--json", "as_json", type=click.Path(dir_okay=False, path_type=Path), help="All raw figures.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep logs and configurations here."
)
def main(
    switch: str,
    cases: tuple[str, ...],
    quick: bool,
    kills: int | None,
    spacing: float,
    calls: int | None,
    seconds: float | None,
    rate: float,
    workers: int,
    seed: int,
    as_json: Path | None,
    keep: Path | None,
) -> None:
    """Measure what a call survives, against the bars of issues 4 and 14.

    Exits 0 when everything was measured, whatever the figures, and 1 when something could not be.
    """
    plan = _Plan(
        kills or (20 if quick else 200),
        spacing,
        calls or (10 if quick else 60),
        seconds or (8.0 if quick else 60.0),
        rate,
        3 if quick else 10,
    )
    with measuring("python -m benchmarks.reliability", keep=keep, limit=LIMIT) as run:
        bench = Bench(run.folder, switch, workers, random.Random(seed), run.say)
        report = Report(run.about, workers, seed)
        runs = _runs(plan, bench, report, run)
        try:
            for name in cases or CASES:
                told, measure = runs[name]
                run.say(told)
                try:
                    measure()
                except LabError:
                    raise
                except (Unmeasured, TimeoutError, OSError, RuntimeError) as error:
                    report.failures.append(f"{name}: {error!r}")
                    traceback.print_exc()
        except KeyboardInterrupt:
            report.failures.append(f"interrupted, or not over within {LIMIT} s")
        report.about.switch = bench.switch_name
        run.over()
    print(report.text())
    if as_json is not None:
        as_json.write_text(report.json(), encoding="utf-8")
    sys.exit(1 if report.failures else 0)


@dataclass(frozen=True)
class _Plan:
    """How much of what; seconds and counts."""

    kills: int
    spacing: float
    held: int
    length: float
    rate: float
    deaths: int


def _runs(plan: _Plan, bench: Bench, report: Report, run: Run) -> dict[str, tuple[str, Callable[[], None]]]:
    """Each case: what is told of it, and how it is measured."""
    fewer, pause = plan.kills // 4 + 1, min(5.0, plan.length / 4)
    rate, length, held, spacing = plan.rate, plan.length, plan.held, plan.spacing

    def deploys(name: str, length: float) -> Callable[[], None]:
        return lambda: report.deploys.append(bench.deploys(name, rate, length, pause))

    def deaths() -> None:
        for name in DEATHS:
            run.say(f"  {name}")
            report.deaths.append(bench.death(name, plan.deaths))
        for name in CROWDS:
            run.say(f"  {min(held, 50)} calls {name}")
            report.deaths.append(bench.crowd_dies(name, min(held, 50)))

    return {
        "kills": (
            f"{plan.kills} kills in one call, the bot speaking",
            lambda: setattr(report, "speaking", bench.take_overs(plan.kills, speaking=True, spacing=spacing)),
        ),
        "uplink": (
            f"{fewer} kills in one call, parked",
            lambda: setattr(report, "parked", bench.take_overs(fewer, speaking=False, spacing=spacing)),
        ),
        "away": ("no eslbot for 5 s", lambda: setattr(report, "away", bench.away(5.0, 5))),
        "storm": (
            f"{held} calls, a kill every 500 ms for {length:g} s",
            lambda: setattr(report, "storm", bench.storm(held, 0.5, length)),
        ),
        "calm": (f"{rate:g} calls/s and no deploy, to compare with", deploys("calm", length / 3)),
        "hup": (f"HUP under {rate:g} calls/s for {length:g} s", deploys("hup", length)),
        "deaths": (f"FreeSWITCH dies, {len(DEATHS) + len(CROWDS)} times", deaths),
        "rolling": (f"rolling restart under {rate:g} calls/s for {length:g} s", deploys("rolling", length)),
    }


if __name__ == "__main__":
    main()
