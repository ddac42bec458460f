"""Places the calls of a plan, and gathers what everybody saw of them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from eslbot.sim.loadtest.calls import Call, Post, early_failure, mean_up, most_at_once
from eslbot.sim.loadtest.figures import GENERATOR, Figures, StepResult, Symptoms, figures
from eslbot.sim.loadtest.profiles import Limits, Plan
from eslbot.sim.loadtest.sites import Site, wait_for
from eslbot.sim.loadtest.tables import percentile
from eslbot.sim.loadtest.usage import Usage, Used, udp_dropped
from eslbot.sim.pbx import Load, Voices
from eslbot.sim.pbx.trace import Dialog
from eslbot.sim.pbx.voices import Voice

#: Seconds between two lines of progress, and two looks at SIPp.
PROGRESS, POLL_INTERVAL = 5.0, 0.1
#: Seconds for calls to end behind their time, and for eslbot's log to have its last lines.
GRACE, LOG_GRACE = 60.0, 10.0

Say = Callable[[str], None]


@dataclass
class Result:
    """All of a run. ``stopped`` says why it was ended before its plan was."""

    plan: Plan
    steps: list[StepResult] = field(default_factory=list)
    whole: Figures | None = None
    at_once: int = 0
    used: Used | None = None
    symptoms: Symptoms = field(default_factory=Symptoms)
    stopped: str | None = None
    calls: list[Call] = field(default_factory=list)

    @property
    def last_good(self) -> StepResult | None:
        """The last step before the first that broke a limit."""
        good = None
        for step in self.steps:
            if step.broken is not None:
                break
            good = step
        return good

    @property
    def first_broken(self) -> StepResult | None:
        """The first step that broke a limit."""
        return next((step for step in self.steps if step.broken is not None), None)


@dataclass
class _Begun:
    load: Load
    begun: float
    ended: float
    dialogs: dict[str, Dialog] = field(default_factory=dict)
    voices: dict[str, Voice] = field(default_factory=dict)


def drive(
    plan: Plan, site: Site, limits: Limits | None, placing: dict[str, Any], answer_timeout: float, say: Say
) -> Result:
    """Place the plan's calls and wait for their end; ``placing`` goes to :meth:`Pbx.begin_load`.

    Raises:
        OSError, RuntimeError: the calls cannot be placed.
    """
    result = Result(plan)
    begun: list[_Begun] = []
    prefix, dropped = f"load-{int(time.time())}", udp_dropped()
    with Voices(site.local_ip) as voices:

        def groups() -> dict[str, list[int]]:
            own = [os.getpid(), voices.pid, *(one.load.pid for one in list(begun))]
            return {**site.watched(), GENERATOR: [pid for pid in own if pid is not None]}

        with Usage(groups) as usage:
            try:
                for number, step in enumerate(plan.steps, 1):
                    say(f"{step.calls} calls at {step.rate:g}/s")
                    load = site.pbx.begin_load(
                        step.calls,
                        step.rate,
                        workspace_id=site.workspace,
                        crt_prefix=f"{prefix}-{number}",
                        hangup_after=site.hangup_after,
                        answer_timeout=answer_timeout,
                        voices=voices,
                        **placing,
                    )
                    one = _Begun(load, time.time(), time.time() + step.seconds)
                    begun.append(one)
                    _wait(begun, step.seconds, say)
                    one.ended = time.time()
                    if limits is not None and (broken := _look(load, limits)):
                        result.stopped = f"at {step.name}: {broken}"
                        say(f"stopped {result.stopped}")
                        break
                say("the calls end")
                _wait_over(begun, plan.call_seconds + answer_timeout + GRACE, say)
            except KeyboardInterrupt:
                result.stopped = "interrupted"
                for one in begun:
                    one.load.hang_up()
            _gather(begun, result.symptoms)
            result.symptoms.udp_dropped = udp_dropped() - dropped
        _account(plan, site, begun, usage, limits, result)
    return result


def _wait(begun: Sequence[_Begun], seconds: float, say: Say) -> None:
    """Until the time is over, or SIPp has ended, which it does with the last of a step's calls."""
    now = time.monotonic()
    deadline, tell = now + seconds, now + PROGRESS
    while (now := time.monotonic()) < deadline and not begun[-1].load.over():
        if now >= tell:
            say(_progress(begun))
            tell += PROGRESS
        time.sleep(min(POLL_INTERVAL, deadline - now))


def _wait_over(begun: Sequence[_Begun], seconds: float, say: Say) -> None:
    now = time.monotonic()
    deadline, tell = now + seconds, now + PROGRESS
    while (now := time.monotonic()) < deadline and not all(one.load.over() for one in begun):
        if now >= tell:
            say(_progress(begun))
            tell += PROGRESS
        time.sleep(POLL_INTERVAL)


