"""What a bot does in a call, by the URL's path: the kind ones."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

from eslbot.sim.audio import silence, tone
from eslbot.sim.bot.call import HOLD_LIMIT, BotCall, Said
from eslbot.sim.bot.pace import Pace

#: Hertz of the bot's two tones, so that the start and the end of a talk can be told apart.
GREETING, GOODBYE = 440, 880

Behaviour = Callable[[BotCall], None]


def greet(call: BotCall) -> None:
    """Say 440 Hz for ``greeting_ms``; with ``resumes`` not on a call's second connection."""
    if call.resumed and call.number("resumes", 0):
        return
    call.speak(tone(GREETING, call.number("greeting_ms", 600) / 1000, call.rate))


def farewell(call: BotCall) -> None:
    """Say 880 Hz for ``goodbye_ms``, end, and let the peer close."""
    call.speak(tone(GOODBYE, call.number("goodbye_ms", 400) / 1000, call.rate))
    call.end()
    call.part()


def talk(call: BotCall) -> None:
    """Greet, listen, say good-bye."""
    greet(call)
    call.listen(call.number("listen_ms", 500) / 1000)
    farewell(call)


def hold(call: BotCall) -> None:
    """Greet; the rest is the test's."""
    greet(call)
    call.part(HOLD_LIMIT)


def converse(call: BotCall) -> None:
    """Speak and listen in turns."""
    speech = tone(GREETING, call.number("speak_ms", 600) / 1000, call.rate)
    turns = call.number("turns", 0)
    for turn in itertools.count(1):
        begun = time.monotonic()
        call.speak(speech)
        call.pause(begun + len(speech) / 2 / call.rate - time.monotonic())  # the last chunk lasts, too
        call.listen(call.number("listen_ms", 500) / 1000)
        if call.over or turn == turns:
            break
    if not call.over:
        call.end()
    call.part()


def drone(call: BotCall) -> None:
    """One tone without a break."""
    second = tone(GREETING, 1.0, call.rate)  # whole periods: it can be said round and round
    _drone(call, second)


def zeros(call: BotCall) -> None:
    """Speech in which there is nothing to hear."""
    _drone(call, silence(1.0, call.rate))


def _drone(call: BotCall, second: bytes) -> None:
    pace = call.pace()
    size = pace.size(call.rate)
    total = call.number("seconds", 0) * call.rate * 2
    at, begun, sent = time.time(), time.monotonic(), 0
    for due in pace.dues():
        if total and sent >= total:
            break
        begun += call.await_unheld()
        if not call.pause(begun + due - time.monotonic()):
            break
        start = sent % len(second)
        chunk = (second * (1 + (start + size) // len(second)))[start : start + size]
        chunk = chunk[: total - sent] if total else chunk
        call.send_speech(chunk)
        sent += len(chunk)
    call.note_said(Said(at, time.time(), sent / 2 / call.rate))
    if not call.over:
        call.end()
    call.part()


def patient(call: BotCall) -> None:
    """Never speak first: wait until the caller has spoken and paused, then answer."""
    if call.hear_onsets(1):
        call.until(lambda: call.over or not call.caller_speaks)
    if not call.over:
        talk(call)


def reflex(call: BotCall) -> None:
    """Answer each beginning of the caller's speech at once: the media's two ways and nothing between."""
    speech = tone(GREETING, call.number("speak_ms", 200) / 1000, call.rate)
    turns = call.number("turns", 0)
    for turn in itertools.count(1):
        if not call.hear_onsets(turn):
            break
        call.speak(speech, Pace(call.number("chunk_ms", 20), burst=True))
        if turn == turns:
            call.end()
    call.part()


def one_breath(call: BotCall) -> None:
    """Everything at once, and ``end``."""
    breath = tone(GREETING, 0.7, call.rate) + tone(GOODBYE, 0.3, call.rate)
    call.speak(breath, Pace(call.number("chunk_ms", 100), burst=True))
    call.end()
    call.part()


def close(call: BotCall) -> None:
    """Greet and close with 1000."""
    greet(call)
    call.close(1000, "done")


def silent(call: BotCall) -> None:
    """Never speak."""
    call.part(HOLD_LIMIT)


def echo(call: BotCall) -> None:
    """Say back what the caller says."""
    call.hear_until(1)  # then the rate of what comes is known
    size = call.pace().size(call.audio_rate)
    spoken = 0
    while not call.over:
        call.hear_until(spoken + size)
        fresh = call.audio_from(spoken, size)
        spoken += len(fresh)
        if fresh and not call.over:
            call.send_speech(fresh, rate=call.audio_rate)
    call.part()


def wav(call: BotCall) -> None:
    """Speak the server's file, listen, end."""
    assert call.wav is not None  # else the upgrade was refused
    call.speak(call.wav.l16, rate=call.wav.rate)
    call.listen(call.number("listen_ms", 5000) / 1000)
    call.end({})
    call.part()


def provider(call: BotCall) -> None:
    """As bots for telephony providers do: large messages, marks, barge-in; closing ends it."""
    call.speak(tone(GREETING, call.number("greeting_ms", 600) / 1000, call.rate), Pace(60_000, burst=True))
    call.mark(None)
    call.until(lambda: call.closed or not call.marks_waited_for)
    call.speak(tone(GREETING, 5.0, call.rate), Pace(60_000, burst=True))
    call.mark("never heard")
    call.listen(call.number("listen_ms", 500) / 1000)
    call.clear()
    call.speak(tone(GOODBYE, call.number("goodbye_ms", 400) / 1000, call.rate), Pace(60_000, burst=True))
    call.mark("good-bye")
    call.until(lambda: call.closed or "good-bye" not in call.marks_waited_for)
    call.end()
    call.part()


def finish_again(call: BotCall, before: BotCall, behaviour: Behaviour) -> None:
    """The new connection of a call that was finished: what the old one said last may have been lost."""
    call.until(lambda: call.closed or bool(call.messages_of("start")))
    if call.closed:
        return
    start = call.messages_of("start")[0].message
    if start.get("resumed") is not True:
        behaviour(call)
    elif before.end_message is None:
        call.close()
    else:
        call.end(before.end_message["properties"], before.end_message["reason"])
        call.part()


KIND: dict[str, Behaviour] = {
    "talk": talk,
    "hold": hold,
    "converse": converse,
    "drone": drone,
    "patient": patient,
    "reflex": reflex,
    "one-breath": one_breath,
    "close": close,
    "silent": silent,
    "zeros": zeros,
    "echo": echo,
    "wav": wav,
    "twilio": provider,
    "exotel": provider,
    "plivo": provider,
}
