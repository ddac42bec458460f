"""A run's report: each row against its bar, beside the commit before, as text, Markdown and JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.frame import About
from benchmarks.outcome import Verdict
from benchmarks.report import verdict_row
from eslbot.sim.loadtest.tables import table


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

    about: About
    before: str
    settings: str
    rows: list[Told] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    figures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def markdown(self) -> str:
        """The whole report but the raw figures."""
        parts = [
            self.about.head("Speech", f"the commit before: {self.before}", self.settings),
            table(
                ("row", "measure", "bar", "measured", "load", "the commit before", ""),
                [
                    (row.key, *told[:3], row.load or "–", row.before or "–", told[3])
                    for row in self.rows
                    for told in [verdict_row(row.verdict, "not measured")]
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
