"""Offers as PBXs make them (RFC 3264, 3711, 3362), and INVITEs that have none."""

from __future__ import annotations

import time
from typing import Any

import pytest

from eslbot.esl.connection import TIMEOUT
from eslbot.sim.audio import heard
from tests.e2e.calls.test_take_over import kill_controller
from tests.e2e.interop.conftest import Calling, bot_of, line_of
from tests.e2e.interop.pbx import CALLER, Call, Voice
from tests.support.lab import Lab

CRYPTO = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"


def flows(lab: Lab, call: Call) -> None:
    """The caller's voice reaches the bot, and the bot's the caller."""
    bot = bot_of(lab, call)
    bot.wait(lambda it: it.audio_seconds >= 0.7)
    assert heard(bot.audio(), CALLER) >= 0.3, "the bot hears the caller"
    call.hears_bot(bot)
    call.bye()


BESIDE = {
    "video": ["m=video 9002 RTP/AVP 96", "a=rtpmap:96 H264/90000"],
    "second audio": ["m=audio 9002 RTP/AVP 0"],
    "fax that is off": ["m=image 0 udptl t38"],
    "encrypted audio": ["m=audio 9002 RTP/SAVP 0", CRYPTO],
}


@pytest.mark.parametrize("behind", BESIDE.values(), ids=BESIDE)
def test_what_stands_behind_the_audio_is_refused_alone(lab: Lab, calling: Calling, behind: list[str]) -> None:
    call = calling("hold")
    answer = call.established(call.offer(behind=behind)).body.decode()
    assert f"\r\n{behind[0].split()[0]} 0 " in answer, "its port is 0"
    flows(lab, call)


VIDEO = ["m=video 9002 RTP/AVPF 96", "a=rtpmap:96 H264/90000"]
FINGERPRINT = ["a=setup:actpass", f"a=fingerprint:SHA-256 {':'.join(['4F'] * 32)}"]
ICE = ["a=ice-ufrag:abcd", "a=ice-pwd:abcdefabcdefabcdefabcd"]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.9.9.9", "192.168.9.9", "203.0.113.9"])
def test_ice_is_answered(lab: Lab, calling: Calling, address: str) -> None:
    """Whatever network the candidates are of: FreeSWITCH's default is 488 for private ones alone."""
    call = calling("hold")
    candidate = f"a=candidate:1 1 UDP 2113929471 {address} {call.voice.port} typ host"
    answer = call.established(call.offer(lines=[*ICE, candidate])).body.decode()
    assert (lab.real_switch is not None) == ("a=candidate:" in answer), (
        "the stand-in has no ICE (RFC 8839, 4.2.5)"
    )
    call.bye()


def test_feedback_is_answered_in_its_profile(lab: Lab, calling: Calling) -> None:
    """RFC 3264, section 6: the transport of the answer is the offer's."""
    call = calling("hold")
    assert " RTP/AVPF 0" in call.established(call.offer(profile="RTP/AVPF")).body.decode()
    flows(lab, call)


UNANSWERABLE: dict[str, dict[str, Any]] = {
    "RTP/SAVP without keys": {"profile": "RTP/SAVP"},
    "RTP/SAVPF with keys": {"profile": "RTP/SAVPF", "lines": [CRYPTO]},
    "DTLS without feedback": {"profile": "UDP/TLS/RTP/SAVP", "lines": FINGERPRINT},
    "a fingerprint beside RTP/AVP": {"lines": FINGERPRINT},
    "video with feedback": {"behind": VIDEO},
}


@pytest.mark.parametrize("how", UNANSWERABLE.values(), ids=UNANSWERABLE)
def test_what_freeswitch_would_answer_with_port_0_is_refused(
    lab: Lab, calling: Calling, how: dict[str, Any]
) -> None:
    call = calling("hold")
    assert call.refused(call.invite(call.offer(**how))).status == 488
    assert line_of(lab, "call_refused", crt_object_id=call.crt)["why"] == "profile_unanswerable"


DEAF = {
    "fax behind the audio": (
        "fax_offered",
        lambda sdp: f"{sdp}m=image 9000 udptl t38\r\na=T38FaxVersion:0\r\n",
    ),
    "audio that is off before the audio": (
        "audio_off_first",
        lambda sdp: sdp.replace("m=audio", "m=audio 0 RTP/AVP 0\r\nm=audio", 1),
    ),
    "audio at IPv6": ("address_family", lambda sdp: sdp.replace("IN IP4 127.0.0.1", "IN IP6 ::1")),
}


