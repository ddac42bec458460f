"""One load test from its beginning to its report."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any

from eslbot.sim.freeswitch import FreeSwitchError
from eslbot.sim.loadtest.drive import drive
from eslbot.sim.loadtest.machine import Machine, revision
from eslbot.sim.loadtest.profiles import Limits, Plan
from eslbot.sim.loadtest.report import Report
from eslbot.sim.loadtest.sites import Site
from eslbot.sim.pbx import SippMissing, VoicesError
from eslbot.sim.service import LabError


class CannotRun(Exception):
    """The test could not run; the text says why."""


def run(
    at: AbstractContextManager[Site],
    plan: Plan,
    limits: Limits | None,
    placing: dict[str, Any],
    *,
    answer_timeout: float,
    version: str,
    command: str,
) -> Report:
    """Place the plan's calls, and tell on standard error how far it is.

    Args:
        at: where; left when the calls are over.
        limits: what ends a ramp.
        placing: what the calls say, for :meth:`Pbx.begin_load`.
        answer_timeout: seconds until CANCEL.
        version: eslbot's.
        command: how this was called, for the report.

    Raises:
        CannotRun: nobody could be called, or a part of the laboratory did not come up.
    """
    begun = time.monotonic()

    def say(what: str) -> None:
        print(f"» {time.monotonic() - begun:4.0f} s  {what}", file=sys.stderr, flush=True)

    date, machine = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), Machine.here()
    # The callers' control, Ameyo and the clock are threads of this process.
    sys.setswitchinterval(0.001)
    try:
        with at as site:
            say(f"{site.name}; {plan.calls} calls, at most about {plan.at_once} at once")
            result = drive(plan, site, limits, placing, answer_timeout, say)
    except (LabError, FreeSwitchError, SippMissing, VoicesError, OSError) as error:
        raise CannotRun(str(error)) from error
    return Report(
        date=date,
        command=command,
        machine=machine,
        eslbot=f"{version} ({revision()})",
        site=site.name,
        details=site.details,
        result=result,
        seconds=time.monotonic() - begun,
    )
