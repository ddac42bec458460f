"""Who ended a call: only a BYE or a CANCEL of the PBX's is the PBX's doing."""

from __future__ import annotations

import pytest

from eslbot.calls.hangup import WHYS, By, read


def complete(cause: str = "NORMAL_CLEARING", **variables: str) -> dict[str, str]:
    event = {"Event-Name": "CHANNEL_HANGUP_COMPLETE", "Hangup-Cause": cause}
    return event | {f"variable_{name}": value for name, value in variables.items()}


@pytest.mark.parametrize("disposition", ["recv_bye", "recv_cancel"])
def test_the_pbx_has_two_ways(disposition: str) -> None:
    end = read(complete(sip_hangup_disposition=disposition))
    assert (end.by, end.disposition, end.alarm) == (By.PBX, disposition, False)


@pytest.mark.parametrize(
    "disposition", ["send_bye", "send_refuse", "send_cancel", "recv_refuse", "something"]
)
@pytest.mark.parametrize("cause", ["NORMAL_CLEARING", "MANAGER_REQUEST", "NOBODY_KNOWS"])
def test_anything_else_is_ours_and_an_alarm(disposition: str, cause: str) -> None:
    end = read(complete(cause, sip_hangup_disposition=disposition))
    assert (end.by, end.disposition, end.alarm) == (By.US, disposition, True)
    assert end.why.words and end.why.remedy


def test_a_200_that_is_never_acknowledged_is_our_bye() -> None:
    """The SIP stack sends it by itself, and mod_sofia sets no disposition (measured)."""
    end = read(complete("NORMAL_UNSPECIFIED", sip_term_cause="31"))
    assert (end.by, end.disposition, end.alarm) == (By.US, "send_bye", True)
    assert "ACK" in end.why.words
    assert "Contact" in end.why.remedy and "NAT" in end.why.remedy


def test_a_pbx_that_vanished_is_meant() -> None:
    end = read(complete("MEDIA_TIMEOUT", sip_hangup_disposition="send_bye"))
    assert (end.by, end.vanished, end.alarm) == (By.US, True, False)


@pytest.mark.parametrize(
    ("status", "disposition", "by"),
    [
        ("200", "recv_bye", By.PBX),
        ("487", "recv_cancel", By.PBX),
        ("408", "send_bye", By.US),
        ("", "send_bye", By.US),
    ],
)
def test_before_the_last_event_the_status_tells(status: str, disposition: str, by: By) -> None:
    early = {"Event-Name": "CHANNEL_HANGUP", "Hangup-Cause": "NORMAL_CLEARING"}
    end = read(early | ({"variable_sip_term_status": status} if status else {}))
    assert (end.disposition, end.by) == (disposition, by)


def test_where_no_event_came_nobody_knows() -> None:
    end = read({})
    assert (end.by, end.disposition, end.alarm, end.vanished) == (By.UNKNOWN, "unknown", False, False)


def test_every_cause_has_words_and_a_remedy() -> None:
    for why in WHYS.values():
        assert why.words and why.remedy


def test_a_call_that_a_restarted_freeswitch_could_not_take_up_had_no_bye() -> None:
    end = read(complete("RECOVERY_ON_TIMER_EXPIRE", sip_hangup_disposition="recv_refuse"), restarted=True)
    assert (end.by, end.alarm) == (By.LOST, False)