@pytest.mark.parametrize(("why", "offer"), DEAF.values(), ids=DEAF)
def test_what_freeswitch_would_be_deaf_to_is_refused(lab: Lab, calling: Calling, why, offer) -> None:  # type: ignore[no-untyped-def]
    call = calling()
    response = call.refused(call.invite(offer(call.offer())))
    assert response.status == 488
    assert line_of(lab, "call_refused", crt_object_id=call.crt)["why"] == why


UNUSABLE = {
    "G.729 alone": {"codecs": "18"},
    "crypto in RTP/AVP": {"lines": [CRYPTO]},
    "audio that is off": {},
}


@pytest.mark.parametrize("how", UNUSABLE.values(), ids=UNUSABLE)
def test_no_usable_audio_is_refused_and_told(lab: Lab, calling: Calling, how: dict[str, Any]) -> None:
    call = calling()
    offer = call.offer(**how)
    if not how:
        offer = offer.replace(f"m=audio {call.voice.port}", "m=audio 0")
    assert call.refused(call.invite(offer)).status == 488
    line = line_of(lab, "switch_refused", sip_call_id=call.call_id)
    assert (line["status"], line["source"]) == (488, "127.0.0.1")


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_an_invite_without_an_offer_is_admitted_and_served(
    lab: Lab, calling: Calling, transport: str
) -> None:
    """RFC 3261, section 13.2.1: our offer is in the 200, the PBX's answer in its ACK."""
    call = calling("hold", transport=transport)
    invite = call.invite("")
    call.accept(invite, call.offer())
    flows(lab, call)


def test_the_ack_to_our_offer_may_take_its_time(lab: Lab, calling: Calling) -> None:
    """mod_audio_stream takes all of FreeSWITCH down where it is started before the line has a codec."""
    calls = [calling("hold", transport=transport) for transport in ("udp", "tcp")]
    asked = [(call, invite, call.response(invite)) for call in calls for invite in [call.invite("")]]
    time.sleep(TIMEOUT + 1)  # longer than eslbot waits for anything else of FreeSWITCH's
    ours = {call.crt for call in calls}
    left = [line for line in lab.log_lines() if line["event"] == "call_left_to_next_controller"]
    assert not [line for line in left if line.get("crt_object_id") in ours]
    for call, invite, answer in asked:
        call.accept(invite, call.offer(), answer)
        flows(lab, call)


def test_a_controller_leaves_before_the_ack_to_our_offer(lab: Lab, calling: Calling) -> None:
    call = calling("hold")
    invite = call.invite("")
    answer = call.response(invite)
    line_of(lab, "call_admitted", crt_object_id=call.crt)
    kill_controller(lab)
    line_of(lab, "call_taken_over", crt_object_id=call.crt)
    time.sleep(1)  # for a stream that must not be started
    assert not [bot for bot in lab.bot.calls if bot.headers.get("X-CRT-Object-ID") == call.crt]
    call.accept(invite, call.offer(), answer)
    flows(lab, call)


def test_an_invite_without_an_offer_is_refused_like_any_other(lab: Lab, calling: Calling) -> None:
    call = calling()
    call.workspace = "00000000-0000-4000-8000-000000000000"
    assert call.refused(call.invite("")).status == 403
    assert line_of(lab, "call_refused", crt_object_id=call.crt)["why"] == "unknown_workspace"


@pytest.mark.parametrize("codecs", ["0 8 101", "8 0 101", "8", "18 9 8 101"])
def test_the_first_codec_we_have_is_taken(lab: Lab, calling: Calling, codecs: str) -> None:
    call = calling()
    answer = call.established(call.offer(codecs=codecs)).body.decode()
    first = next(number for number in codecs.split() if number in ("0", "8"))
    assert f"RTP/AVP {first}" in answer
    call.bye()


@pytest.mark.parametrize("ptime", [10, 20, 30, 40, 60])
def test_ptimes(lab: Lab, calling: Calling, ptime: int) -> None:
    call = calling("hold", voice=Voice(ptime=ptime))
    call.established(call.offer(ptime=ptime))
    flows(lab, call)
