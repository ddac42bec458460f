"""One run: the plain call, then the checks that place calls of their own, then those about all calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from time import monotonic

from eslbot.botcheck.checks import CHECKS, NAMES
from eslbot.botcheck.examination import Examination, NotTaken
from eslbot.botcheck.findings import Check, Grade, Verdict, failed, unseen
from eslbot.botcheck.target import Target, Times

#: Calls at one time.
PARALLEL = 4

#: Of all checks but one, where the bot takes no call.
UNREACHED = unseen("the bot was not reached")
#: Told a check's name, and ``begins`` or ``done``.
Progress = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a check, in so many seconds."""

    check: Check
    verdict: Verdict
    seconds: float


def silent(name: str, what: str) -> None:
    """Shows no progress."""


async def examine(
    target: Target,
    times: Times | None = None,
    *,
    only: Collection[str] = (),
    parallel: int = PARALLEL,
    progress: Progress = silent,
) -> Sequence[Result]:
    """All checks, or ``only`` those, in the order of the report; ``parallel`` calls at one time at most."""
    times = times or Times()
    exam = Examination(target, times, parallel)
    wanted = [check for check in CHECKS if not only or check.name in only]
    progress("plain", "begins")
    try:
        await exam.place_plain()
        reached = None
    except NotTaken as refused:
        reached = str(refused)
    progress("plain", "done")
    if reached is not None:
        # It fails, whatever was asked for.
        asked = [NAMES["upgrade"], *(check for check in wanted if check.name != "upgrade")]
        return [Result(check, _unreached(check, reached), 0.0) for check in asked]
    done: dict[str, Result] = {}

    async def one(check: Check) -> None:
        progress(check.name, "begins")
        done[check.name] = await _one(exam, check)
        progress(check.name, "done")

    async with asyncio.TaskGroup() as group:
        for check in wanted:
            if not check.behind:
                group.create_task(one(check))
    for check in wanted:
        if check.behind:
            await one(check)
    return [done[check.name] for check in wanted]


def _unreached(check: Check, why: str) -> Verdict:
    return failed(why) if check.name == "upgrade" else UNREACHED


async def _one(exam: Examination, check: Check) -> Result:
    began = monotonic()
    if exam.protocol not in check.protocols:
        told = f"{exam.protocol} has no word for it"
        return Result(check, Verdict(Grade.NOT_APPLICABLE, told), 0.0)
    try:
        verdict = await check.run(exam)
    except NotTaken as refused:
        verdict = unseen(f"{refused}; see upgrade")
    return Result(check, verdict, monotonic() - began)
