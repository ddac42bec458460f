"""report.md: what was measured, where, with which versions, and what it is against the bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.frame import About
from benchmarks.outcome import Case, Outcome, Status, Told, Verdict
from eslbot.sim.loadtest.tables import table

#: A load average from which on something else is running.
BUSY = 0.5


def verdict_row(verdict: Verdict, unknown: str = "not judged") -> tuple[str, str, str, str]:
    """Cells of a table; ``unknown`` is said of a bar that is neither met nor missed."""
    met = {True: "met", False: "**missed**", None: unknown}[verdict.met]
    return verdict.measure, verdict.bar, verdict.measured or "–", met


def verdict_table(verdicts: Sequence[Verdict], unknown: str = "not judged") -> str:
    """Each measure against its bar."""
    return table(("measure", "bar", "measured", ""), [verdict_row(one, unknown) for one in verdicts])


def faults(outcomes: Sequence[Outcome], told: Mapping[str, Told]) -> list[str]:
    """What went wrong, a line each: a case that failed, a call that was lost. A missed bar is none."""
    found = [f"{o.case}: {o.reason}" for o in outcomes if o.status is Status.FAILED]
    return found + [f"{case}: {fault}" for case, part in told.items() for fault in part.faults]


def markdown(
    about: About, cases: Mapping[str, Case], outcomes: Sequence[Outcome], told: Mapping[str, Told]
) -> str:
    """The whole report; pictures stand beside it, named after their case."""
    machine = about.machine
    lines = [about.head("Benchmark")]
    if machine.load >= BUSY:
        lines.append(f"**The machine was not quiet:** load average {machine.load} at the start.\n")
    verdicts = [verdict for part in told.values() for verdict in part.verdicts]
    if verdicts:
        lines.append(verdict_table(verdicts))
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
