"""What FreeSWITCH tells of the PBX's SDP and INFO, read by us: hold, keys, first offers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.caller.invite import Refused
from eslbot.calls import offer
from eslbot.calls.bot.hold import is_held
from eslbot.calls.bot.keys import KEYS, LEAST_MS, MOST_MS, key_of_info


@pytest.mark.parametrize(
    ("flow", "address", "held"),
    [
        ("sendonly", "192.0.2.7", True),
        ("inactive", "192.0.2.7", True),
        ("sendrecv", "0.0.0.0", True),
        ("sendrecv", "192.0.2.7", False),
        ("recvonly", "192.0.2.7", False),  # it listens: the caller hears us
        ("_undef_", "_undef_", False),
        ("", "", False),
    ],
)
def test_who_is_on_hold(flow: str, address: str, held: bool) -> None:
    assert is_held(flow, address) is held


RELAY = "application/dtmf-relay"


@pytest.mark.parametrize("key", KEYS)
def test_every_key(key: str) -> None:
    number = str(KEYS.index(key))
    for written in (key, key.lower(), number, number.zfill(2)):
        assert key_of_info(RELAY, f"Signal={written}\r\nDuration=160\r\n".encode()) == (key, 160)
        assert key_of_info("application/dtmf", written.encode()) == (key, 250)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (RELAY, b"Signal=16\r\n"),
        (RELAY, b"Signal=-1\r\n"),
        (RELAY, b"Signal=5x\r\n"),
        (RELAY, b"Signal=\xd9\xa5\r\n"),
        (RELAY, b"Duration=5\r\n"),
        (RELAY, b""),
        ("application/dtmf", b"100"),
        ("application/dtmf", b"+1"),
        ("text/plain", b"5"),
        ("", b"5"),
    ],
)
def test_no_key(kind: str, body: bytes) -> None:
    assert key_of_info(kind, body) is None


@pytest.mark.parametrize(
    ("duration", "milliseconds"),
    [("160", 160), ("", 250), ("0", 250), ("x", 250), ("1", LEAST_MS), ("999999", MOST_MS), ("9999999", 250)],
)
def test_durations(duration: str, milliseconds: int) -> None:
    assert key_of_info(RELAY, f"Signal=5\nDuration={duration}".encode()) == ("5", milliseconds)


@given(st.text(max_size=40), st.binary(max_size=200))
def test_any_info(kind: str, body: bytes) -> None:
    for content_type in (kind, RELAY, "application/dtmf", "application/vnd.nortelnetworks.digits"):
        found = key_of_info(content_type, body)
        assert found is None or (found[0] in KEYS and LEAST_MS <= found[1] <= MOST_MS)


AUDIO, FAX = "m=audio 4000 RTP/AVP 0 101", "m=image 9000 udptl t38"
CRYPTO = "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
FINGERPRINT = "a=fingerprint:SHA-256 4F:BD:0C:8C"


def sdp(*streams: str) -> dict[str, str]:
    return {"variable_switch_r_sdp": "\r\n".join(["v=0", "s=-", "t=0 0", *streams, ""])}


@pytest.mark.parametrize(
    ("streams", "why"),
    [
        ([AUDIO, FAX], "fax_offered"),
        ([AUDIO, "m=video 9000 RTP/AVP 96", FAX], "fax_offered"),
        ([AUDIO, "m=image 9000/2 UDPTL t38"], "fax_offered"),
        (["m=audio 0 RTP/AVP 0", AUDIO], "audio_off_first"),
        ([AUDIO, "m=video 9000 RTP/AVPF 96"], "profile_unanswerable"),
        (["m=video 9000 udp/tls/rtp/savpf 96", AUDIO], "profile_unanswerable"),
        ([AUDIO, "m=audio 9002 RTP/SAVPF 0"], "profile_unanswerable"),
        ([AUDIO, FINGERPRINT], "profile_unanswerable"),
        ([FINGERPRINT, "m=audio 4000 RTP/AVPF 0"], "profile_unanswerable"),
        (["m=audio 4000 RTP/SAVP 0", CRYPTO, FINGERPRINT], "profile_unanswerable"),
        (["m=audio 4000 RTP/SAVP 0"], "profile_unanswerable"),
        (["m=audio 4000 RTP/SAVP 0", "a=crypto:1 F8_128_HMAC_SHA1_80 inline:x"], "profile_unanswerable"),
        (["m=audio 4000 RTP/SAVP 0", AUDIO, CRYPTO], "profile_unanswerable"),
        (["m=audio 4000 RTP/SAVP 0", CRYPTO, "m=video 9000 RTP/AVPF 96"], "profile_unanswerable"),
        (["m=audio 4000 rtp/savpf 0", CRYPTO], "profile_unanswerable"),
        (["m=audio 4000 UDP/TLS/RTP/SAVPF 0", "m=video 9 RTP/AVP 96", FINGERPRINT], "profile_unanswerable"),
        (["m=audio 4000 UDP/TLS/RTP/SAVP 0", FINGERPRINT], "profile_unanswerable"),
    ],
)
def test_offers_that_would_be_deaf(streams: list[str], why: str) -> None:
    with pytest.raises(Refused) as refusal:
        offer.check(sdp(*streams))
    assert (refusal.value.status, refusal.value.why, refusal.value.phrase) == (
        488,
        why,
        "Not Acceptable Here",
    )


C4, C6 = "c=IN IP4 203.0.113.10", "c=IN IP6 2001:db8::10"
CANDIDATE = "a=candidate:1 1 UDP 2130706431 203.0.113.10 4000 typ host"


@pytest.mark.parametrize(
    ("streams", "local", "refused"),
    [
        ([C6, AUDIO], "10.0.0.5", True),
        ([C4, AUDIO, C6], "10.0.0.5", True),
        ([AUDIO, C4], "2001:db8::5", True),
        ([C6, AUDIO, C4], "10.0.0.5", False),
        ([C6, AUDIO], "2001:db8::5", False),
        ([C6, AUDIO, CANDIDATE], "10.0.0.5", False),
        ([C6, AUDIO], "", False),
        ([AUDIO], "10.0.0.5", False),
        ([C4, AUDIO, "m=video 9000 RTP/AVP 96", C6], "10.0.0.5", False),
    ],
)
def test_audio_at_an_address_of_the_other_version(streams: list[str], local: str, refused: bool) -> None:
    channel = sdp(*streams) | {"variable_sip_local_network_addr": local}
    if not refused:
        offer.check(channel)
        return
    with pytest.raises(Refused) as refusal:
        offer.check(channel)
    assert (refusal.value.status, refusal.value.why) == (488, "address_family")


@pytest.mark.parametrize(
    "channel",
    [
        {},
        sdp(AUDIO),
        sdp(AUDIO, "m=image 0 udptl t38"),
        sdp(AUDIO, "m=audio 0 RTP/AVP 0"),
        sdp(AUDIO, AUDIO),
        sdp("m=video 9000 RTP/AVP 96", AUDIO),
        sdp(AUDIO, "a=m=image 9000 udptl t38"),
        sdp(AUDIO, "a=ice-ufrag:abcd"),
        sdp(AUDIO, "m=video 0 UDP/TLS/RTP/SAVPF 96", FINGERPRINT),
        sdp("m=audio 4000 RTP/SAVPF 0", FINGERPRINT),
        sdp(FINGERPRINT, "m=audio 4000 UDP/TLS/RTP/SAVPF 0", "m=video 9000 UDP/TLS/RTP/SAVPF 96"),
        sdp(AUDIO, "m=audio 9002 RTP/SAVP 0", CRYPTO),
        sdp(AUDIO, "m=video 0 UDP/TLS/RTP/SAVPF 96"),
        sdp(AUDIO, "m=application 9003 UDP/DTLS/SCTP x"),
        sdp("m=audio 4000 RTP/AVPF 0", CRYPTO),
        sdp("m=audio 4000 RTP/AVPF 0", "m=video 9000 RTP/AVPF 96"),
        sdp("m=audio 4000 RTP/SAVP 0", "a=crypto:1 F8_128_HMAC_SHA1_80 inline:x", CRYPTO),
        sdp("m=audio 4000 RTP/SAVP 0", CRYPTO.lower()),
        sdp("m=audio 4000 RTP/SAVP 0", CRYPTO, "m=video 9000 RTP/SAVP 96"),
    ],
)
def test_offers_that_are_heard(channel: dict[str, str]) -> None:
    offer.check(channel)


def test_an_invite_without_an_offer() -> None:
    assert offer.is_late({"variable_endpoint_disposition": "RECEIVED_NOSDP"})
    assert not offer.is_late({"variable_endpoint_disposition": "RECEIVED"})
    assert not offer.is_late({})
