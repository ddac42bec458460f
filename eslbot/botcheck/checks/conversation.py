"""Caller and bot in turns: the first word, marks, barge-in, holds, and silence."""

from __future__ import annotations

from time import monotonic

from eslbot.botcheck.call import BotCall
from eslbot.botcheck.examination import AWHILE, BUSY, SLACK, Examination, nothing_to_show, too_busy
from eslbot.botcheck.findings import ESLBOT, Grade, Verdict, check, failed, passed, unseen, warned
from eslbot.relay.protocols.base import Clear, Mark

#: Seconds that a bot may take to fall silent, beyond which a caller speaks twice.
PROMPT = 1.0


@check(
    proves="It speaks within first_audio_timeout of `start`, loud enough to be heard.",
    remedy=(
        "greet on `start`, with a recorded sentence if the model is slow; for a bot that waits for "
        "the caller set first_audio_timeout = 0 (--first-audio-timeout 0s)"
    ),
    section="2. start",
    behind=True,
)
async def first_word(exam: Examination) -> Verdict:
    """Of the plain call."""
    plain, limit = exam.plain, exam.target.bot.first_audio_timeout
    if not limit:
        return unseen("with first_audio_timeout = 0 it may wait for the caller")
    if plain.spoke_at is None:
        if plain.over:
            return unseen("it was over before it had spoken")
        sent = f", but {plain.spoken(0):.1f} s of silence" if plain.speech else ""
        return failed(f"nothing to be heard within {limit:g} s, nor when the caller had spoken{sent}")
    if exam.waits_for_caller:
        return failed(f"says nothing within {limit:g} s; it answers when the caller has spoken")
    after = plain.spoke_at - plain.connected
    told = f"{after:.2f} s behind `start`, at most {limit:g} s"
    return warned(told) if after > limit / 2 else passed(told)


@check(
    proves="Its marks have usable names, and it takes their answers.",
    remedy=(
        "name each mark with 1 to 128 characters; have at most 1,000 of them waiting; wait for the "
        "answer instead of counting bytes or seconds"
    ),
    section="4. Order, marks and clearing",
    behind=True,
)
async def marks(exam: Examination) -> Verdict:
    """Of all calls: names, number, and what becomes of a bot whose marks were answered."""
    bad = [one for call in exam.calls for one in call.bad if one.why == "bad_mark"]
    full = [
        one for call in exam.calls for one in call.bad if one.why == "queue_full" and "marks" in one.detail
    ]
    if bad:
        return failed(f"{len(bad)} marks without a usable name: {bad[0].detail}; they are never answered")
    if full:
        return failed(f"{len(full)} marks were dropped: {full[0].detail}")
    asked = sum(isinstance(seen.wish, Mark) for call in exam.calls for seen in call.wishes)
    if not asked:
        return unseen("it has sent none")
    answered = sum(len(call.marks) for call in exam.calls)
    cleared = sum(cleared for call in exam.calls for _, cleared in call.marks)
    told = f"{asked} asked for, {answered} answered in their order"
    return passed(told + (f", {cleared} of them as cleared" if cleared else ""))


@check(
    proves="It stops when the caller breaks in: by `clear`, or by sending no more.",
    remedy="send `clear` as soon as the caller is heard, then stop sending what was left of the sentence",
    section="3. clear",
)
async def barge_in(exam: Examination) -> Verdict:
    """The caller speaks while the bot does."""
    if exam.plain.spoke_at is None:
        return nothing_to_show(exam)
    async with exam.call("barge-in") as call:
        await call.connect()
        await exam.greeted(call)
        await call.until(lambda: not call.speaks or call.over, exam.times.call)
        if not await call.until(lambda: call.sounding or call.over, exam.times.answer) or call.over:
            return unseen("it did not speak long enough to be broken in on")
        before = len(call.heard)
        await call.stays(exam.times.listens)
        call.says(exam.target.says)
        await call.until(lambda: call.onset is not None or call.over, PROMPT)
        onset = call.onset or monotonic()
        await call.until(
            lambda: call.first(Clear, onset) is not None or call.over or not (call.speaks or call.sounding),
            exam.times.answer,
        )
        await call.stays(AWHILE)
        verdict = _of_barge_in(exam, call, onset, before)
        await exam.hung_up(call)
        broken = exam.broke(call)
        return failed(f"{broken}, behind a barge-in") if broken else verdict


