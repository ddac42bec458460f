"""Carries a plan out on a lab and gives the account."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

from tests.support.audit import Account
from tests.support.chaos.faults import Faults
from tests.support.chaos.plan import AMEYO, Plan, PlannedCall
from tests.support.chaos.witness import Witness
from tests.support.lab import Lab

#: Seconds after which the PBX gives a call up: it was lost. And for all calls to end behind the last fault.
CALL_LIMIT, END_LIMIT = 45.0, 50.0


def run(lab: Lab, plan: Plan, say: Callable[[str], None]) -> Account:
    """Place the plan's calls, do its faults, wait for everything to end. ``say`` is told each fault.

    Raises whatever kept a fault from being done: then the run proves nothing.
    """
    witness = Witness(lab)
    faults = Faults(witness, random.Random(plan.seed))
    begun = time.monotonic()
    over = threading.Event()
    failures: list[BaseException] = []

    def havoc() -> None:
        try:
            for fault in plan.faults:
                if over.wait(fault.pause) or time.monotonic() - begun > plan.seconds:
                    return
                say(f"{time.monotonic() - begun:6.2f} s  {fault.name} ({fault.seconds:.1f} s)")
                faults.by_name[fault.name](fault.seconds)
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=havoc, name="chaos", daemon=True)
    thread.start()
    try:
        for number, call in enumerate(plan.calls, 1):
            if over.wait(max(0.0, begun + call.at - time.monotonic())):
                break
            _place(witness, plan.seed, number, call)
    finally:
        thread.join(plan.seconds + END_LIMIT)
        over.set()
    if failures:
        raise RuntimeError(f"a fault could not be done: {failures[0]!r}") from failures[0]
    for service in lab.services:  # a killed worker's successor may still be on its way
        service.wait_serving()
    witness.wait_over(END_LIMIT)
    return witness.account()


def _place(witness: Witness, seed: int, number: int, call: PlannedCall) -> None:
    lab = witness.lab
    crt = f"chaos-{seed}-{number}"
    lab.ameyo.script(crt, AMEYO[call.ameyo][0])
    witness.placed(
        lab.pbx.call(
            crt_object_id=crt,
            workspace_id=lab.tenants[call.tenant].id,
            hangup_after=call.hangs_up,
            timeout=CALL_LIMIT,
        ),
        call.tenant,
    )
