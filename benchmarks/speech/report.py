"""A run's report: each row against its bar, beside the commit before, as text, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from eslbot.sim.loadtest.machine import Machine
from eslbot.sim.loadtest.tables import table


@dataclass(frozen=True)
class Verdict:
    """A bar and how it was met; ``met`` is None where it was not measured."""

    measure: str
    bar: str
    measured: str
    met: bool | None


@dataclass(frozen=True)
class Told:
    """A row: its verdict, the load average while it was measured, and the same of the commit before."""

    key: str
    verdict: Verdict
    load: str = ""
    before: str = ""


@dataclass
class Report:
    """One run. ``figures``: raw, by subject and case. ``failures`` are cases that could not be measured,
    ``problems`` what did not go by the book in the others."""

    date: str
    command: str
    switch: str
    machine: Machine
    eslbot: str
    before: str
    settings: str
    seconds: float = 0.0
    rows: list[Told] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def markdown(self) -> str:
        """The whole report but the raw figures."""
        parts = [
            f"# Speech, measured on {self.date}\n",
            f"* switch: {self.switch}",
            f"* eslbot: {self.eslbot}; the commit before: {self.before}",
            f"* machine: {self.machine}; Python {self.machine.python}",
            f"* command: `{self.command}`, {self.seconds:.0f} s",
            f"* {self.settings}\n",
            table(
                ("row", "measure", "bar", "measured", "load", "the commit before", ""),
                [
                    (
                        row.key,
                        row.verdict.measure,
                        row.verdict.bar,
                        row.verdict.measured or "–",
                        row.load or "–",
                        row.before or "–",
                        MET[row.verdict.met],
                    )
                    for row in self.rows
                ],
            ),
        ]
        parts += [f"**Not measured:** {failure}\n" for failure in self.failures]
        for problem in dict.fromkeys(self.problems):
            parts.append(f"**Noted** ({self.problems.count(problem)} times): {problem}\n")
        return "\n".join(parts)

    def json(self) -> str:
        """Everything; times to ten microseconds."""
        return json.dumps(_rounded(dataclasses.asdict(self)), ensure_ascii=False) + "\n"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 5)
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return value


MET = {True: "met", False: "**missed**", None: "not measured"}
