"""What FreeSWITCH says of the media at the hang-up."""

from __future__ import annotations

from eslbot.calls.media import media_facts


def test_numbers_are_numbers_and_what_is_missing_is_left_out() -> None:
    hangup = {
        "Channel-Read-Codec-Name": "PCMU",
        "variable_rtp_audio_in_media_packet_count": "512",
        "variable_rtp_audio_in_mos": "4.50",
        "variable_rtp_audio_in_jitter_max_variance": "nan",
        "variable_rtp_audio_in_skip_packet_count": "many",
    }
    assert media_facts(hangup) == {"codec": "PCMU", "packets_in": 512, "mos": 4.5}
    assert media_facts({}) == {}
