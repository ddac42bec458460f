"""What the phones offer by their settings: it is served, or refused and told; and never a dead line."""

from __future__ import annotations

import re
import time

import pytest

from eslbot.sim.audio import tone
from tests.e2e.interop.conftest import line_of, message_of
from tests.e2e.interop.pbx import DID
from tests.e2e.interop.phones.conftest import Making, bot_of, phones
from tests.e2e.interop.phones.pbx import PhoneCall
from tests.e2e.interop.phones.phone import Phone
from tests.e2e.interop.phones.test_calls import ended_by_caller, hears_caller
from tests.support.lab import Lab

Options = dict[str, object]


def profile(sdp: str) -> str:
    """Of the audio."""
    found = re.search(r"^m=audio \d+ (\S+)", sdp, re.M)
    assert found
    return found[1]


def talks(lab: Lab, phone: Phone, key: str = "7") -> PhoneCall:
    """A call with voice in both directions and a key, which the phone ends."""
    call = phone.call()
    answer = call.answer(call.invite).body.decode()
    assert profile(answer) == profile(call.invite.body.decode())
    bot = bot_of(lab, call.crt)
    phone.hears(bot, 880)
    hears_caller(bot)
    phone.press(key)
    message_of(bot, "dtmf", digit=key)
    phone.hang_up()
    ended_by_caller(lab, call, "caller_hangup")
    return call


def is_refused(lab: Lab, phone: Phone, why: str) -> PhoneCall:
    """488: by eslbot, which says why, or where ``why`` is empty by the switch."""
    call = phone.pbx.call(phone.dial_new())
    assert call.answer(call.invite).status == 488
    phone.wait_ended()
    if why:
        assert line_of(lab, "call_refused", crt_object_id=call.crt)["why"] == why
    else:
        assert line_of(lab, "switch_refused", sip_call_id=call.id)["status"] == 488
    return call


#: PCMA alone in packets of 40 ms; RTCP on the port of RTP (RFC 5761).
BARESIP: dict[str, Options] = {
    "PCMA at 40 ms": {"account": ";audio_codecs=pcma;ptime=40"},
    "rtcp-mux": {"settings": ("rtcp_mux yes",)},
}
#: Feedback (RFC 4585); session timer and 100rel in Supported (RFC 4028, 3262), keys by SIP INFO alone.
LINPHONE: dict[str, Options] = {
    "RTP/AVPF": {"rtp": {"avpf": "1"}},
    "timer, 100rel, INFO": {
        "sip": {
            "session_expires_enabled": "1",
            "session_expires_value": "120",
            "supported": "timer,100rel,replaces",
            "use_info": "1",
            "use_rfc2833": "0",
        }
    },
}


@pytest.mark.parametrize("name", phones("baresip"))
@pytest.mark.parametrize("how", BARESIP.values(), ids=BARESIP)
def test_what_baresip_may_offer(lab: Lab, making: Making, name: str, how: Options) -> None:
    call = talks(lab, making(name, **how))
    offer = call.invite.body.decode()
    assert "a=rtcp-mux" in offer or "a=ptime:40" in offer


@pytest.mark.parametrize("name", phones("linphone"))
@pytest.mark.parametrize("how", LINPHONE.values(), ids=LINPHONE)
def test_what_linphone_may_offer(lab: Lab, making: Making, name: str, how: Options) -> None:
    call = talks(lab, making(name, **how))
    if "rtp" in how:
        assert profile(call.invite.body.decode()) == "RTP/AVPF"
        return
    assert call.invite.get("Session-Expires") == "120"
    assert call.answer(call.invite).get("Session-Expires") is None, (
        "a refresh that is late would end the call"
    )
    assert call.to_switch("INFO") and not call.to_switch("PRACK")
    assert "telephone-event" not in call.invite.body.decode()


#: With keys in the SDP (RFC 4568), or by DTLS (RFC 5764).
ENCRYPTED: list[tuple[str, Options]] = [
    ("baresip", {"account": ";mediaenc=srtp-mand", "modules": ("srtp",)}),
    ("baresip", {"account": ";mediaenc=dtls_srtp", "modules": ("dtls_srtp",)}),
    ("linphone", {"sip": {"media_encryption": "srtp"}}),
]


@pytest.mark.parametrize(
    ("name", "how"),
    [pytest.param(name, how, marks=p.marks) for name, how in ENCRYPTED for p in phones(name)],
    ids=["baresip SRTP", "baresip DTLS", "linphone SRTP"],
)
def test_encrypted(lab: Lab, making: Making, name: str, how: Options) -> None:
    """FreeSWITCH encrypts; the stand-in has none of it."""
    phone = making(name, **how)
    if lab.real_switch is not None:
        call = talks(lab, phone)
        answer = call.answer(call.invite).body.decode()
        assert "a=crypto:" in answer or "a=fingerprint:" in answer
    elif name == "baresip":
        assert "/SAVP" in profile(is_refused(lab, phone, "").invite.body.decode())
    else:
        comes_back_in_plain_rtp(lab, phone)


