"""FreeSWITCH dies, and comes back with its calls: what a PBX sends and gets meanwhile, message by message."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

import pytest

from eslbot.sim.switch.sip_message import NameAddr, SipMessage
from tests.e2e.calls.test_call import logged
from tests.e2e.interop.conftest import Calling, bot_of, message_of
from tests.e2e.interop.controller import take
from tests.e2e.interop.pbx import PATIENCE, Call, branch_of
from tests.support.lab import Lab
from tests.support.rows import forget_row, rows, saved_row, wait_row

#: All of them assert milliseconds of speech.
pytestmark = pytest.mark.timed

#: Seconds: a request that nobody answers is sent again, each time twice as long behind (RFC 3261, 17.1.1.2).
T1, T2 = 0.5, 4.0


def talking(lab: Lab, call: Call) -> str:
    """A call whose bot is there, and whose row is written; its UUID."""
    call.established()
    uuid = bot_of(lab, call).headers["X-Call-ID"]
    wait_row(lab, uuid)
    return uuid


def again(call: Call, request: SipMessage, seconds: float = 20.0) -> SipMessage:
    """Send ``request``, and again until it is answered, as a PBX's SIP stack does; the final response."""
    deadline, wait = time.monotonic() + seconds, T1
    while time.monotonic() < deadline:
        call.send(request)
        try:
            return call.response(request, wait)
        except TimeoutError:
            wait = min(2 * wait, T2)
    raise AssertionError(f"no answer to {request.method} within {seconds:g} s")


def take_up(call: Call) -> SipMessage:
    """The PBX accepts the re-INVITE of a FreeSWITCH that has come back; returns that."""
    invite = call.wants("INVITE")
    assert invite.need("From") == call.to, "in the dialog that the PBX knows"
    call.answer(invite, 200, "OK", call.offer())
    ack = call.wants("ACK")
    assert ack.cseq()[0] == invite.cseq()[0]
    return invite


def test_what_a_pbx_asks_while_freeswitch_is_away(lab: Lab, calling: Calling) -> None:
    """One death, four calls: one stays, one gets its BYE, one has no row yet, one begins."""
    stays, ends, young, begins = (calling() for _ in range(4))
    for call in (stays, ends):
        talking(lab, call)
    forget_row(lab, talking(lab, young))
    bot = bot_of(lab, stays)
    lab.crash_switch()

    bye = ends.request("BYE")
    ends.send(bye)
    invite = begins.invite()
    taken_up = take_up(stays)
    assert taken_up.need("Call-ID") == stays.call_id
    # The PBX knows the call no more; and FreeSWITCH, which has it from that, neither.
    ends.answer(ends.wants("INVITE"), 481, "Call/Transaction Does Not Exist")
    ends.wants("ACK")
    assert again(ends, bye).status == 481
    assert again(young, young.request("BYE")).status == 481
    assert not young.requests, "no re-INVITE for it"
    ends.over = young.over = True
    begins.accept(invite, response=again(begins, invite))
    lab.wait_switch_ready()

    stays.hears_bot(bot)
    begins.hears_bot(bot_of(lab, begins))
    for call in (stays, begins):
        call.bye()
        ended = logged(lab, call.crt, "call_ended")
        assert (ended["outcome"], ended["sip_hangup_disposition"]) == ("caller_hangup", "recv_bye")


def test_a_bye_before_the_answer_to_the_reinvite(lab: Lab, calling: Calling) -> None:
    call = calling()
    talking(lab, call)
    lab.crash_switch()
    invite = call.wants("INVITE")
    assert again(call, call.request("BYE")).status == 200
    call.over = True
    call.answer(invite, 481, "Call/Transaction Does Not Exist")
    lab.wait_switch_ready()
    until(lambda: not lab.live_channels(), "the channel stays")


