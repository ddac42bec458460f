"""``python -m benchmarks``."""

from __future__ import annotations

import json
import shlex
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import click

from benchmarks import plots
from benchmarks.esl import told as esl
from benchmarks.esl.cases import EventSocketCases
from benchmarks.frame import About, Run, measuring
from benchmarks.outcome import CannotRun, Case, Outcome, Status, Told
from benchmarks.plan import FULL, QUICK, Plan
from benchmarks.report import document, faults, markdown
from benchmarks.switch import told as switch
from benchmarks.switch.cases import SwitchCases
from benchmarks.versions import versions

CASES = ("throughput", "paced", "burst", "hold", "workers", "set-up", "handoff", "media", "storm")
SUBJECTS = ("eslbot", "eslbot.esl alone", "bare gevent", "greenswitch", "Genesis", "C")

#: Seconds after which the run is given up; what has been measured is written all the same.
LIMIT = 2400


@click.command()
@click.option("--quick", is_flag=True, help="One round, fewer calls, shorter: some four minutes.")
@click.option("--case", "names", multiple=True, type=click.Choice(CASES), help="Only this; may be repeated.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("benchmark-results"),
    show_default=True,
    help="Where report.md, raw.json and the pictures go.",
)
@click.option(
    "--subject",
    "subjects",
    multiple=True,
    type=click.Choice(SUBJECTS),
    help="Only this controller in throughput, paced, burst and hold; may be repeated.",
)
@click.option("--rounds", type=click.IntRange(1, 50), help="3, with --quick 1.")
@click.option("--seconds", type=click.FloatRange(1, 600), help="Of each run at a rate; 5, with --quick 2.")
@click.option("--held", multiple=True, type=click.IntRange(1, 20000), help="2000 and 5000, with --quick 500.")
@click.option(
    "--genesis", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A Python with Genesis."
)
def main(
    quick: bool,
    names: tuple[str, ...],
    out: Path,
    subjects: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    held: tuple[int, ...],
    genesis: Path | None,
) -> None:
    """Measure eslbot's speed and memory, beside others and beside FreeSWITCH, and write a report.

    Exits 0 when everything that can be measured here was, whatever the figures; 1 when a case failed, or
    eslbot lost a call or notified one twice; 2 when an option is wrong.
    """
    plan = QUICK if quick else FULL
    plan = replace(
        plan, rounds=rounds or plan.rounds, seconds=seconds or plan.seconds, held=held or plan.held
    )
    outcomes: list[Outcome] = []
    with measuring("scripts/benchmark", limit=LIMIT) as run:
        cases = _cases(plan, run, genesis, subjects)
        for name in names or CASES:
            outcome = _measure(cases[name], run)
            outcomes.append(outcome)
            if outcome.reason:
                run.say(f"{name}: {outcome.status}: {outcome.reason}")
            if outcome.reason == _INTERRUPTED:
                break
        about = run.over()
    about.command = shlex.join(["scripts/benchmark", *_without_genesis(sys.argv[1:])])
    about.versions = versions(genesis)
    if genesis is None:
        about.left_out = {"Genesis": "not installed here; --genesis may name a Python that has it"}
    out.mkdir(parents=True, exist_ok=True)
    told = _write(out, about, cases, outcomes)
    run.say(f"written: {out}/report.md, raw.json and {len(told)} pictures")
    sys.exit(1 if faults(outcomes, told) else 0)


def _cases(plan: Plan, run: Run, genesis: Path | None, subjects: Sequence[str]) -> dict[str, Case]:
    socket = EventSocketCases(plan, run.folder, genesis, subjects, run.say)
    calls = SwitchCases(plan, run.folder, run.say)
    every = [
        Case("throughput", "Calls a second", socket.throughput, esl.tell_throughput, plots.draw_throughput),
        Case("paced", "Latency", socket.paced, esl.tell_paced, plots.draw_paced),
        Case("burst", "Many calls at once", socket.burst, esl.tell_burst, plots.draw_burst),
        Case("hold", "Held calls", socket.hold, esl.tell_hold, plots.draw_hold),
        Case("workers", "One worker and two", socket.workers, esl.tell_workers, plots.draw_workers),
        Case("set-up", "Set-up, INVITE → 200", calls.set_up, switch.tell_set_up, plots.draw_set_up),
        Case("handoff", "Bot's end → POST", socket.handoff, esl.tell_handoff, plots.draw_handoff),
        Case("media", "Beside FreeSWITCH's own use", calls.media, switch.tell_media, plots.draw_media),
        Case("storm", "Ameyo away and back", socket.storm, esl.tell_storm, plots.draw_storm),
    ]
    return {case.name: case for case in every}


_INTERRUPTED = f"interrupted, or not over within {LIMIT} s"


def _measure(case: Case, run: Run) -> Outcome:
    run.say(f"{case.name}: {case.title}")
    began = time.monotonic()
    try:
        data, status, reason = case.measure(), Status.MEASURED, ""
    except CannotRun as error:
        data, status, reason = {}, Status.CANNOT_RUN, str(error)
    except KeyboardInterrupt:
        data, status, reason = {}, Status.FAILED, _INTERRUPTED
    except Exception as error:  # noqa: BLE001  # one case's trouble is not the others'; it is told
        traceback.print_exc()
        data, status, reason = {}, Status.FAILED, f"{type(error).__name__}: {error}"
    return Outcome(case.name, status, data, reason, time.monotonic() - began)


def _write(
    out: Path, about: About, cases: Mapping[str, Case], outcomes: Sequence[Outcome]
) -> dict[str, Told]:
    """Raw figures first: whatever happens behind, they are there."""
    (out / "raw.json").write_text(json.dumps(document(about, outcomes), indent=1, ensure_ascii=False) + "\n")
    measured = [outcome for outcome in outcomes if outcome.status is Status.MEASURED]
    told = {outcome.case: cases[outcome.case].tell(outcome.data) for outcome in measured}
    text = markdown(about, cases, outcomes, told)
    (out / "report.md").write_text(text)
    for outcome in measured:
        cases[outcome.case].draw(outcome.data, out / f"{outcome.case}.svg")
    print(text)
    return told


def _without_genesis(arguments: Sequence[str]) -> list[str]:
    """As the user has typed it: scripts/benchmark has put Genesis in."""
    found = list(arguments)
    if "--genesis" in found:
        at = found.index("--genesis")
        del found[at : at + 2]
    return found


if __name__ == "__main__":
    main()
