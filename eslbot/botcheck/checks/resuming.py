"""The second connection of a call: a bot is not to begin anew, and to say again that it was finished."""

from __future__ import annotations

from time import monotonic

import numpy as np

from eslbot.ameyo.properties import allowed
from eslbot.audio import SAMPLE_RATE
from eslbot.audio.levels import AUDIBLE
from eslbot.botcheck.call import BotCall
from eslbot.botcheck.examination import Examination, nothing_to_show
from eslbot.botcheck.findings import ESLBOT, Verdict, check, failed, passed, unseen, warned
from eslbot.relay.dialler import BotUnreachable
from eslbot.relay.protocols.base import End

#: Seconds of speech that are compared, and how much later the same may begin; and how alike it is then.
COMPARED, LATER, ALIKE = 0.4, 0.1, 0.8
_REMEDY = (
    "on a `start` with resumed = true look the call up by X-Call-ID (or call_id): do not greet, go on, "
    "and send `end` again where it was sent; keep a call's state until its `stop` with another reason than "
    "`shutdown`, or for 30 s"
)


async def _again(exam: Examination, call: BotCall) -> str | None:
    """The second connection; how it was not taken, where it was not."""
    try:
        await call.connect(resumed=True)
    except BotUnreachable as error:
        return f"the second connection was not taken: {error}"
    return None


def _says_the_same(call: BotCall) -> bool:
    """Whether the newest connection's speech begins as the first's did."""
    first, second = (_heard_of(bytes(call.connections[n].audio)) for n in (0, -1))
    size = min(len(first), len(second) - round(LATER * SAMPLE_RATE), round(COMPARED * SAMPLE_RATE))
    if size < SAMPLE_RATE // 10:
        return False
    wanted = first[:size] - first[:size].mean()
    best = 0.0
    for at in range(0, round(LATER * SAMPLE_RATE), 2):
        piece = second[at : at + size]
        power = float(np.sqrt(np.dot(wanted, wanted) * np.dot(piece, piece))) or 1.0
        best = max(best, float(np.dot(wanted, piece)) / power)
    return best > ALIKE


def _heard_of(linear: bytes) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """From the first sample that can be heard."""
    samples = np.frombuffer(linear, "<i2", len(linear) // 2).astype(np.float32)
    heard = np.flatnonzero(np.abs(samples) > AUDIBLE)
    return samples[int(heard[0]) :] if len(heard) else samples[:0]


async def _goes_on(exam: Examination, call: BotCall, began: float) -> Verdict:
    """What the bot does on a second connection, where the caller has heard it on the first."""
    number = call.connection.number
    await call.until(
        lambda: call.spoken(number) > COMPARED + LATER or call.over, min(exam.spoke_after, 10.0) + 1.0
    )
    await call.stays(exam.times.settle / 2)
    if broken := exam.broke(call):
        return failed(f"{broken}, on the second connection")
    if call.finished_at is not None:
        return passed("ends the call on the second connection")
    if not call.spoken(number):
        return passed("says nothing of its own on the second connection")
    if not _says_the_same(call):
        return passed("goes on speaking, with other words than at first")
    if exam.protocol in ESLBOT:
        return failed("greets again: the second connection begins with the same words")
    return passed(
        "greets again: its protocol has no word for a second connection but customParameters.resumed"
    )


async def _broken_in_speech(exam: Examination, name: str, *, shutdown: bool) -> Verdict:
    if exam.plain.spoke_at is None:
        return nothing_to_show(exam)
    async with exam.call(name) as call:
        await call.connect()
        if not await exam.greeted(call) or call.over:
            return unseen("it was finished before its connection could break")
        await call.stays(exam.times.listens)
        if call.over:
            await exam.hung_up(call)
            return unseen("it was finished before its connection could break")
        call.hush()
        began = monotonic()
        if shutdown:
            await call.part("shutdown")
        else:
            call.break_off()
        if (how := await _again(exam, call)) is not None:
            return failed(how)
        verdict = await _goes_on(exam, call, began)
        await exam.hung_up(call)
        return verdict


@check(
    proves="Its connection may break before it has spoken: it takes the second one.",
    remedy=_REMEDY,
    section="5. Reconnecting",
)
async def resume_before_speech(exam: Examination) -> Verdict:
    """It breaks right behind `start`."""
    async with exam.call("resume-before-speech") as call:
        await call.connect()
        call.break_off()
        if (how := await _again(exam, call)) is not None:
            return failed(how)
        await exam.greeted(call)
        await call.stays(exam.times.settle)
        await exam.hung_up(call)
        if broken := exam.broke(call):
            return failed(f"{broken}, on the second connection")
        if call.finished_at is not None:
            return passed("ends the call on the second connection")
        if call.heard:
            return passed("takes the second connection, and speaks")
        return passed("takes the second connection, and waits for the caller")


@check(
    proves="Its connection may break in mid-speech: it takes the second one, and does not greet again.",
    remedy=_REMEDY,
    section="5. Reconnecting",
)
async def resume_in_speech(exam: Examination) -> Verdict:
    """As when a relay is killed."""
    return await _broken_in_speech(exam, "resume-in-speech", shutdown=False)


@check(
    proves="A `stop` with `shutdown` is no end: it takes the connection that comes behind it, and goes on.",
    remedy=_REMEDY,
    section="6. When eslbot changes hands",
)
async def resume_after_shutdown(exam: Examination) -> Verdict:
    """As when a relay is told to end at once."""
    return await _broken_in_speech(exam, "resume-after-shutdown", shutdown=True)


@check(
    proves="It says `end` again on a second connection, with the same properties: so it finds its call.",
    remedy=_REMEDY,
    section="5. Reconnecting",
    protocols=ESLBOT,
)
async def resume_after_end(exam: Examination) -> Verdict:
    """The connection breaks when it has said `end`, or closed."""
    if not exam.ends_by_itself:
        return unseen("it does not end a call by itself")
    async with exam.call("resume-after-end") as call:
        await call.connect()
        if exam.waits_for_caller:
            call.says(exam.target.says)
            await call.until(lambda: call.onset is not None or call.over, exam.times.answer)
        usual = exam.end_expected(call) - monotonic()
        await call.until(lambda: call.over, usual + exam.times.answer + exam.slack(call))
        if call.finished_at is None:
            broken = exam.broke(call)
            return failed(broken) if broken else unseen("it did not end this call")
        call.break_off()
        if (how := await _again(exam, call)) is not None:
            return failed(how)
        began = monotonic()
        await call.until(lambda: _finished_again(call, began), exam.times.answer)
        verdict = _of_the_end(exam, call, began)
        await exam.hung_up(call)
        return verdict


def _finished_again(call: BotCall, since: float) -> bool:
    return call.first(End, since) is not None or any(lost.at >= since for lost in call.lost)


def _of_the_end(exam: Examination, call: BotCall, began: float) -> Verdict:
    if broken := exam.broke(call):
        return failed(f"{broken}, on the second connection")
    if not _finished_again(call, began):
        return failed("does not say again that it was finished: the call would go on with nobody in it")
    ends = [seen.wish for seen in call.wishes if isinstance(seen.wish, End)]
    kept = [allowed(end.properties, list(end.properties))[0] for end in ends]
    if len(kept) > 1 and kept[0] != kept[-1]:
        return warned("its `end` comes again, with other properties: it does not find its call")
    return passed(f"`end` again {1000 * ((call.first(End, began) or began) - began):.0f} ms behind `start`")
