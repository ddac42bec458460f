"""First offers that FreeSWITCH accepts and then is deaf to (measured, FreeSWITCH 1.11).

``switch_core_media_negotiate_sdp`` leaves the audio half made where a fax stream stands behind it, and where
an audio stream that is switched off stands before it. The PBX gets a 488 instead, while it can still route
the call.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from eslbot.invite import Refused

#: Set from when the line has a codec.
CODEC = "read_codec"
#: Of an INVITE without SDP (``enable-3pcc``): the offer is ours then, in the 200.
_NO_OFFER = "RECEIVED_NOSDP"
_STREAM = re.compile(r"^m=([a-z]{1,16}) (\d{1,5})(?:/\d{1,5})? (\S{1,32})", re.MULTILINE)


def check(channel: Mapping[str, str]) -> None:
    """Raise Refused with 488 where nobody would hear the caller."""
    audio_off = False
    for kind, port, protocol in _STREAM.findall(channel.get("variable_switch_r_sdp", "")):
        if kind == "image" and int(port) and protocol.lower() == "udptl":
            raise Refused(488, "fax_offered", "the INVITE offers T.38 fax beside the audio")
        if kind == "audio" and not int(port):
            audio_off = True
        elif kind == "audio" and audio_off:
            raise Refused(
                488, "audio_off_first", "the INVITE offers an audio stream that is off before the other"
            )


def is_late(channel: Mapping[str, str]) -> bool:
    """Whether the INVITE had no offer: the caller's SDP comes with the ACK, and the answer waits for it."""
    return channel.get("variable_endpoint_disposition") == _NO_OFFER


def has_media(channel: Mapping[str, str]) -> bool:
    """Whether a channel that nobody has forgotten variables of has a codec."""
    return bool(channel.get(f"variable_{CODEC}"))
