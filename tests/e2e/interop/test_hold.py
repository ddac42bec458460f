"""Hold and resume (RFC 3264, section 8.4; RFC 3261, section 14.1), and what the bot is told of it."""

from __future__ import annotations

import os
import signal
import time

import pytest

from eslbot.sim.audio import tone
from eslbot.sim.bot import BotCall
from tests.e2e.calls.test_take_over import taken_over, undisturbed
from tests.e2e.interop.conftest import Calling, bot_of, message_of
from tests.e2e.interop.pbx import Call
from tests.support.lab import Lab

#: Seconds behind the ACK in which there has to be audio again.
SOON = 1.0


def put_on_hold(call: Call, how: str) -> None:
    """A re-INVITE; ``how`` is a direction, or ``0.0.0.0``, as RFC 2543 did it."""
    address = how if how == "0.0.0.0" else "127.0.0.1"
    direction = "" if how == "0.0.0.0" else how
    response = call.reinvite(call.offer(direction=direction, address=address))
    assert response.status == 200
    answer = {"sendonly": "a=recvonly", "inactive": "a=inactive"}.get(how, "")
    assert answer in response.body.decode()
    if how == "inactive":
        call.voice.pause()


def resume(call: Call, with_sdp: bool) -> float:
    """A re-INVITE back; returns when its ACK went out."""
    if with_sdp:
        assert call.reinvite(call.offer(direction="sendrecv")).status == 200
    else:
        response = call.reinvite("", ack=call.offer())
        assert response.status == 200
        sdp = response.body.decode()
        assert not any(f"a={way}" in sdp for way in ("recvonly", "sendonly", "inactive")), sdp
    call.voice.say(call.remote)
    return time.monotonic()


def holds(bot: BotCall) -> list[bool]:
    """What the bot has been told of holds."""
    return [received.message["on"] for received in bot.messages_of("hold")]


def told(bot: BotCall, *on: bool) -> None:
    """Until the bot has been told all of that, and it was nothing else."""
    bot.wait(lambda _: len(holds(bot)) >= len(on))
    assert holds(bot) == list(on)


def says(bot: BotCall, seconds: float, mark: str) -> None:
    """The bot speaks, and wants to know when it was heard."""
    bot.say(tone(440, seconds), real_time=False)
    bot.mark(mark)


@pytest.mark.timed
@pytest.mark.parametrize("with_sdp", [True, False], ids=["with SDP", "without SDP"])
@pytest.mark.parametrize("how", ["sendonly", "inactive", "0.0.0.0"])
def test_hold_and_resume(lab: Lab, calling: Calling, how: str, with_sdp: bool) -> None:
    call = calling()
    call.established()
    bot = bot_of(lab, call)
    call.voice.wait(10, time.monotonic())
    put_on_hold(call, how)
    told(bot, True)
    if how != "0.0.0.0":
        quiet = time.monotonic() + 0.1
        time.sleep(0.4)  # what must not come has no event
        assert not call.voice.since(quiet)

    frames, acknowledged = bot.audio_bytes, resume(call, with_sdp)
    first = call.voice.wait(1, acknowledged, SOON)[0]
    assert first.at - acknowledged <= SOON
    bot.wait(lambda it: it.audio_bytes >= frames + 320 * 5, SOON)
    told(bot, True, False)
    call.hears_bot(bot)
    call.bye()


@pytest.mark.timed
def test_a_second_hold_and_a_codec_change_in_between(lab: Lab, calling: Calling) -> None:
    call = calling("hold")
    call.established()
    bot = bot_of(lab, call)
    known: list[bool] = []
    for with_sdp in (True, False):
        put_on_hold(call, "sendonly")
        told(bot, *(known := [*known, True]))
        call.voice.wait(5, resume(call, with_sdp), SOON)
        told(bot, *(known := [*known, False]))
    assert call.reinvite(call.offer(codecs="8 0 101")).status == 200
    call.bye()


def test_a_mark_whose_speech_went_by_on_hold_is_not_heard(lab: Lab, calling: Calling) -> None:
    call = calling("hold")
    call.established()
    bot = bot_of(lab, call)
    call.voice.wait(10, time.monotonic())
    says(bot, 0.3, "heard")
    assert "cleared" not in message_of(bot, "mark", name="heard")
    since = time.monotonic()
    says(bot, 0.9, "cut by a hold")
    call.voice.wait(5, since)
    put_on_hold(call, "sendonly")
    told(bot, True)
    assert message_of(bot, "mark", name="cut by a hold")["cleared"] is True
    says(bot, 0.1, "never heard")
    assert message_of(bot, "mark", name="never heard")["cleared"] is True
    resume(call, with_sdp=False)
    told(bot, True, False)
    says(bot, 0.1, "heard again")
    assert "cleared" not in message_of(bot, "mark", name="heard again")
    call.bye()


@pytest.mark.timed
def test_the_next_controller_knows_of_a_hold(lab: Lab, calling: Calling) -> None:
    """It is killed while the caller is on hold."""
    call = calling("hold")
    call.established()
    bot = bot_of(lab, call)
    put_on_hold(call, "sendonly")
    told(bot, True)
    for pid in lab.services[0].worker_pids():
        os.kill(pid, signal.SIGKILL)
    taken_over(lab, call.crt, 1)
    call.voice.wait(5, resume(call, with_sdp=False), SOON)
    told(bot, True, False)  # and the first hold once
    call.bye()
    undisturbed(lab, call.crt, bot)
