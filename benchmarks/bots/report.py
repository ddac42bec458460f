"""The figures of each bot, and what they are against the bars of issue 16."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

from benchmarks.bots.call import Called
from benchmarks.frame import About
from benchmarks.outcome import Verdict
from benchmarks.report import verdict_table
from eslbot.sim.loadtest.tables import table

#: Seconds of silence that each take-over by another controller may cost in the bot's speech
#: (docs/architecture.md); anything longer is a gap.
TAKE_OVER = 0.020 + 0.001
#: Faults of a bot's calls that are shown.
SHOWN = 5


@dataclass
class Measured:
    """One bot's calls; ``kills`` are workers that died meanwhile."""

    name: str
    protocol: str
    called: list[Called] = field(default_factory=list)
    kills: int = 0

    def row(self) -> tuple[str, ...]:
        """A line of the table."""
        calls, spoke = len(self.called), [c.barge_in for c in self.called if c.barge_in is not None]
        told = [c.told for c in self.called if c.told is not None]
        gaps = [gap for c in self.called for gap in c.gaps]
        longer = [gap for gap in gaps if gap > TAKE_OVER]
        again = sum(c.presses > 1 for c in self.called)
        return (
            self.name,
            f"{sum(c.handed_off for c in self.called)} of {calls}",
            f"{sum(told)} of {len(told)}" if told else "–",
            f"{sum(c.key for c in self.called)} of {calls}" + (f" ({again} pressed again)" if again else ""),
            f"{sum(spoke)} of {len(spoke)}",
            f"{len(longer)}" + (f", up to {1000 * max(longer):.0f} ms" if longer else ""),
            f"{len(gaps) - len(longer)}",
            f"{sum(c.connections == 1 for c in self.called)} of {calls}",
            str(self.kills),
        )

    def verdicts(self) -> list[Verdict]:
        """Against the bars."""
        calls = len(self.called)
        _, handed_off, _, keys, barge_in, gaps, _, connections, kills = self.row()
        right = all(c.key and c.barge_in is not False and c.told is not False for c in self.called)
        whole = not any(gap > TAKE_OVER for c in self.called for gap in c.gaps)
        handed = all(c.handed_off for c in self.called)
        text = f"{handed_off}; {gaps} gaps; keys {keys}, barge-in {barge_in}"
        return [
            Verdict(
                f"{self.name}: handed off; gaps; keys and barge-in",
                f"{calls} of {calls}; 0; right",
                text,
                bool(calls) and handed and whole and right,
            ),
            Verdict(
                f"{self.name}: calls in which the bot noticed nothing of {kills} dead workers",
                f"{calls} of {calls}",
                connections,
                bool(calls) and all(c.connections == 1 for c in self.called),
            ),
        ]


@dataclass
class Report:
    """One run."""

    about: About
    workers: int
    measured: list[Measured] = field(default_factory=list)

    def text(self) -> str:
        """Markdown."""
        head = (
            "bot",
            "handed off",
            "properties",
            "key",
            "barge-in",
            "gaps > 20 ms",
            "≤ 20 ms",
            "one connection",
            "workers killed",
        )
        lines = [
            self.about.head("Bots of every kind", f"{self.workers} workers"),
            table(head, [one.row() for one in self.measured]),
            verdict_table([verdict for one in self.measured for verdict in one.verdicts()]),
        ]
        for one in self.measured:
            faults = [f"* {one.name}: {fault}" for called in one.called for fault in called.faults]
            lines += faults[:SHOWN] + ([f"* and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else [])
        lines += [f"* cannot run here: {name}: {why}" for name, why in self.about.left_out.items()]
        return "\n".join(lines)

    def json(self) -> str:
        """All raw figures."""
        return json.dumps(dataclasses.asdict(self), indent=1)