def comes_back_in_plain_rtp(lab: Lab, phone: Phone) -> None:
    """What a 488 is good for: linphone calls again by itself."""
    crt = phone.dial_new()
    first = phone.pbx.call(crt)
    assert first.answer(first.invite).status == 488
    phone.wait_established()
    second = phone.pbx.call(crt, 2)
    assert profile(second.answer(second.invite).body.decode()) == "RTP/AVP"
    bot = bot_of(lab, crt)
    phone.hears(bot, 880)
    phone.hang_up()
    assert message_of(bot, "stop")["reason"] == "caller_hangup"


#: Keys beside RTP/AVP; keys with feedback; no G.711.
BARESIP_REFUSED: dict[str, tuple[Options, str]] = {
    "optional SRTP": ({"account": ";mediaenc=srtp", "modules": ("srtp",)}, ""),
    "SRTP with feedback": ({"account": ";mediaenc=srtp-mandf", "modules": ("srtp",)}, "profile_unanswerable"),
    "G.722 alone": ({"account": ";audio_codecs=g722/16000/1"}, ""),
}


@pytest.mark.parametrize("name", phones("baresip"))
@pytest.mark.parametrize(("how", "why"), BARESIP_REFUSED.values(), ids=BARESIP_REFUSED)
def test_what_baresip_is_refused(lab: Lab, making: Making, name: str, how: Options, why: str) -> None:
    is_refused(lab, making(name, **how), why)


@pytest.mark.parametrize("name", phones("linphone"))
def test_linphones_dtls_is_refused(lab: Lab, making: Making, name: str) -> None:
    """UDP/TLS/RTP/SAVP: FreeSWITCH's answer was RTP/SAVP, and linphone ended the call for it."""
    is_refused(lab, making(name, sip={"media_encryption": "dtls"}), "profile_unanswerable")


@pytest.mark.parametrize("name", phones())
def test_a_phone_that_says_whose_call_it_is(lab: Lab, making: Making, name: str) -> None:
    """It writes the display name itself, in its own quotes; the PBX passes it on."""
    crt = f"own-{name}-{time.monotonic_ns()}"
    phone = making(name, display=f"{DID}|{crt}")
    phone.dial_new()
    call = phone.pbx.call(crt)
    phone.wait_established()
    bot = bot_of(lab, crt)
    assert bot.headers["X-DID"] == DID
    bot.say(tone(880, 0.2), real_time=False)
    phone.hang_up()
    ended_by_caller(lab, call, "caller_hangup")


@pytest.mark.parametrize("name", phones())
def test_a_call_that_is_given_up(lab: Lab, making: Making, name: str) -> None:
    """CANCEL or BYE, whichever the phone has come to: the call is over, and nobody is told of it."""
    phone = making(name)
    crt = phone.dial_new()
    phone.hang_up()
    call = phone.pbx.call(crt)
    answer = call.answer(call.invite)
    if answer.status == 200:
        ended_by_caller(lab, call, "caller_hangup")
    else:
        assert (answer.status, len(call.to_switch("CANCEL"))) == (487, 1)
    assert not call.from_switch("BYE")
    assert lab.ameyo.requests_for(crt) == []


@pytest.mark.parametrize("name", phones("linphone"))
def test_a_transfer_is_refused_and_the_call_lives(lab: Lab, making: Making, name: str) -> None:
    """REFER: the PBX transfers, not we. (baresip ends a call whose transfer was refused.)"""
    phone = making(name)
    call = phone.call()
    bot = bot_of(lab, call.crt)
    phone.transfer("sip:somebody@127.0.0.1:9")
    assert call.answer(call.last("REFER")).status == 405
    phone.hears(bot, 880)
    hears_caller(bot)
    phone.hang_up()
    ended_by_caller(lab, call, "caller_hangup")


@pytest.mark.parametrize("name", phones())
def test_it_hangs_up_during_a_hold(lab: Lab, making: Making, name: str) -> None:
    phone = making(name)
    call = phone.call()
    bot = bot_of(lab, call.crt)
    phone.hold()
    message_of(bot, "hold", on=True)
    phone.hang_up()
    assert message_of(bot, "stop")["reason"] == "caller_hangup"
    ended_by_caller(lab, call, "caller_hangup")
