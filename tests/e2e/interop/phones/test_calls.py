"""Whole calls by baresip and by linphone's command line, the phones of a PBX."""

from __future__ import annotations

import pytest

from eslbot.sim.audio import heard, tone
from eslbot.sim.bot import BotCall
from tests.e2e.calls.test_call import accepted, logged
from tests.e2e.interop.conftest import message_of
from tests.e2e.interop.pbx import BOT, CALLER, DID
from tests.e2e.interop.phones.conftest import Making, bot_of, phones
from tests.e2e.interop.phones.pbx import PBX, PhoneCall
from tests.support.lab import Lab


def hears_caller(bot: BotCall, seconds: float = 0.3) -> None:
    """Until the bot has heard so much of the caller in what came from now on."""
    before = bot.audio_bytes

    def enough(it: BotCall) -> bool:
        new = it.audio_bytes - before
        return new > 0 and heard(it.audio()[-new:], CALLER) >= seconds

    bot.wait(enough)


def told_holds(bot: BotCall, *on: bool) -> None:
    """Until the bot has been told of these holds, and they were all."""

    def holds() -> list[bool]:
        return [received.message["on"] for received in bot.messages_of("hold")]

    bot.wait(lambda _: len(holds()) >= len(on))
    assert holds() == list(on)


def ended_by_caller(lab: Lab, call: PhoneCall, outcome: str) -> None:
    ended = logged(lab, call.crt, "call_ended")
    assert (ended["sip_hangup_disposition"], ended["outcome"]) == ("recv_bye", outcome)
    assert not call.from_switch("BYE"), "we never end a living call"


@pytest.mark.parametrize("name", phones())
def test_a_whole_call(lab: Lab, making: Making, name: str) -> None:
    """Every codec the phone offers, keys by RFC 4733, hold, hand-off, and the PBX's BYE."""
    phone = making(name)
    call = phone.call()
    bot = bot_of(lab, call.crt)
    assert logged(lab, call.crt, "call_admitted")["source"] == PBX
    assert (bot.headers["X-DID"], bot.headers["X-Workspace-ID"]) == (DID, lab.tenants["phones"].id)
    phone.wait_hears(BOT, 0.3)
    phone.hears(bot, 880)
    hears_caller(bot)
    phone.press("5#*")
    message_of(bot, "dtmf", digit="*")
    assert [told.message["digit"] for told in bot.messages_of("dtmf")] == list("5#*")

    phone.hold()
    assert "a=recvonly" in call.answer(call.last("INVITE", 2)).body.decode()
    told_holds(bot, True)
    phone.resume()
    assert call.answer(call.last("INVITE", 3)).status == 200
    told_holds(bot, True, False)
    phone.hears(bot, 660)
    hears_caller(bot)

    bot.end({"summary": "of a phone"})
    lab.ameyo.wait_accepted(call.crt)
    call.end()
    phone.wait_ended()
    ended_by_caller(lab, call, "bot_ended")
    (post,) = accepted(lab, call.crt)
    assert (post.properties["DID"], post.properties["summary"]) == (DID, "of a phone")


@pytest.mark.parametrize("name", phones())
def test_it_hangs_up_while_the_bot_speaks(lab: Lab, making: Making, name: str) -> None:
    phone = making(name, transport="tcp")
    call = phone.call()
    bot = bot_of(lab, call.crt)
    bot.say(tone(880, 5.0), real_time=False)
    phone.wait_hears(880, 0.2)
    phone.hang_up()
    assert message_of(bot, "stop")["reason"] == "caller_hangup"
    ended_by_caller(lab, call, "caller_hangup")
    assert lab.ameyo.requests_for(call.crt) == []
