"""The tables of a load test, for people and for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eslbot.sim.loadtest.drive import Result
from eslbot.sim.loadtest.figures import (
    BOT,
    ESLBOT,
    FREESWITCH,
    GENERATOR,
    Figures,
    Flows,
    Spread,
    StepResult,
    causes,
    disturbance,
    generator_limits,
)
from eslbot.sim.loadtest.machine import Machine
from eslbot.sim.loadtest.tables import ms, table
from eslbot.sim.loadtest.usage import Used

_NAMES = {FREESWITCH: "FreeSWITCH", ESLBOT: "eslbot", BOT: "bot", GENERATOR: "generator"}


@dataclass
class Report:
    """One run, and what it was run on."""

    date: str
    command: str
    machine: Machine
    eslbot: str
    site: str
    details: Sequence[str]
    result: Result
    seconds: float

    @property
    def lost(self) -> int:
        """Calls that were lost."""
        return self.result.whole.failed if self.result.whole is not None else 0

    # -- for people -----------------------------------------------------------------------------------------

    def markdown(self) -> str:
        """All of it."""
        result, whole = self.result, self.result.whole
        parts = [
            f"# Load test of {self.date}\n",
            *(f"* {line}" for line in self._head()),
            "",
        ]
        if whole is None or not result.steps:
            return "\n".join([*parts, f"No call was placed: {result.stopped}.\n"])
        parts += [table(("measure", "figure"), summary(result, whole))]
        if whole.failures:
            rows = [(cause, str(number)) for cause, number in whole.failures.most_common()]
            parts += ["## Calls that were lost\n", table(("cause", "calls"), rows)]
        if len(result.steps) > 1:
            parts += ["## Steps\n", steps_table(result.steps)]
        told = [(step.name, step.mean_up, step.used) for step in result.steps if step.used is not None]
        parts += ["## Processors and memory\n", used_table(told)]
        parts += ["## Where the limit was\n", *(f"* {line}" for line in limit(result)), ""]
        return "\n".join(parts)

    def _head(self) -> Iterable[str]:
        yield self.site
        yield from self.details
        yield f"{self.machine}; eslbot {self.eslbot}"
        yield f"`{self.command}`, {self.seconds:.0f} s"
        if self.result.stopped:
            yield f"stopped early: {self.result.stopped}"

    # -- for programs ---------------------------------------------------------------------------------------

    def json(self) -> str:
        """Everything, each call included; NaN as null."""
        result = self.result
        document: dict[str, Any] = {
            "date": self.date,
            "command": self.command,
            "machine": self.machine,
            "eslbot": self.eslbot,
            "site": self.site,
            "details": list(self.details),
            "seconds": self.seconds,
            "profile": result.plan,
            "stopped": result.stopped,
            "lost": self.lost,
            "whole": _figures(result.whole),
            "at_once": result.at_once,
            "symptoms": result.symptoms,
            "limit": limit(result),
            "steps": [{**_fields(step), "figures": _figures(step.figures)} for step in result.steps],
            "calls": [
                {**_fields(call), "failure": call.failure(), "setup": call.setup} for call in result.calls
            ],
        }
        return json.dumps(_plain(document), indent=1, allow_nan=False)


def summary(result: Result, whole: Figures) -> list[tuple[str, str]]:
    """The whole run, a row a measure."""
    symptoms = result.symptoms
    return [
        ("calls begun", f"{whole.begun} of {result.plan.calls} planned"),
        ("answered", str(whole.answered)),
        ("handed off", str(whole.handed_off)),
        ("completed", str(whole.completed)),
        ("lost", str(whole.failed)),
        ("up at once, at most", str(result.at_once)),
        ("INVITE → 200, p50 / p90 / p99 / max", _spread(whole.setup)),
        ("bot's end → POST, p50 / p99 / max", _short(whole.to_post)),
        ("POST → BYE, p50 / p99 / max", _short(whole.to_bye)),
        ("RTP to the caller: packets, lost", _flows(whole.to_caller)),
        ("RTP to the switch: packets, not read", _flows(whole.to_switch)),
        ("not read of a call, p50 / p99 / max", _counts(whole.unread)),
        ("longest time without RTP in a call, p50 / p99 / max", _short(whole.gap)),
        ("of the callers' speech, heard by the bot", _percent(whole.heard)),
        ("packets from nobody's address", str(symptoms.strays)),
        (
            "packets dropped: by the generator, by all of this machine",
            f"{symptoms.dropped}, {symptoms.udp_dropped}",
        ),
        ("frames that the generator left out; its latest was late by", _lateness(whole)),
    ]


def steps_table(steps: Sequence[StepResult]) -> str:
    """A row a step."""
    head = (
        *("step", "begun", "answered", "completed", "up at once", "INVITE → 200 p50 / p90 / p99 / max"),
        *(
            "end → POST p50 / p99 / max",
            "POST → BYE p50 / p99 / max",
            "lost to caller",
            "not read by the switch",
        ),
        *("longest gap p50 / p99 / max", ""),
    )
    return table(head, [_step(step) for step in steps])


def _step(step: StepResult) -> tuple[str, ...]:
    told = step.figures
    return (
        step.name,
        f"{told.begun} of {step.planned}",
        str(told.answered),
        str(told.completed),
        str(step.at_once),
        _spread(told.setup),
        _short(told.to_post),
        _short(told.to_bye),
        _loss(told.to_caller),
        _loss(told.to_switch),
        _short(told.gap),
        step.broken or "good",
    )


def used_table(told: Sequence[tuple[str, float, Used]]) -> str:
    """A row a step: its name, the calls up on average, and what was used. Cores, and of a core a call."""
    head = ["step", "calls up, mean"]
    groups = [group for group in _NAMES if any(group in used.cores for _, _, used in told)]
    for group in groups:
        head.append(f"{_NAMES[group]}, cores")
        if group in (FREESWITCH, ESLBOT):
            head += ["a call up", "memory"]
    head.append("all of the machine")
    rows = []
    for name, up, used in told:
        row = [name, f"{up:.1f}"]
        for group in groups:
            cores = used.cores.get(group, math.nan)
            row.append(f"{cores:.2f}")
            if group in (FREESWITCH, ESLBOT):
                row += [f"{100 * cores / up:.2f} %" if up else "–", _megabytes(used.memory, group)]
        rows.append([*row, f"{used.machine:.2f} of {used.of}"])
    return table(head, rows)


def limit(result: Result) -> list[str]:
    """Where the limit was, in sentences."""
    good, broken = result.last_good, result.first_broken
    lines = []
    if result.plan.profile == "ramp":
        if good is not None:
            up = f"with {good.at_once} calls up at most"
            lines.append(f"last good step: {good.name}, {up}")
        elif broken is not None:
            lines.append("no step was good")
        if broken is None:
            lines.append("no limit was reached")
        else:
            lines.append(f"first to break a limit: {broken.name}: {broken.broken}")
    elif not any(step.figures.failures for step in result.steps):
        lines.append("no call was lost: the limit, whatever it is, was not reached")
    for step in result.steps:
        if (told := disturbance(step)) is not None:
            lines.append(f"{step.name}: {told}")
    suspect = broken or next((step for step in result.steps if step.figures.failures), None)
    if suspect is not None:
        lines += [f"seen in {suspect.name}: {text}" for text in causes(suspect, result.symptoms)]
        if not causes(suspect, result.symptoms):
            lines.append(f"{suspect.name}: why cannot be told from here")
        return lines
    for step in result.steps:
        for text in generator_limits(step, result.symptoms):
            lines.append(f"{step.name}: the generator was at its limit: {text}")
    return lines


def _spread(spread: Spread) -> str:
    if not spread.count:
        return "–"
    return " / ".join(ms(value) for value in (spread.p50, spread.p90, spread.p99, spread.most))


def _short(spread: Spread) -> str:
    return " / ".join(ms(value) for value in (spread.p50, spread.p99, spread.most)) if spread.count else "–"


def _counts(spread: Spread) -> str:
    return f"{spread.p50:g} / {spread.p99:g} / {spread.most:g}" if spread.count else "–"


def _flows(flows: Flows) -> str:
    if not flows.sent:
        return "–"
    return f"{flows.sent} in {flows.calls} calls, {flows.lost} ({_loss(flows)})"


def _loss(flows: Flows) -> str:
    return f"{flows.percent:.3f} %" if flows.sent else "–"


def _percent(share: float | None) -> str:
    return f"{100 * share:.2f} %" if share is not None else "–"


def _lateness(told: Figures) -> str:
    return f"{told.left_out} of {told.voiced}; {ms(told.latest)}" if told.voiced else "–"


def _megabytes(memory: Mapping[str, int], group: str) -> str:
    return f"{memory[group] / 1e6:.0f} MB" if group in memory else "–"


def _figures(told: Figures | None) -> dict[str, Any] | None:
    if told is None:
        return None
    return {
        **_fields(told),
        "failed": told.failed,
        "to_caller_percent": told.to_caller.percent,
        "to_switch_percent": told.to_switch.percent,
    }


def _fields(value: Any) -> dict[str, Any]:
    """As ``dataclasses.asdict``, which makes nonsense of a Counter, but of one level."""
    return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        value = _fields(value)
    match value:
        case dict():
            return {str(key): _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case float() if not math.isfinite(value):
            return None
        case str() | int() | float() | bool() | None:
            return value
        case _:
            return str(value)
