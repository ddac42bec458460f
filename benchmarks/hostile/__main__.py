"""``python -m benchmarks.hostile``."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import click

from benchmarks.frame import measuring
from benchmarks.hostile.kinds import KINDS
from eslbot.sim.lab import Tenant
from eslbot.sim.loadtest.tables import table
from tests.support.lab import Lab

#: Milliseconds by which the 99th percentile may differ (the issue's bar).
BAR = 5.0
QUIET = "nothing"


@dataclass
class Round:
    """Calls under one kind of request, of all rounds with it."""

    setups: list[float] = field(default_factory=list)
    calls: int = 0
    completed: int = 0
    answers: dict[str, int] = field(default_factory=dict)

    def at(self, part: float) -> float:
        """A percentile of INVITE → 200, in milliseconds."""
        ordered = sorted(self.setups)
        return 1000 * ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else float("nan")


@click.command()
@click.option("--rate", type=click.FloatRange(1, 1000), default=100.0, show_default=True, help="Requests/s.")
@click.option("--calls", type=click.IntRange(10, 1000), default=100, show_default=True, help="A round.")
@click.option("--cps", type=click.FloatRange(0.5, 20), default=5.0, show_default=True, help="Calls a second.")
@click.option("--rounds", type=click.IntRange(1, 20), default=1, show_default=True, help="Of each kind.")
@click.option("--only", multiple=True, type=click.Choice(list(KINDS)))
@click.option(
    "--switch", type=click.Choice(["freeswitch", "stand-in"]), default="freeswitch", show_default=True
)
def main(rate: float, calls: int, cps: float, rounds: int, only: tuple[str, ...], switch: str) -> None:
    """Measure INVITE → 200 beside hostile requests at the page and at the workers' port.

    Exits 0 when it was measured, whatever the figures, and 1 when it could not be.
    """
    found: dict[tuple[str, str], Round] = {}
    tenant = Tenant("acme", "talk?listen_ms=300")
    # Without a token there is no page, and all is refused at its door.
    tokens = {"operator": {"token": secrets.token_urlsafe(32)}}
    with (
        measuring("python -m benchmarks.hostile") as run,
        Lab(run.folder, [tenant], switch=switch, workers=2, ledger=True, page_tokens=tokens) as lab,
    ):
        run.about.switch = lab.switch_name
        service = lab.services[0]
        _place(lab, tenant, Round(), calls, cps)  # what is cold is not what is measured
        for number in range(rounds):
            for kind in only or KINDS:
                for name, port in (("page", service.web[1]), ("workers", service.health[1])):
                    _place(lab, tenant, found.setdefault((QUIET, ""), Round()), calls, cps)
                    one = found.setdefault((kind, name), Round())
                    with _attacked(port, kind, rate, one.answers):
                        _place(lab, tenant, one, calls, cps)
                    p99, load = one.at(0.99), os.getloadavg()[0]
                    run.say(f"{number + 1}: {kind} at the {name}: p99 {p99:.0f} ms, load {load:.1f}")
        about = run.over()
    print(about.head("Hostile requests", f"{rounds} rounds of {calls} calls, {rate:g} requests/s"))
    print("\n".join(_report(found)))


def _place(lab: Lab, tenant: Tenant, into: Round, calls: int, cps: float) -> None:
    result = lab.pbx.load(calls, cps, workspace_id=tenant.id)
    into.calls += result.calls
    into.completed += result.completed
    into.setups += [
        dialog.answered_at - dialog.invited_at
        for dialog in result.dialogs.values()
        if dialog.answered_at and dialog.invited_at
    ]


@contextmanager
def _attacked(port: int, kind: str, rate: float, answers: dict[str, int]) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.hostile.attacker", str(port), kind, str(rate)]
    attacker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield
        told, _ = attacker.communicate(timeout=20)
        for name, count in json.loads(told).items():
            answers[name] = answers.get(name, 0) + count
    finally:
        if attacker.poll() is None:
            attacker.kill()
            attacker.wait()


def _report(found: dict[tuple[str, str], Round]) -> list[str]:
    whole = {name: Round() for name in ("page", "workers")}
    for (_, port), one in found.items():
        if port:
            whole[port].setups += one.setups
            whole[port].calls += one.calls
            whole[port].completed += one.completed
    rows = [*found.items(), *((("all of these", name), one) for name, one in whole.items())]
    cells = []
    for (kind, port), one in rows:
        back = ", ".join(f"{name.strip()} × {count}" for name, count in sorted(one.answers.items()))
        figures = [f"{one.at(part):.1f}" for part in (0.5, 0.95, 0.99, 1.0)]
        cells.append((kind, port, f"{one.calls}, {one.completed}", *figures, back))
    head = ("requests", "at", "calls, completed", "p50", "p95", "p99", "most (ms)", "what came back")
    lines = [table(head, cells)]
    quiet = found[(QUIET, "")].at(0.99)
    for name, one in whole.items():
        lines.append(
            f"at the {name}: p99 {one.at(0.99) - quiet:+.1f} ms beside {QUIET} (bar ±{BAR:g} ms)",
        )
    return lines


if __name__ == "__main__":
    main()
