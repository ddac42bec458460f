"""One run: the plain call, then the checks that place calls of their own, then those about all calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from time import monotonic

from eslbot.botcheck.checks import CHECKS
from eslbot.botcheck.findings import Check, Grade, Verdict, failed, unseen
from eslbot.botcheck.kit import Kit, NotTaken
from eslbot.botcheck.target import Target, Times

#: Calls at one time.
PARALLEL = 4
#: A check may last as long as so many of the longest calls.
LONGEST = 4

#: Told a check's name, and ``begins`` or ``done``.
Progress = Callable[[str, str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a check, in so many seconds."""

    check: Check
    verdict: Verdict
    seconds: float


def silent(name: str, what: str) -> None:
    """For who wants to hear of no progress."""


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
    kit = Kit(target, times, parallel)
    wanted = [check for check in CHECKS if not only or check.name in only]
    progress("plain", "begins")
    try:
        await asyncio.wait_for(kit.place_plain(), LONGEST * times.call)
        reached = None
    except NotTaken as refused:
        reached = str(refused)
    except TimeoutError:
        reached = f"the plain call was not over within {LONGEST * times.call:g} s"
    progress("plain", "done")
    if reached is not None:
        return [Result(check, _unreached(check, reached), 0.0) for check in wanted]
    done: dict[str, Result] = {}

    async def one(check: Check) -> None:
        progress(check.name, "begins")
        done[check.name] = await _one(kit, check)
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
    return failed(why) if check.name == "upgrade" else unseen("the bot was not reached")


async def _one(kit: Kit, check: Check) -> Result:
    began = monotonic()
    if kit.protocol not in check.protocols:
        told = f"{kit.protocol} has no word for it"
        return Result(check, Verdict(Grade.NOT_APPLICABLE, told), 0.0)
    longest = LONGEST * kit.times.call
    try:
        # Those that wait for room wait for those before them.
        verdict = await asyncio.wait_for(check.run(kit), longest * len(CHECKS))
    except NotTaken as refused:
        verdict = unseen(f"{refused}; see upgrade")
    except TimeoutError:
        verdict = unseen(f"not over within {longest * len(CHECKS):g} s")
    return Result(check, verdict, monotonic() - began)
