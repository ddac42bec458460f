"""report.md: what was measured, where, with which versions, and what it is against the bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.outcome import Case, Outcome, Status, Told
from eslbot.sim.loadtest.machine import Machine
from eslbot.sim.loadtest.tables import table

#: A load average from which on something else is running.
BUSY = 0.5

_MET = {True: "met", False: "**missed**", None: "not judged"}


@dataclass(frozen=True)
class About:
    """Where and when; ``left_out`` is what is not among the subjects, and why."""

    date: str
    command: str
    machine: Machine
    versions: Mapping[str, str]
    seconds: float
    left_out: Mapping[str, str] = field(default_factory=dict)


def faults(outcomes: Sequence[Outcome], told: Mapping[str, Told]) -> list[str]:
    """What went wrong, a line each: a case that failed, a call that was lost. A missed bar is none."""
    found = [f"{o.case}: {o.reason}" for o in outcomes if o.status is Status.FAILED]
    return found + [f"{case}: {fault}" for case, part in told.items() for fault in part.faults]


def markdown(
    about: About, cases: Mapping[str, Case], outcomes: Sequence[Outcome], told: Mapping[str, Told]
) -> str:
    """The whole report; pictures stand beside it, named after their case."""
    machine = about.machine
    lines = [
        "# Benchmark\n",
        f"{about.date}, {machine}, {about.seconds:.0f} s, `{about.command}`\n",
        ", ".join(
            f"{name} {version}" for name, version in {"Python": machine.python, **about.versions}.items()
        )
        + "\n",
    ]
    if machine.load >= BUSY:
        lines.append(f"**The machine was not quiet:** load average {machine.load} at the start.\n")
    verdicts = [verdict for part in told.values() for verdict in part.verdicts]
    if verdicts:
        rows = [(v.measure, v.bar, v.measured, _MET[v.met]) for v in verdicts]
        lines.append(table(("measure", "bar", "measured", ""), rows))
    if broken := faults(outcomes, told):
        lines += ["**Faults:**\n", *(f"* {_one_line(fault)}" for fault in broken), ""]
    absent = {f"`{o.case}`": o.reason for o in outcomes if o.status is Status.CANNOT_RUN}
    absent |= about.left_out
    if absent:
        lines += ["**Cannot run here:**\n", *(f"* {name}: {reason}" for name, reason in absent.items()), ""]
    for outcome in outcomes:
        if outcome.status is Status.MEASURED:
            lines += [f"## {cases[outcome.case].title} (`--case {outcome.case}`)\n"]
            if outcome.case in told:
                lines.append(told[outcome.case].text)
            lines.append(f"![{cases[outcome.case].title}]({outcome.case}.svg)\n")
    return "\n".join(lines)


def document(about: About, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """All raw figures, for JSON."""
    return {"about": asdict(about), "cases": {o.case: asdict(o) for o in outcomes}}


def _one_line(text: str) -> str:
    return " / ".join(line for line in text.splitlines() if line.strip())[:1000]
