"""What share of the service's CPU the ledger has, for short calls: ``python -m benchmarks.ledger.share``.

Two services, one with ``[ledger]`` and one without, both up all the time; calls of some two seconds are
placed at one and at the other in turns. A service's CPU is that of all its processes.
"""

from __future__ import annotations

import os
import statistics
from contextlib import ExitStack

import click
import psutil

from benchmarks.frame import measuring
from benchmarks.outcome import CannotRun
from eslbot.sim.lab import Tenant
from eslbot.sim.processes import children, descendants, relays, tells
from tests.support.lab import Lab

KINDS = ("arbiter", "workers", "relays", "page")


def spent(lab: Lab) -> dict[str, float]:
    """Seconds of CPU of a service until now, by kind of process."""
    service = lab.services[0].process
    assert service is not None
    found = dict.fromkeys(KINDS, 0.0)
    found["arbiter"] = _seconds(service.pid)
    for child in children(service.pid):
        kind = "page" if tells(child) else "relays" if relays(child) else "workers"
        found[kind] += sum(map(_seconds, [child, *descendants(child)]))
    return found


def _seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system + times.children_user + times.children_system


@click.command()
@click.option("--calls", type=click.IntRange(1), default=100, show_default=True, help="A round.")
@click.option("--cps", type=click.FloatRange(0.1), default=4.0, show_default=True, help="Calls a second.")
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True)
@click.option(
    "--switch", type=click.Choice(["freeswitch", "stand-in"]), default="freeswitch", show_default=True
)
def main(calls: int, cps: float, rounds: int, switch: str) -> None:
    """Measure milliseconds of CPU a call, by kind of process, with and without the ledger."""
    tenant = Tenant("acme", "talk?listen_ms=300")
    found: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with measuring("python -m benchmarks.ledger.share") as run, ExitStack() as stack:
        labs = {
            ledger: stack.enter_context(
                Lab(run.folder / str(ledger), [tenant], switch=switch, workers=1, ledger=ledger)
            )
            for ledger in (False, True)
        }
        run.about.switch = labs[True].switch_name
        for lab in labs.values():
            lab.pbx.load(20, cps, workspace_id=tenant.id)  # what is cold is not what is measured
        for number in range(2 * rounds):
            ledger = number % 4 in (1, 2)
            found[ledger].append(_round(labs[ledger], tenant, calls, cps))
            told, load = _row(found[ledger][-1]), os.getloadavg()[0]
            run.say(f"{'with' if ledger else 'without'}: {told}; load {load:.1f}")
        about = run.over()
    medians = {
        ledger: {kind: statistics.median(one[kind] for one in each) for kind in KINDS}
        for ledger, each in found.items()
    }
    print(about.head("The ledger's share", f"{rounds} rounds each of {calls} calls, {cps:g} a second"))
    for ledger, name in ((False, "without"), (True, "with")):
        print(f"median {name}: {_row(medians[ledger])}")
    whole = {ledger: sum(each.values()) for ledger, each in medians.items()}
    print(f"the ledger: {100 * (whole[True] - whole[False]) / whole[True]:+.1f} % of the service's CPU")


def _round(lab: Lab, tenant: Tenant, calls: int, cps: float) -> dict[str, float]:
    before = spent(lab)
    result = lab.pbx.load(calls, cps, workspace_id=tenant.id)
    if result.completed != calls:
        raise CannotRun(f"{result.completed} of {calls} calls were completed: {result}")
    after = spent(lab)
    return {kind: 1000 * (after[kind] - before[kind]) / calls for kind in KINDS}


def _row(a_call: dict[str, float]) -> str:
    parts = ", ".join(f"{kind} {a_call[kind]:.2f}" for kind in KINDS)
    return f"{sum(a_call.values()):.2f} ms a call ({parts})"


if __name__ == "__main__":
    main()
