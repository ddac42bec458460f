"""Turns as the caller has them: said at known times, by caller and bot, on both kinds of switch.

How exact they are, ``python -m benchmarks.turns`` tells on a machine that has the time; here they are right
within what a busy machine may be late by, and nothing is told that was not.
"""

from __future__ import annotations

import time

import pytest

from benchmarks.turns.measure import Conversation, Errors
from tests.support.lab import Lab
from tests.support.voices import frames, music, silence, tones

#: All of them assert milliseconds of speech.
pytestmark = pytest.mark.timed

#: Seconds by which a turn may be off here; a wrong one would be off by a word's length.
CLOSE = 0.1


def test_what_caller_and_bot_say_is_told_as_it_was(lab: Lab) -> None:
    talk = Conversation.begin(lab, "hold")
    talk.answer(0.8, 0.4, 0.8, 1)
    talk.answer(0.4, 0.12, 0.5, 3)  # faster than the pause that shows it
    talk.barge_in(0.8, 0.4, 5)
    talk.answer(0.8, 0.9, 0.8, 7)
    talk.overlap(0.6, 9)
    told = talk.end()
    errors = Errors()
    errors.add(talk.truths, told)
    # A packet of the caller's that was late says nothing of the turn at it, and of no other.
    assert errors.unsound < len(talk.truths), "this machine sends no packet in time"
    assert (errors.missing, errors.extra <= errors.unsound) == (0, True), (talk.truths, told)
    off = [error for by_kind in (errors.seconds, errors.bot) for found in by_kind.values() for error in found]
    assert max(map(abs, off)) < CLOSE


def test_what_is_no_voice_makes_no_turn(lab: Lab) -> None:
    """A beep, keys by tone, music of a hold that the PBX tells; the bot speaks behind each."""
    talk = Conversation.begin(lab, "hold")
    for sound in (tones(0.4, 1000), tones(0.2, 697, 1209)):
        talk.talker.speak(frames(sound, silence(0.3)))
        talk.bot.say(b"".join(frames(tones(0.5, 440))), real_time=False)
        time.sleep(1.0)
    assert talk.call.reinvite(talk.call.offer(direction="sendonly")).status == 200
    talk.bot.wait_for_message("hold")
    talk.talker.speak(frames(music(3), silence(0.3)))
    assert talk.call.reinvite(talk.call.offer()).status == 200
    talk.bot.wait(lambda bot: len(bot.messages_of("hold")) == 2)
    talk.bot.say(b"".join(frames(tones(0.5, 440))), real_time=False)
    time.sleep(1.0)
    assert talk.end() == []


def test_without_tracing_a_bot_is_told_of_no_trace(lab: Lab, crt: str) -> None:
    lab.pbx.call("00919990152080", crt, lab.tenants["talk"].id).wait(30)
    bot = lab.bot.wait_for_call(lambda one: one.headers.get("X-CRT-Object-ID") == crt)
    assert "traceparent" not in bot.headers
    assert "traceparent" not in bot.wait_for_message("start").message
