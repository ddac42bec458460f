"""What FreeSWITCH says of a call's media when it is over: numbers for the ledger and the last log line.

The names are those that ``switch_core_media.c`` (``set_stats``) gives a channel's variables at the hang-up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

#: Ours and FreeSWITCH's names. Packets are RTP packets with audio; `skipped` ones never came, or too late.
_NUMBERS = {
    "packets_in": "rtp_audio_in_media_packet_count",
    "packets_out": "rtp_audio_out_media_packet_count",
    "skipped_in": "rtp_audio_in_skip_packet_count",
    "flaws_in": "rtp_audio_in_flaw_total",
    "jitter_max_variance": "rtp_audio_in_jitter_max_variance",
    "quality_percent": "rtp_audio_in_quality_percentage",
    "mos": "rtp_audio_in_mos",
}


def media_facts(hangup: Mapping[str, str]) -> dict[str, float | str]:
    """A channel's, by the headers of its CHANNEL_HANGUP_COMPLETE; what is not there is left out."""
    facts: dict[str, float | str] = {}
    codec = hangup.get("Channel-Read-Codec-Name", "")
    if codec:
        facts["codec"] = codec[:32]
    for name, variable in _NUMBERS.items():
        text = hangup.get(f"variable_{variable}")
        if not text:
            continue
        try:
            number = float(text)
        except ValueError:
            continue
        if math.isfinite(number):
            facts[name] = int(number) if number.is_integer() else number
    return facts
