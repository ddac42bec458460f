"""RTP as PBXs send it (RFC 3550, 3389, 4961), and as somebody else might."""

from __future__ import annotations

import time

import pytest

from eslbot.sim.audio import heard
from tests.e2e.interop.conftest import Calling, bot_of
from tests.e2e.interop.pbx import CALLER, Voice
from tests.support.lab import Lab


@pytest.mark.parametrize("tenant", ["hold", "behind-nat"])
def test_who_sends_first_from_elsewhere(lab: Lab, calling: Calling, tenant: str) -> None:
    """A third party's packets are there before the PBX's. Only ``nat = true`` lets them have our audio."""
    call = calling(tenant)
    third = Voice()
    call.voices.append(third)
    invite = call.invite()
    response = call.response(invite)
    call.remote_sdp, call.to = response.body.decode(), response.need("To")
    third.say(call.remote)
    call.ack(invite)
    bot_of(lab, call).wait(lambda it: it.audio_seconds >= 0.3)
    since = time.monotonic()
    if tenant == "hold":
        call.voice.wait(25, since)
        assert not third.since(since)
    else:
        third.wait(25, since)
        assert not call.voice.since(since)
    call.bye()


def test_a_pbx_behind_nat_is_heard_and_hears(lab: Lab, calling: Calling) -> None:
    """Its SDP names a port that it does not send from."""
    call = calling("behind-nat")
    outside = Voice()
    call.voices.append(outside)
    call.accept(call.invite())
    call.voice.pause()
    outside.say(call.remote)
    bot = bot_of(lab, call)
    bot.wait(lambda it: it.audio_seconds >= 0.3)
    call.hears_bot(bot, outside)
    call.bye()


def test_gaps_comfort_noise_and_another_source(lab: Lab, calling: Calling) -> None:
    """Silence suppression with and without CN (RFC 3389), then a new SSRC with numbers of its own."""
    call = calling("hold")
    call.established(call.offer(codecs="0 8 13 101"))
    bot = bot_of(lab, call)
    bot.wait(lambda it: it.audio_seconds >= 0.3)
    call.voice.pause()
    for _ in range(3):
        call.voice.send(b"\x40", 13)  # one octet of noise level
        time.sleep(0.1)  # the PBX's own pace
    call.voice.timestamp += 8 * 300
    before = bot.audio_seconds
    call.voice.ssrc, call.voice.sequence, call.voice.timestamp = 0x5EED, 40_000, 1
    call.voice.say()
    bot.wait(lambda it: it.audio_seconds >= before + 1.5)
    assert heard(bot.audio()[-16_000:], CALLER) > 0.8
    assert not call.over
    call.bye()


def test_a_new_port_and_a_new_codec_by_reinvite(lab: Lab, calling: Calling) -> None:
    call = calling()
    call.established()
    bot = bot_of(lab, call)
    bot.wait(lambda it: it.audio_seconds >= 0.3)
    new = Voice(codec="PCMA")
    call.voices.append(new)
    response = call.reinvite(call.offer(new, codecs="8 101"))
    assert "RTP/AVP 8" in response.body.decode()
    call.voice.pause()
    new.say(call.remote)
    since = time.monotonic()
    new.wait(10, since)
    assert {arrival.packet.payload_type for arrival in new.arrivals} == {8}
    call.hears_bot(bot, new, "PCMA")
    assert not call.voice.since(new.arrivals[0].at + 0.1)
    call.bye()
