"""SIP as PBXs and proxies speak it (RFC 3261, 3311, 3262, 6086)."""

from __future__ import annotations

import re
import time

import pytest

from eslbot.sim.switch.sip_message import SipMessage
from tests.e2e.interop.conftest import Calling, bot_of, line_of
from tests.e2e.interop.pbx import Call, branch_of
from tests.support.lab import Lab


@pytest.mark.parametrize("name", ["Alice", None, ""])
@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_the_pbx_may_call_itself_otherwise_later(
    lab: Lab, calling: Calling, name: str | None, transport: str
) -> None:
    """ACK and re-INVITE without the display name, or with another: the dialog is its tags (section 12)."""
    call = calling(transport=transport)
    invite = call.invite()
    call.display = name
    call.accept(invite)
    bot = bot_of(lab, call)
    assert call.reinvite(call.offer()).status == 200
    bot.wait(lambda it: it.audio_seconds >= 0.3)
    assert bot.headers["X-CRT-Object-ID"] == call.crt
    call.bye()
    assert line_of(lab, "call_ended", crt_object_id=call.crt)["sip_hangup_disposition"] == "recv_bye"


METHODS = {
    "UPDATE": 200,
    "OPTIONS": 200,
    "INFO": 200,
    "PRACK": 481,
    "REFER": 405,
    "FOOBAR": 501,
}


def test_other_requests_in_a_call(calling: Calling) -> None:
    call = calling()
    call.established()
    headers = [("RAck", "1 1 INVITE"), ("Refer-To", "<sip:x@127.0.0.1>"), ("Event", "x")]
    for method in METHODS:
        assert call.ask(method, headers=headers).status == METHODS[method], method
    update = call.ask("UPDATE", call.offer())
    assert update.status == 200
    assert "m=audio" in update.body.decode()
    call.voice.wait(10, time.monotonic())
    call.bye()


def test_a_second_reinvite_before_the_first_is_acknowledged(calling: Calling) -> None:
    """Section 14.2: it gets 500 or 491, and the call lives."""
    call = calling()
    call.established()
    first, second = call.request("INVITE", call.offer()), call.request("INVITE", call.offer())
    call.send(first)
    call.send(second)
    answers: dict[int, int] = {}
    while len(answers) < 2:
        response = call.receive()
        if response.status >= 200:
            answers[response.cseq()[0]] = response.status
    assert answers[first.cseq()[0]] == 200
    assert answers[second.cseq()[0]] in (491, 500)
    call.ack(first)
    call.send(call.request("ACK", cseq=second.cseq()[0], branch=branch_of(second)))
    assert call.ask("OPTIONS").status == 200
    call.voice.wait(10, time.monotonic())
    call.bye()


def compact(text: str) -> str:
    """Section 7.3.3."""
    names = {"Via": "v", "From": "f", "To": "t", "Call-ID": "i", "Contact": "m", "Content-Type": "c"}
    for name, short in {**names, "Content-Length": "l"}.items():
        text = re.sub(rf"^{name}:", f"{short}:", text, flags=re.M)
    return text


def folded(text: str) -> str:
    """Section 7.3.1: a header may go on in the next line."""
    text = re.sub(r'^From: ("[^"]*") ', "From: \\1\r\n ", text, flags=re.M)
    return re.sub(r"^X-Workspace-ID: ", "X-Workspace-ID:\r\n\t", text, flags=re.M)


def spaced(text: str) -> str:
    """White space before the colon, and none behind it; lower case."""
    text = re.sub(r"^CSeq: ", "cseq   :", text, flags=re.M)
    return re.sub(r"^X-Workspace-ID: ", "x-workspace-id :", text, flags=re.M)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize("form", [compact, folded, spaced])
def test_spellings(lab: Lab, calling: Calling, form, transport: str) -> None:  # type: ignore[no-untyped-def]
    call = calling(transport=transport)
    invite = call.request("INVITE", call.offer(), [("X-Workspace-ID", call.workspace)])
    call.send(form(invite.pack().decode()).encode())
    call.accept(invite)
    assert bot_of(lab, call).headers["X-CRT-Object-ID"] == call.crt
    call.bye()


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_long_headers(lab: Lab, calling: Calling, transport: str) -> None:
    call = calling(transport=transport)
    call.established(headers=[(f"X-Long-{n}", "x" * 1500) for n in range(8)])
    assert bot_of(lab, call).headers["X-CRT-Object-ID"] == call.crt
    call.bye()


def test_a_proxy_that_stays_in_the_path(calling: Calling) -> None:
    """Record-Route (section 16.12): our requests go to it, and name the PBX in their request line."""
    call = calling()
    route = f"<sip:127.0.0.1:{call.port};lr>"
    call.contact_user = "behind-the-proxy"
    response = call.established(headers=[("Record-Route", route)])
    assert route in (response.get("Record-Route") or "")
    call.routes = [("Route", f"<sip:{call.switch[0]}:{call.switch[1]};lr>")]
    assert call.reinvite(call.offer()).status == 200
    call.bye()


def test_cancels(lab: Lab, calling: Calling) -> None:
    """A hundred INVITEs, each given up at once (section 9): every one gets its end, and nothing stays."""
    calls = [calling() for _ in range(100)]
    for call in calls:
        call.voice.close()
    sent: list[dict[str, SipMessage]] = []
    for call in calls:
        invite = call.invite()
        cancel = call.request("CANCEL", cseq=1, branch=branch_of(invite))
        call.send(cancel)
        sent.append({"INVITE": invite, "CANCEL": cancel})
    for call, requests in zip(calls, sent, strict=True):
        finals = _finals(call, requests)
        assert finals["CANCEL"] in (200, 481), finals
        assert finals["INVITE"] in (200, 487), finals
        call.over = True
    deadline = time.monotonic() + 10
    while lab.live_channels() and time.monotonic() < deadline:
        time.sleep(0.05)  # another process's count
    assert lab.live_channels() == 0
    after = calling()
    after.established()
    after.voice.wait(10, time.monotonic())
    after.bye()


def _finals(call: Call, requests: dict[str, SipMessage]) -> dict[str, int]:
    """The final responses to an INVITE and its CANCEL, both repeated as over UDP (section 17.1)."""
    finals: dict[str, int] = {}
    while len(finals) < len(requests):
        try:
            response = call.receive(0.5)
        except TimeoutError:
            for method in requests.keys() - finals.keys():
                call.send(requests[method])
            continue
        method = response.cseq()[1]
        if response.status < 200 or method in finals:
            continue
        finals[method] = response.status
        if method == "INVITE":
            call.to = response.need("To")
            if response.status == 200:
                call.ack(requests["INVITE"])
                assert call.ask("BYE").status == 200
            else:
                branch = branch_of(requests["INVITE"])
                call.send(call.request("ACK", cseq=1, branch=branch))
    return finals
