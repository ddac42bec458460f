"""What a bot is told, known or not, and what it says itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from difflib import get_close_matches
from time import monotonic

from eslbot.botcheck.call import BotCall
from eslbot.botcheck.examination import Examination
from eslbot.botcheck.findings import ESLBOT, PROVIDERS, Verdict, check, failed, harmless, passed, warned
from eslbot.relay.protocols.base import Message

#: No protocol has it, today.
UNKNOWN = "x-eslbot-check"
#: Keys that a caller presses, and their lengths in milliseconds.
KEYS = (("5", 120), ("0", 80), ("#", 60), ("*", 2000), ("D", 100))
#: Seconds between them.
BETWEEN_KEYS = 0.1
#: What a bot may say, in any protocol.
WORDS = {
    "eslbot": ("streamAudio", "clear", "mark", "end", "resumed", "caller_speech"),
    "twilio": ("media", "clear", "mark", "stop"),
    "exotel": ("media", "clear", "mark", "stop"),
    "plivo": ("playAudio", "clearAudio", "checkpoint", "stop"),
}
#: What is wrong with messages by other checks' words.
OF_OTHER_CHECKS = ("unusable_audio", "queue_full", "bad_mark", "oversized")
_IGNORE = (
    "ignore messages and fields that the bot does not know: match the type, with a default that does nothing"
)


async def _survives(exam: Examination, name: str, what: str, say: Callable[[BotCall], None]) -> Verdict:
    """A call in which the bot is told something at once, and again when it speaks."""
    async with exam.call(name) as call:
        await call.connect()
        began = monotonic()
        say(call)
        if await exam.greeted(call) and not call.over:
            say(call)
        verdict = await exam.lives(call, began, what)
        await exam.hung_up(call)
        return verdict


@check(
    proves="It ignores a message of a type that it does not know.",
    remedy=_IGNORE,
    section="The bot protocol (additive)",
)
async def unknown_message(exam: Examination) -> Verdict:
    """One with a type that nobody has."""
    key = "type" if exam.protocol == "eslbot" else "event"
    text = json.dumps({key: UNKNOWN, "data": {"nested": [1, None, {"deep": True}]}, "size": 1})
    return await _survives(
        exam, "unknown-message", f"an unknown {key}", lambda call: call.connection.send(text)
    )


def _with_more(message: Message) -> Message:
    if not isinstance(message, str):
        return message
    document = json.loads(message)
    for table in [document, *(value for value in document.values() if isinstance(value, dict))]:
        table["x_eslbot_check"] = {"nested": [1, None]}
    return json.dumps(document)


@check(
    proves="It ignores fields that it does not know, in every message.",
    remedy=(
        "take the fields that the bot needs out of a message by name; do not unpack it into a "
        "function or a class that allows no others"
    ),
    section="The bot protocol (additive)",
)
async def unknown_field(exam: Examination) -> Verdict:
    """Each message has one more, and so has each object in it."""
    async with exam.call("unknown-field") as call:
        await call.connect(start=False)
        call.connection.reworded = _with_more
        began = monotonic()
        call.start()
        verdict = await exam.lives(call, began, "unknown fields")
        await exam.hung_up(call)
        return verdict


@check(
    proves="It takes an `error` for what it is: a word for its log.",
    remedy="log `error` and go on: the call does",
    section="2. error",
    protocols=ESLBOT,
)
async def error_message(exam: Examination) -> Verdict:
    """With a code that it may have to expect."""
    text = "sampleRate 44100 is not supported; send one of 8000, 16000, 24000 (a try of eslbot bot check)"
    return await _survives(
        exam,
        "error-message",
        "an `error`",
        lambda call: call.tell(lambda protocol: protocol.error("unusable_audio", text)),
    )


@check(
    proves="It takes the message `resumed` in any state, and does not begin anew.",
    remedy='answer {"type":"resumed"} with the same, and repeat an `end` that was sent; change nothing else',
    section="2. resumed",
    protocols=ESLBOT,
)
async def resumed_message(exam: Examination) -> Verdict:
    """Before it speaks, while it does, and behind its `end`."""
    async with exam.call("resumed-message") as call:
        await call.connect()
        began = monotonic()

        def say(call: BotCall) -> None:
            call.connection.send('{"type":"resumed"}')

        say(call)
        if await exam.greeted(call) and not call.over:
            say(call)
        verdict = await exam.lives(call, began, "`resumed`")
        if call.end is not None and not call.lost:
            ends = len(call.wishes)
            say(call)
            again = await call.until(lambda: len(call.wishes) > ends or bool(call.lost), exam.times.settle)
            if broken := exam.broke(call):
                verdict = failed(f"{broken}, behind `resumed` that came behind its `end`")
            elif verdict.grade.value == "pass":
                verdict = passed(
                    "goes on; " + ("repeats its `end`" if again else "its `end` is not repeated")
                )
        await exam.hung_up(call)
        return verdict


@check(
    proves="It takes the answer to a `clear` that it has not sent, when nothing is queued.",
    remedy="do not wait for, or count on, `cleared`: where none is awaited it means nothing",
    section="2. cleared",
    protocols=("eslbot", "plivo"),
)
async def stray_cleared(exam: Examination) -> Verdict:
    """While idle, and while it speaks."""
    verdict = await _survives(
        exam,
        "stray-cleared",
        "a stray `cleared`",
        lambda call: call.tell(lambda protocol: protocol.cleared()),
    )
    return harmless(verdict, "this eslbot only answers with it")


@check(
    proves="It takes a mark that it does not know: one of an earlier connection may come back on the next.",
    remedy="look a mark's name up among those that are waited for, and ignore what is none of them",
    section="5. Reconnecting",
)
async def stray_mark(exam: Examination) -> Verdict:
    """Of no mark that it has sent, heard and cleared."""
    async with exam.call("stray-mark") as call:
        await call.connect()
        began = monotonic()
        for cleared in (False, True):
            call.tell(lambda protocol, c=cleared: protocol.mark(UNKNOWN, cleared=c))  # type: ignore[misc]
        await exam.greeted(call)
        await call.stays(exam.times.settle)
        broken = exam.broke(call)
        await exam.hung_up(call)
        if broken:
            return failed(f"{broken}, behind a mark that it has not sent")
        return passed("takes it for its own, and ends" if exam.gave_up(call, began) else "goes on")


@check(
    proves="It survives every key that a telephone has.",
    remedy="ignore keys that the bot has no use for; `digit` is one of 0-9, *, #, A-D",
    section="2. dtmf",
)
async def dtmf(exam: Examination) -> Verdict:
    """Five keys while it speaks; what it does with them is its own."""
    async with exam.call("dtmf") as call:
        await call.connect()
        await exam.greeted(call)
        pressed, went = monotonic(), 0
        for digit, milliseconds in KEYS:
            if call.over:
                break
            call.tell(lambda protocol, d=digit, m=milliseconds: protocol.key(d, m))  # type: ignore[misc]
            went += 1
            await call.stays(BETWEEN_KEYS)
        await call.stays(exam.times.settle)
        broken, ended, early = exam.broke(call), call.finished_at, exam.gave_up(call, pressed)
        await exam.hung_up(call)
        if broken:
            return failed(f"{broken}, behind the key {KEYS[went - 1][0] if went else ''}".rstrip())
        if ended is not None and ended < pressed:
            return passed("was finished before a key was pressed")
        return passed("ends the call by them" if early else "goes on")


@check(
    proves="Everything that it says is a message of the protocol.",
    remedy="see the messages that a bot may send; what eslbot does not know it drops",
    section="3. Messages from the bot",
    behind=True,
)
async def own_messages(exam: Examination) -> Verdict:
    """Of all calls: what the relay would count as ignored."""
    bad = [one for call in exam.calls for one in call.bad if one.why not in OF_OTHER_CHECKS]
    if not bad:
        return passed(f"{sum(call.messages for call in exam.calls)} messages, all of them known")
    kinds = list(dict.fromkeys(f"{one.why}: {one.detail}" for one in bad))
    told = f"{len(bad)} messages are ignored, as {'; '.join(kinds[:3])}"
    strange = [one.detail.partition("'")[2].rstrip("'") for one in bad if one.why == "unknown_type"]
    known = {word.lower(): word for word in WORDS[exam.protocol]}
    for word in dict.fromkeys(strange):
        if close := get_close_matches(word.lower().replace("-", "_"), list(known), 1, 0.75):
            return failed(told, f"did the bot mean `{known[close[0]]}`? Nothing is done for {word!r}")
    if any(one.why != "unknown_type" for one in bad):
        return failed(told)
    return warned(told)


@check(
    proves="It names the stream that it is connected by, and no other.",
    remedy=(
        "take the stream's id out of each connection's own `start`; eslbot does not look at it, a "
        "provider drops what has another"
    ),
    section="docs/bots.md",
    protocols=PROVIDERS,
    behind=True,
)
async def streams(exam: Examination) -> Verdict:
    """Of all calls."""
    others = [call.name for call in exam.calls if call.other_streams]
    if others:
        return warned(f"{sum(call.other_streams for call in exam.calls)} messages with another stream's id")
    return passed("its own id, or none, in each message")
