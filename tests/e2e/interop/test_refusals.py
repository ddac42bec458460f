"""What FreeSWITCH refuses by itself is told; what it can do is not refused (RFC 3261, 3262, 4028)."""

from __future__ import annotations

import re

import pytest

from tests.e2e.interop.conftest import Calling, line_of
from tests.support.lab import Lab


def counted(lab: Lab, reason: str) -> float:
    status, text = lab.http("/metrics")
    assert status == 200
    match = re.search(rf'^eslbot_refusals_total{{reason="{reason}"}} (\S+)$', text, re.M)
    return float(match[1]) if match else 0.0


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("extension", ["timer", "unknown-to-us"])
def test_an_extension_we_do_not_have_is_told(
    lab: Lab, calling: Calling, extension: str, transport: str
) -> None:
    before = counted(lab, "switch_420")
    call = calling(transport=transport)
    headers = [("Require", extension), ("Session-Expires", "1800;refresher=uac")]
    response = call.refused(call.invite(headers=headers))
    assert (response.status, response.get("Unsupported")) == (420, extension)
    line = line_of(lab, "switch_refused", sip_call_id=call.call_id)
    assert (line["status"], line["source"], line["unsupported"]) == (420, "127.0.0.1", extension)
    assert line["remedy"]
    assert counted(lab, "switch_420") == before + 1


def test_an_extension_we_have_is_served(calling: Calling) -> None:
    call = calling()
    call.established(headers=[("Require", "100rel"), ("Supported", "timer, replaces")])
    call.bye()


def test_a_session_timer_that_is_only_supported_is_not_begun(calling: Calling) -> None:
    """RFC 4028, section 9: a server without timers answers without Session-Expires; nobody has to refresh."""
    call = calling()
    headers = [("Supported", "timer"), ("Session-Expires", "90;refresher=uas"), ("Min-SE", "90")]
    response = call.established(headers=headers)
    assert response.get("Session-Expires") is None
    assert "timer" not in (response.get("Supported") or "")
    call.bye()


def test_a_stranger_and_a_broken_invite_are_told(lab: Lab, calling: Calling) -> None:
    stranger = calling(host="127.0.0.9")
    assert stranger.refused(stranger.invite()).status == 403
    assert line_of(lab, "switch_refused", sip_call_id=stranger.call_id)["source"] == "127.0.0.9"
    broken = calling()
    assert broken.refused(broken.invite("no SDP at all")).status in (400, 488)
    assert line_of(lab, "switch_refused", sip_call_id=broken.call_id)["source"] == "127.0.0.1"


def test_what_eslbot_itself_refuses_is_told_once(lab: Lab, calling: Calling) -> None:
    call = calling()
    call.workspace = "00000000-0000-4000-8000-000000000000"
    assert call.refused(call.invite()).status == 403
    line_of(lab, "call_refused", crt_object_id=call.crt)
    other = calling()
    other.refused(other.invite(other.offer(codecs="18")))
    line_of(lab, "switch_refused", sip_call_id=other.call_id)  # comes behind what would be wrong
    assert not [line for line in lab.log_lines() if line.get("sip_call_id") == call.call_id]
