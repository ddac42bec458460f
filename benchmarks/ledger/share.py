"""What share of the service's CPU the ledger has, for short calls: ``python -m benchmarks.ledger.share``.

Two services, one with ``[ledger]`` and one without, both up all the time; calls of some two seconds are
placed at one and at the other in turns. A service's CPU is that of all its processes.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path

from eslbot.sim.lab import Tenant
from eslbot.sim.loadtest.machine import Machine
from eslbot.sim.processes import children, descendants, relays, tells
from tests.support.lab import Lab

#: Clock ticks of proc(5) a second.
TICKS = os.sysconf("SC_CLK_TCK")
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
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS  # utime, stime, and those of children that have ended


def main() -> None:
    """Print milliseconds of CPU a call, by kind of process, with and without."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger.share", description=__doc__)
    parser.add_argument("--calls", type=int, default=100, help="a round")
    parser.add_argument("--cps", type=float, default=4.0, help="calls a second")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--switch", default="freeswitch", choices=["freeswitch", "stand-in"])
    asked = parser.parse_args()
    tenant = Tenant("acme", "talk?listen_ms=300")
    rounds: dict[bool, list[dict[str, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(prefix="eslbot-share-") as folder, ExitStack() as stack:
        labs = {
            ledger: stack.enter_context(
                Lab(Path(folder, str(ledger)), [tenant], switch=asked.switch, workers=1, ledger=ledger)
            )
            for ledger in (False, True)
        }
        print(f"{Machine.here()}\n{labs[True].switch_name}; load {os.getloadavg()[0]:.1f} at the beginning")
        for lab in labs.values():
            lab.pbx.load(20, asked.cps, workspace_id=tenant.id)  # what is cold is not what is measured
        for number in range(2 * asked.rounds):
            ledger = number % 4 in (1, 2)
            lab = labs[ledger]
            before = spent(lab)
            result = lab.pbx.load(asked.calls, asked.cps, workspace_id=tenant.id)
            if result.completed != asked.calls:
                raise SystemExit(f"{result.completed} of {asked.calls} calls were completed: {result}")
            after = spent(lab)
            a_call = {kind: 1000 * (after[kind] - before[kind]) / asked.calls for kind in KINDS}
            rounds[ledger].append(a_call)
            name = "with" if ledger else "without"
            print(f"{name}: {_row(a_call)}; load {os.getloadavg()[0]:.1f}", flush=True)
    medians = {
        ledger: {kind: statistics.median(one[kind] for one in found) for kind in KINDS}
        for ledger, found in rounds.items()
    }
    for ledger, name in ((False, "without"), (True, "with")):
        print(f"median {name}: {_row(medians[ledger])}")
    whole = {ledger: sum(found.values()) for ledger, found in medians.items()}
    print(f"the ledger: {100 * (whole[True] - whole[False]) / whole[True]:+.1f} % of the service's CPU")


def _row(a_call: dict[str, float]) -> str:
    parts = ", ".join(f"{kind} {a_call[kind]:.2f}" for kind in KINDS)
    return f"{sum(a_call.values()):.2f} ms a call ({parts})"


if __name__ == "__main__":
    main()