def _progress(begun: Sequence[_Begun]) -> str:
    dialogs = [dialog for one in begun for dialog in one.load.dialogs().values()]
    up = sum(d.answered and d.ended_at is None for d in dialogs)
    failed = sum(early_failure(d) is not None for d in dialogs)
    return f"  {len(dialogs)} begun, {up} up, {failed} failed"


def _look(load: Load, limits: Limits) -> str | None:
    """Which limit a step breaks, by what is known while its calls are up."""
    dialogs, now = list(load.dialogs().values()), time.time()
    failed = sum(early_failure(dialog) is not None for dialog in dialogs)
    # Who waits for an answer has waited at least so long.
    waited = [(d.answered_at or now) - d.invited_at for d in dialogs if d.invited_at and _may_answer(d)]
    return limits.broken(len(dialogs), failed, percentile(waited, 99) if waited else None)


def _may_answer(dialog: Dialog) -> bool:
    return dialog.answered or (dialog.status is None and dialog.cancelled_at is None)


def _gather(begun: Sequence[_Begun], symptoms: Symptoms) -> None:
    for one in begun:
        ended = one.load.finish(0.5)
        one.dialogs = ended.dialogs
        if ended.error is not None and ended.exit_status != 1:  # 1 is a failed call, which is counted
            symptoms.sipp.append(ended.error)
        told = one.load.voices_report()
        one.voices = told.voices
        symptoms.strays, symptoms.dropped = told.strays, told.dropped


def _account(
    plan: Plan, site: Site, begun: Sequence[_Begun], usage: Usage, limits: Limits | None, result: Result
) -> None:
    lines = _eslbot_lines(site, begun, result.symptoms)
    posts: dict[str, list[Post]] = {}
    for request in list(site.ameyo.requests) if site.ameyo is not None else []:
        if request.accepted and request.crt_object_id and request.answered_at is not None:
            posts.setdefault(request.crt_object_id, []).append(Post(request.at, request.answered_at))
    bot: dict[tuple[str, str], dict[str, Any]] = {(e["event"], e["crt"]): e for e in site.bot_events()}
    for number, one in enumerate(begun):
        for crt in one.load.crt_object_ids:
            result.calls.append(
                Call(
                    crt=crt,
                    step=number,
                    dialog=one.dialogs.get(crt),
                    posts=posts.get(crt, []),
                    bot_ended_at=bot.get(("end", crt), {}).get("t"),
                    heard=bot.get(("closed", crt), {}).get("heard"),
                    voice=one.voices.get(crt),
                    ended=lines.get(("call_ended", crt), {}),
                    refused=lines.get(("call_refused", crt), {}),
                    hand_off=site.hand_off,
                )
            )
    result.symptoms.complaints = site.complaints()
    dialogs = [dialog for one in begun for dialog in one.dialogs.values()]
    for number, (step, one) in enumerate(zip(plan.steps, begun, strict=False)):
        told = figures([call for call in result.calls if call.step == number])
        p99s = [spread.p99 if spread.count else None for spread in (told.setup, told.to_post)]
        result.steps.append(
            StepResult(
                name=step.name,
                planned=step.calls,
                figures=told,
                at_once=most_at_once(_during(dialogs, one)),
                mean_up=mean_up(dialogs, one.begun, one.ended),
                used=usage.between(one.begun, one.ended),
                broken=limits.broken(told.begun, told.failed, *p99s) if limits is not None else None,
            )
        )
    result.whole = figures(result.calls)
    result.at_once = most_at_once(dialogs)
    if begun:
        result.used = usage.between(begun[0].begun, begun[-1].ended)


def _during(dialogs: Sequence[Dialog], one: _Begun) -> list[Dialog]:
    """The calls that were up while a step was placed."""
    return [
        d
        for d in dialogs
        if d.answered_at is not None and d.answered_at < one.ended
        if d.ended_at is None or d.ended_at > one.begun
    ]


def _eslbot_lines(
    site: Site, begun: Sequence[_Begun], symptoms: Symptoms
) -> dict[tuple[str, str], dict[str, Any]]:
    """The last word that eslbot has logged of each call, by event and CRT Object ID."""
    read = site.eslbot_lines
    if read is None:
        return {}
    answered = {crt for one in begun for crt, dialog in one.dialogs.items() if dialog.answered}

    def ended() -> bool:
        said = {line.get("crt_object_id") for line in read() if line.get("event") == "call_ended"}
        return answered <= said

    wait_for(ended, LOG_GRACE)
    lines = read()
    symptoms.log_read = True
    symptoms.refusals = Counter(str(line.get("why")) for line in lines if line.get("event") == "call_refused")
    return {
        (str(line["event"]), str(line["crt_object_id"])): line
        for line in lines
        if line.get("crt_object_id") and line.get("event") in ("call_ended", "call_refused")
    }
