"""Two callers at one time."""

from __future__ import annotations

from functools import partial

from eslbot.botcheck.call import BotCall
from eslbot.botcheck.examination import Examination, NotTaken
from eslbot.botcheck.findings import Verdict, check, failed, passed
from eslbot.relay.protocols.base import Clear

#: Seconds between them.
APART = 0.2
#: The part of its usual first words that each caller has to hear.
SHARE = 0.5


@check(
    proves="Two calls at one time have nothing to do with each other.",
    remedy=(
        "keep everything of a call (socket, models, queues, history) in an object of its connection; "
        "nothing of it in a global, or in what all calls share"
    ),
    section="1. One WebSocket for each call",
)
async def two_calls(exam: Examination) -> Verdict:
    """Both are greeted; one caller breaks in, and hangs up."""
    async with exam.call("two-calls") as one:
        await one.connect()
        await one.stays(APART)
        try:
            async with exam.beside("two-calls, the second", None) as other:
                await other.connect()
                verdict = await _apart(exam, one, other)
                await exam.hung_up(other)
                return verdict
        except NotTaken as refused:
            await exam.hung_up(one)
            exam.refused[:] = [refusal for refusal in exam.refused if refusal[0] != "two-calls, the second"]
            return failed(str(refused).replace("this call", "a second call beside another"))


async def _apart(exam: Examination, one: BotCall, other: BotCall) -> Verdict:
    await exam.greeted(one)
    await exam.greeted(other)
    usual = exam.greeting
    for call, which in ((one, "the first"), (other, "the second")):
        enough = partial(_has_heard, call, SHARE * usual)
        await call.until(lambda c=call, e=enough: c.over or e(), usual + exam.slack(call))  # type: ignore[misc]
        if broken := exam.broke(call):
            return failed(f"{which} of two calls: {broken}")
        if call.other_streams:
            return failed(f"{which} of two calls got messages with another's stream id")
        if not enough():
            return failed(
                f"{which} of two callers got {call.spoken(0):.1f} s of {usual:.1f} s that one gets alone"
            )
    if one.over or other.over:
        await exam.hung_up(one)
        return passed("both were greeted, each by itself")
    began = len(other.wishes)
    one.says(exam.target.says)
    await one.until(lambda: not one.speaks or one.over, exam.times.call)
    await one.stays(exam.times.settle)
    mixed = only_the_other_was_cleared(one, other, began)
    await exam.hung_up(one)
    await other.stays(exam.times.settle)
    if mixed:
        return failed("when one caller spoke, the other's speech was cleared")
    if broken := exam.broke(other):
        return failed(f"when one caller had hung up, the other's call: {broken}")
    if (early := exam.gave_up(other, one.connection.watched.closed_at or 0.0)) is not None:
        return failed(f"when one caller had hung up, the other's call: {early}")
    return passed("both were greeted; one hung up, and the other's call went on")


def _has_heard(call: BotCall, seconds: float) -> bool:
    return call.spoken(0) >= seconds


def only_the_other_was_cleared(one: BotCall, other: BotCall, since: int) -> bool:
    """Whether the second call had a `clear` from its ``since``-th wish on, and the first none at all.

    It is the first whose caller has spoken. Who clears by a clock of its own has done so there before.
    """
    return not _cleared(one, 0) and _cleared(other, since)


def _cleared(call: BotCall, since: int) -> bool:
    return any(isinstance(seen.wish, Clear) for seen in call.wishes[since:])