def test_a_call_that_had_ended_stays_ended(lab: Lab, calling: Calling) -> None:
    """FreeSWITCH is killed in the second of the BYE, and takes up a call that nobody has any more."""
    call = calling()
    uuid = talking(lab, call)
    put_back = saved_row(lab, uuid)
    call.bye()
    logged(lab, call.crt, "call_ended")
    until(lambda: uuid not in rows(lab), "FreeSWITCH does not delete the row")
    put_back()
    lab.crash_switch()
    invite = call.wants("INVITE")
    logged(lab, call.crt, "ended_call_came_back")  # a PBX that takes its time
    call.answer(invite, 481, "Call/Transaction Does Not Exist")
    lab.wait_switch_ready()
    until(lambda: not lab.live_channels(), "the channel stays")
    bots = [bot for bot in lab.bot.calls if bot.headers.get("X-CRT-Object-ID") == call.crt]
    assert len(bots) == 1, "no bot was dialled again"
    assert lab.ameyo.requests_for(call.crt) == [], "its caller hung up: there is nobody to hand over"
    assert not (lab.folder / "calls" / uuid).exists(), "nobody looks for it"


def until(reached: Callable[[], bool], otherwise: str) -> None:
    """Wait for what another process does and does not tell: there is no event to wait for."""
    deadline = time.monotonic() + PATIENCE
    while not reached():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)


def test_freeswitch_dies_before_the_ack(lab: Lab, calling: Calling) -> None:
    """Its row is there, but for its own tag: it offers in a dialog that no PBX knows."""
    if lab.real_switch is None:
        pytest.skip("a row of the stand-in's has the tag from the answer on")
    call = calling()
    response = call.response(call.invite())
    assert response.status == 200
    call.over = True
    wait_row(lab, bot_of(lab, call).headers["X-Call-ID"], whole=False)
    lab.crash_switch()
    invite = call.wants("INVITE")
    assert tag(invite.need("From")) != tag(response.need("To"))
    call.answer(invite, 481, "Call/Transaction Does Not Exist")
    call.wants("ACK")
    lab.wait_switch_ready()
    assert not any(request.method == "BYE" for request in call.requests)


def tag(address: str) -> str:
    return NameAddr.parse(address, "From").params["tag"]


def test_a_call_in_set_up_is_lost_and_its_cancel_gets_481(
    lab: Lab, calling: Calling, raw: socket.socket
) -> None:
    call = calling()
    invite = call.invite()
    channel = take(raw)
    try:
        lab.crash_switch()
        lab.wait_switch_ready()
        cancel = call.request("CANCEL", cseq=invite.cseq()[0], branch=branch_of(invite))
        assert again(call, cancel).status == 481
        call.over = True
        assert lab.live_channels() == 0
    finally:
        channel.close()


def test_keys_holds_and_bye_behind_a_death(lab: Lab, calling: Calling) -> None:
    call = calling()
    talking(lab, call)
    bot = bot_of(lab, call)
    lab.crash_switch()
    take_up(call)
    lab.wait_switch_ready()
    assert call.reinvite(call.offer(direction="sendonly")).status == 200
    message_of(bot, "hold", on=True)
    assert call.reinvite(call.offer(direction="sendrecv")).status == 200
    message_of(bot, "hold", on=False)
    call.hears_bot(bot)
    info = call.ask("INFO", "Signal=7\r\nDuration=120\r\n", kind="application/dtmf-relay")
    assert info.status == 200
    assert message_of(bot, "dtmf")["digit"] == "7"
    call.bye()
    assert logged(lab, call.crt, "call_ended")["sip_hangup_disposition"] == "recv_bye"


def test_a_tcp_dialog_is_taken_up_where_its_pbx_accepts_connections(lab: Lab, calling: Calling) -> None:
    """FreeSWITCH connects to the PBX's Contact, and says a Via of the PBX's own."""
    if lab.real_switch is None:
        pytest.skip("the stand-in takes up no TCP call (tests/component/sim/test_switch_recovery.py)")
    call = calling(transport="tcp")
    with socket.create_server(("127.0.0.1", 0)) as door:
        door.settimeout(PATIENCE)
        call.port = door.getsockname()[1]  # of its Contact
        uuid = talking(lab, call)
        bot = bot_of(lab, call)
        lab.crash_switch()
        first = taken_up_at(door, call)
        lab.wait_switch_ready()
        call.hears_bot(bot)
        wait_row(lab, uuid)
        lab.crash_switch()
        second = taken_up_at(door, call)
        lab.wait_switch_ready()
    for invite in (first, second):
        assert f":{call.port}" in invite.need("Via"), "who answers where it points talks to itself"
    call.bye()


def taken_up_at(door: socket.socket, call: Call) -> SipMessage:
    """FreeSWITCH comes to the PBX's door, since the connection is gone."""
    call.socket.close()
    call.socket, _ = door.accept()
    return take_up(call)