def _of_barge_in(exam: Examination, call: BotCall, onset: float, before: int) -> Verdict:
    cleared = call.first(Clear, onset)
    if cleared is not None:
        told = f"`clear` {1000 * (cleared - onset):.0f} ms behind the caller's first word"
        slow = cleared - onset > PROMPT
        if slow and call.late > BUSY and cleared - onset - call.stalled < PROMPT:
            return unseen(f"{told}; {too_busy(exam)}")
        return warned(f"{told}: a caller begins again by then") if slow else passed(told)
    heard, usual = call.heard[before - 1], exam.plain.heard[0] if exam.plain.heard else call.heard[before - 1]
    if heard.ended is None or heard.ended > onset + PROMPT:
        return unseen("spoke on: it knows no barge-in, or did not take this for a voice (--say)")
    if usual.ended is not None and heard.ended - heard.begun < usual.ended - usual.begun - SLACK:
        return passed(
            f"stopped speaking {1000 * (heard.ended - onset):.0f} ms behind the caller's first word"
        )
    return unseen("had said what it had to say when the caller broke in")


@check(
    proves="It survives a hold, and does not take the PBX's music for the caller.",
    remedy=(
        'behind {"type":"hold","on":true} ignore the caller\'s audio until `false`; go on where the bot was'
    ),
    section="2. hold",
    protocols=ESLBOT,
)
async def hold(exam: Examination) -> Verdict:
    """The caller is on hold while the bot speaks, and music plays."""
    async with exam.call("hold") as call:
        await call.connect()
        await exam.greeted(call)
        await call.until(lambda: not call.speaks or call.over, exam.times.call)
        began = monotonic()
        if call.over:
            await exam.hung_up(call)
            broken = exam.broke(call)
            return failed(broken) if broken else unseen("it was finished before")
        call.hold(True)
        call.says(exam.target.says)  # whatever the PBX plays: it can be a voice
        await call.stays(exam.times.held)
        heeded = call.first(Clear, began) is None
        call.hush()
        if not call.over:
            call.hold(False)
        verdict = await exam.lives(call, began, "a hold", exam.times.held)
        await exam.hung_up(call)
        if not heeded and verdict.grade is Grade.PASS:
            return warned("took what the PBX played for the caller: it sent `clear` while on hold")
        return verdict


@check(
    proves="It survives a caller who says nothing for a while.",
    remedy="ask again, or end by `end`; do not close with an error",
    section="1. Frames",
)
async def silent_caller(exam: Examination) -> Verdict:
    """Silence for :attr:`Times.silence` seconds, once the bot has spoken."""
    async with exam.call("silent-caller") as call:
        await call.connect()
        await exam.greeted(call)
        await call.until(lambda: not call.sounding or call.over, exam.times.call)
        words = len(call.heard)
        await call.stays(exam.times.silence)
        await exam.hung_up(call)
        if broken := exam.broke(call):
            return failed(f"{broken}, when the caller was silent")
        if call.finished_at is not None:
            return passed("was finished by then")
        return passed(
            f"{'speaks again' if len(call.heard) > words else 'waits'}, {exam.times.silence:g} s long"
        )


@check(
    proves="It survives some seconds without any audio: FreeSWITCH died, and comes back.",
    remedy="do not take missing frames for a hang-up: that is told by `stop`, and by the close",
    section="6. When eslbot changes hands",
)
async def audio_pause(exam: Examination) -> Verdict:
    """No frame comes while it speaks."""
    async with exam.call("audio-pause") as call:
        await call.connect()
        await exam.greeted(call)
        await call.until(lambda: not call.speaks or call.over, exam.times.call)
        began = monotonic()
        call.muted = True
        await call.stays(exam.times.pause)
        call.muted = False
        verdict = await exam.lives(call, began, f"{exam.times.pause:g} s without audio", exam.times.pause)
        await exam.hung_up(call)
        return verdict
