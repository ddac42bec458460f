"""First offers that FreeSWITCH accepts and then is deaf to (measured, FreeSWITCH 1.11).

``switch_core_media_negotiate_sdp`` leaves the audio half made where a fax stream stands behind it, and where
an audio stream that is switched off stands before it. And FreeSWITCH answers in one RTP profile, of which it
decides by all streams together: it has feedback (AVPF) where any of them has, and is encrypted (SAVP) where
the audio has a fingerprint (DTLS) or, without feedback, a key that it knows. Where that is not the profile of
the audio's offer, its SIP stack sends 200 with port 0 for it. It also takes an address of the other IP
version, to which it has no way. The PBX gets a 488 instead, while it can still route the call, or offer it
in plain RTP.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from eslbot.caller.invite import Refused

#: Set from when the line has a codec.
CODEC = "read_codec"
#: Of an INVITE without SDP (``enable-3pcc``): the offer is ours then, in the 200.
_NO_OFFER = "RECEIVED_NOSDP"
_SECTION = re.compile(r"^(?=m=)", re.MULTILINE)
_STREAM = re.compile(r"m=([a-z]{1,16}) (\d{1,5})(?:/\d{1,5})? (\S{1,32})")
#: Of a stream, or of the session where the stream has none (RFC 8866, section 5.7).
_CONNECTION = re.compile(r"^c=IN IP([46]) ", re.MULTILINE | re.IGNORECASE)
_CANDIDATE = re.compile(r"^a=candidate:", re.MULTILINE | re.IGNORECASE)
_FINGERPRINT = re.compile(r"^a=fingerprint:\S", re.MULTILINE | re.IGNORECASE)
_CRYPTO = re.compile(r"^a=crypto:\d{1,9} (\S{1,64}) ", re.MULTILINE | re.IGNORECASE)
#: SRTP suites that FreeSWITCH has (RFC 4568, 6188, 7714).
_SUITES = frozenset(
    {
        "AEAD_AES_128_GCM",
        "AEAD_AES_128_GCM_8",
        "AEAD_AES_256_GCM",
        "AEAD_AES_256_GCM_8",
        "AES_CM_128_HMAC_SHA1_32",
        "AES_CM_128_HMAC_SHA1_80",
        "AES_CM_128_NULL_AUTH",
        *(f"AES_{key}_CM_HMAC_SHA1_{tag}" for key in (192, 256) for tag in (32, 80)),
        *(f"AES_CM_{key}_HMAC_SHA1_{tag}" for key in (192, 256) for tag in (32, 80)),
    }
)


def check(channel: Mapping[str, str]) -> None:
    """Raise Refused with 488 where nobody would hear the caller."""
    session, *sections = _SECTION.split(channel.get("variable_switch_r_sdp", ""))
    audio_off, audio, profile, feedback = False, "", "", False
    for section in sections:
        if not (stream := _STREAM.match(section)):
            continue
        kind, on, its_profile = stream[1], bool(int(stream[2])), stream[3].upper()
        if kind == "image" and on and its_profile == "UDPTL":
            raise Refused(488, "fax_offered", "the INVITE offers T.38 fax beside the audio")
        if kind == "audio" and on and audio_off:
            raise Refused(
                488, "audio_off_first", "the INVITE offers an audio stream that is off before the other"
            )
        audio_off = audio_off or (kind == "audio" and not on)
        feedback = feedback or (on and its_profile.endswith("AVPF"))
        if kind == "audio" and on and not audio:
            audio, profile = session + section, its_profile
    _check_profile(profile, audio, feedback)
    _check_address(audio, channel.get("variable_sip_local_network_addr", ""))


def _check_address(audio: str, local: str) -> None:
    """Whether the audio is wanted where FreeSWITCH, whose SIP address is ``local``, can send it."""
    versions = _CONNECTION.findall(audio)
    if not versions or not local or _CANDIDATE.search(audio):  # ICE finds another way, or none
        return
    ours = "6" if ":" in local else "4"
    if versions[-1] != ours:
        raise Refused(
            488, "address_family", f"the INVITE wants audio at IPv{versions[-1]}, FreeSWITCH has IPv{ours}"
        )


def _check_profile(profile: str, audio: str, feedback: bool) -> None:
    """Whether FreeSWITCH answers in this profile; those that it refuses itself never come here.

    In what it tells us of an offer UDP/TLS/RTP/SAVP is RTP/SAVP, as it is in its answer, which is wrong.
    """
    keys = any(suite.upper() in _SUITES for suite in _CRYPTO.findall(audio))
    dtls = bool(_FINGERPRINT.search(audio))
    match profile:
        case "RTP/AVP" | "RTP/SAVP" if feedback:
            what = f"{profile} beside another stream with feedback (AVPF)"
        case "RTP/AVP" | "RTP/AVPF" if dtls:
            what = f"{profile} with a=fingerprint"
        case "RTP/SAVP" | "UDP/TLS/RTP/SAVP" if dtls:
            what = "DTLS without feedback: only UDP/TLS/RTP/SAVPF can be answered"
        case "RTP/SAVP" | "UDP/TLS/RTP/SAVP" if not keys:
            what = f"{profile} without an a=crypto of a suite that FreeSWITCH has"
        case "RTP/SAVPF" | "UDP/TLS/RTP/SAVPF" if not dtls:
            what = f"{profile} without a=fingerprint"
        case _:
            return
    raise Refused(488, "profile_unanswerable", f"the INVITE offers audio as {what}")


def is_late(channel: Mapping[str, str]) -> bool:
    """Whether the INVITE had no offer: the caller's SDP comes with the ACK, and the answer waits for it."""
    return channel.get("variable_endpoint_disposition") == _NO_OFFER


def has_media(channel: Mapping[str, str]) -> bool:
    """Whether a channel that nobody has forgotten variables of has a codec."""
    return bool(channel.get(f"variable_{CODEC}"))
