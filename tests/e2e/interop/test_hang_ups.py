"""A call that our side ends is told as that: alarm, cause, remedy, count, ledger."""

from __future__ import annotations

import re

import pytest

from tests.e2e.calls.test_call import logged
from tests.e2e.interop.conftest import Calling
from tests.e2e.interop.pbx import Call
from tests.support.lab import Lab

#: Seconds in which a 200 has to be acknowledged: 64 * T1 (RFC 3261, 13.3.1.4), and some for a busy machine.
NO_ACK = 45.0


def sent_byes(lab: Lab) -> int:
    """``eslbot_send_bye_total``."""
    _, text = lab.http("/metrics")
    found = re.search(r"^eslbot_send_bye_total (\d+)", text, re.M)
    assert found
    return int(found[1])


def ours(lab: Lab, call: Call, cause: str) -> dict[str, object]:
    """The call's end, told as our side's doing."""
    ended = logged(lab, call.crt, "call_ended")
    assert (ended["level"], ended["sip_hangup_disposition"]) == ("error", "send_bye")
    assert (ended["hangup_cause"], ended["outcome"], ended["fault"]) == (cause, "our_bye", "eslbot")
    assert ended["why"] and ended["remedy"]
    assert lab.ameyo.requests_for(call.crt) == [], "who is gone is not handed off"
    return ended


def test_a_200_that_is_never_acknowledged(lab: Lab, calling: Calling) -> None:
    """The usual NAT mistake: the PBX's ACK goes to an address that is not ours. UDP and TCP at one time."""
    if lab.real_switch is None:
        pytest.skip(
            "tests/component/sim/test_switch.py has the stand-in's, with a T1 of 20 ms instead of 500"
        )
    before = sent_byes(lab)
    calls = [calling("hold", transport=transport) for transport in ("udp", "tcp")]
    for call in calls:
        assert call.response(call.invite()).status == 200
    for call in calls:
        call.wants("BYE", NO_ACK)
        ended = ours(lab, call, "NORMAL_UNSPECIFIED")
        assert "ACK" in str(ended["why"]) and "Contact" in str(ended["remedy"])
    assert sent_byes(lab) == before + 2


def test_a_call_that_somebody_kills_at_freeswitch(lab: Lab, calling: Calling) -> None:
    if lab.real_switch is None:
        pytest.skip("uuid_kill is a command of FreeSWITCH's inbound event socket")
    before = sent_byes(lab)
    call = calling("hold")
    call.established()
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == call.crt)
    bot.wait_for_message("start")
    lab.real_switch.api(f"uuid_kill {bot.headers['X-Call-ID']}")
    call.wants("BYE")
    ours(lab, call, "NORMAL_CLEARING")
    assert sent_byes(lab) == before + 1


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_a_bye_and_a_cancel_are_the_pbxs(lab: Lab, calling: Calling, transport: str) -> None:
    before = sent_byes(lab)
    call = calling("hold", transport=transport)
    call.established()
    bot = lab.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == call.crt)
    bot.wait_for_message("start")
    call.bye()
    ended = logged(lab, call.crt, "call_ended")
    assert (ended["level"], ended["sip_hangup_disposition"]) == ("info", "recv_bye")
    assert (ended["outcome"], ended["fault"]) == ("caller_hangup", "none")
    assert sent_byes(lab) == before
