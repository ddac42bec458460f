"""The bot's speech: its format, its pace, its amount; of all calls of the run."""

from __future__ import annotations

from collections.abc import Sequence

from eslbot.botcheck.call import BotCall
from eslbot.botcheck.examination import BUSY, Examination, too_busy
from eslbot.botcheck.findings import Verdict, check, failed, passed, unseen, warned
from eslbot.botcheck.observations import Piece
from eslbot.relay import budgets
from eslbot.relay.playout import UTTERANCE_OVER

#: Seconds of a pause in mid-speech that is heard as one, and of those that make a voice unusable: parts of
#: the speech.
HEARD, MUCH, TOO_MUCH = 0.06, 0.02, 0.10
#: Seconds of speech below which a pace means nothing.
ENOUGH = 0.5
#: Seconds behind a sound that was broken off within which the next piece continues it; and how often.
CONTINUES, AGAIN_AND_AGAIN = 0.4, 3


@check(
    proves="All its speech is in a format that eslbot plays.",
    remedy=(
        "send L16 little-endian mono at X-Audio-Rate as binary messages, or say the format and rate "
        "in streamAudio; see the message"
    ),
    section="3. streamAudio",
    behind=True,
)
async def formats(exam: Examination) -> Verdict:
    """What the relay's decoder says of it."""
    bad = [one for call in exam.calls for one in call.bad if one.why == "unusable_audio"]
    pieces = sum(len(call.speech) for call in exam.calls)
    if bad:
        kinds = list(dict.fromkeys(one.detail for one in bad))
        return failed(f"{len(bad)} of {len(bad) + pieces} messages cannot be played: {'; '.join(kinds[:3])}")
    if not pieces:
        return unseen("it has sent none")
    return passed(
        f"{pieces} messages with {sum(p.seconds for c in exam.calls for p in c.speech):.1f} s of speech"
    )


@check(
    proves="Its speech ends on a whole sample, so no byte of it was lost or cut.",
    remedy=(
        "L16 has two bytes a sample: cut speech by an even number of bytes, or send the rest with the"
        " next message; take a WAV file's header off"
    ),
    section="3. streamAudio",
    behind=True,
)
async def whole_samples(exam: Examination) -> Verdict:
    """Half a sample was left when an utterance was over, or a WAV header is in it."""
    if not any(call.speech for call in exam.calls):
        return unseen("it has sent none")
    headers = sum(bytes(c.audio[:4]) == b"RIFF" for call in exam.calls for c in call.connections)
    if headers:
        return failed(
            "a WAV file's header is in its raw speech, heard as a click",
            "take the header off, or send the file as audioDataType wav",
        )
    halves = sum(call.halves for call in exam.calls)
    if halves:
        return warned(f"half a sample was left at the end of speech, {halves} times")
    return passed("no half samples")


@check(
    proves="Its speech comes in time: no pauses within it.",
    remedy=(
        "send speech as fast as it is made, and do not pace it: eslbot plays it in real time; a "
        "synthesiser that is slower than speech needs a faster machine, or a start a little later"
    ),
    section="3. Send as fast as you can",
    behind=True,
)
async def pacing(exam: Examination) -> Verdict:
    """What a caller would have heard."""
    seconds = sum(piece.seconds for call in exam.calls for piece in call.speech)
    if seconds < ENOUGH:
        return unseen(f"{seconds:.1f} s of speech say nothing of its pace")
    gaps = [gap for call in exam.calls for gap in [g.seconds for g in call.line.gaps] + _broken_off(call)]
    heard = [gap for gap in gaps if gap >= HEARD]
    told = f"{len(heard)} pauses within {seconds:.1f} s of speech, {sum(heard):.1f} s in all"
    ours = sum(call.stalled for call in exam.calls) if exam.late > BUSY else 0.0
    if ours and MUCH * seconds < sum(heard) < TOO_MUCH * seconds + ours:
        return unseen(f"{told}; {too_busy(exam)}")
    if sum(heard) > TOO_MUCH * seconds:
        return failed(f"{told}: slower than real time")
    if sum(heard) > MUCH * seconds:
        return warned(told)
    ahead = max((_ahead(call.speech) for call in exam.calls), default=0.0)
    how = f"up to {ahead:.1f} s ahead of the caller" if ahead > 0.5 else "in real time"
    return passed(f"{seconds:.1f} s of speech without a pause, {how}")


def _broken_off(call: BotCall) -> list[float]:
    """Seconds of pauses behind which what follows is no new sentence: both ends of them are in mid-sound.

    One or two may be what the bot wants.
    """
    found: list[float] = []
    heard_until, broken_off = 0.0, False
    for piece in call.speech:
        pause = piece.at - heard_until
        if broken_off and piece.begins_loud and UTTERANCE_OVER < pause < CONTINUES:
            found.append(pause)
        heard_until, broken_off = max(heard_until, piece.at) + piece.seconds, piece.ends_loud
    return found if len(found) >= AGAIN_AND_AGAIN else []


def _ahead(speech: Sequence[Piece]) -> float:
    most = heard_until = 0.0
    for piece in speech:
        heard_until = max(heard_until, piece.at) + piece.seconds
        most = max(most, heard_until - piece.at)
    return most


@check(
    proves="It keeps within the bounds of messages and bytes.",
    remedy=(
        "put 20 ms of speech or more in a message, and at most 4 MiB; send no more than 300 messages "
        "and 1 MiB a second for long, and keep no more than 600 s of speech waiting"
    ),
    section="7. Bounds",
    behind=True,
)
async def bounds(exam: Examination) -> Verdict:
    """What the relay's budget and its socket say."""
    over = [call.over_budget for call in exam.calls if call.over_budget]
    if over:
        return failed(f"sent {over[0]}: eslbot ends its part of the call")
    oversized = [one for call in exam.calls for one in call.bad if one.why == "oversized"]
    if oversized:
        return failed(f"{len(oversized)} messages are too large: {oversized[0].detail}")
    full = [
        one for call in exam.calls for one in call.bad if one.why == "queue_full" and "speech" in one.detail
    ]
    if full:
        return failed(f"{len(full)} messages were dropped: {full[0].detail}")
    most = max((call.messages_a_second for call in exam.calls), default=0)
    largest = max((call.largest for call in exam.calls), default=0)
    told = f"at most {most} messages a second, the largest of {largest} bytes"
    if most > budgets.MESSAGES and any(call.messages > budgets.MESSAGES_AT_ONCE / 2 for call in exam.calls):
        return warned(f"{told}; {budgets.MESSAGES} a second are allowed in the long run")
    return passed(told)
