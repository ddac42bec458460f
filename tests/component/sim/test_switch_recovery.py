"""The stand-in switch dies, and takes its calls up again from the rows it had written by then."""

from __future__ import annotations

import asyncio
import json
import shutil
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from eslbot.sim.rtp import RtpPacket
from eslbot.sim.switch.recovery import Row, RowError, Tracking
from eslbot.sim.switch.sip_message import NameAddr, Offer, SipMessage
from tests.component.sim.test_switch import Pbx, Rig, Session, rig, scenario, soon

ROW = Row(
    uuid="a",
    answered=1,
    arrived=True,
    variables=(("recovery_profile_name", "p"), ("sip_contact_uri", "u")),
    caller=(("ANI", "1"),),
    invite="INVITE sip:bot@127.0.0.1 SIP/2.0\r\nCall-ID: 1\r\n\r\n",
    transport="udp",
    host="127.0.0.1",
    port=5060,
    local_tag="t",
    remote_cseq=1,
    offer=Offer("127.0.0.1", 4000, "PCMU", 0, 101, "sendrecv", before=("m=video 0 RTP/AVP 19",)),
)

Before = Callable[[Pbx, Session], Awaitable[None]]


class Fallen:
    """A call whose switch is gone: its PBX, its UUID, its RTP source, and the rows that were left."""

    def __init__(self, pbx: Pbx, uuid: str, core: str, ssrc: int, rows: Path) -> None:
        self.pbx, self.uuid, self.core, self.ssrc, self.rows = pbx, uuid, core, ssrc, rows


async def nothing(pbx: Pbx, session: Session) -> None:
    return


async def row_with(rows: Path, condition: Callable[[Row], bool]) -> None:
    """Wait for a row such that ``condition``."""
    async with asyncio.timeout(8):
        while True:
            for path in rows.glob("*.json"):
                row = Row.parse(path.read_text())
                assert isinstance(row, Row)
                if condition(row):
                    return
            await asyncio.sleep(0.005)  # a file of the switch's: there is no event to wait for


async def fallen(
    tmp_path: Path, before: Before = nothing, condition: Callable[[Row], bool] = lambda row: True
) -> Fallen:
    """A call of a switch that has died; ``before`` that, with a row such that ``condition``."""
    db, rows = tmp_path / "db", tmp_path / "rows"
    async with rig(tmp_path, core_db=db) as it:
        pbx, session = await it.call()
        await row_with(db, lambda row: row.variable("endpoint_disposition") == "ANSWER")
        await before(pbx, session)
        await row_with(db, condition)
        ssrc = int(await session.api(f"uuid_getvar {session.uuid} rtp_use_ssrc") or 0)
        shutil.copytree(db, rows)  # as SIGKILL would leave them
        it.pbxs.remove(pbx)
    await pbx.wants("BYE")  # of the orderly end that this one has had
    return Fallen(pbx, session.uuid, session.channel["Core-UUID"], ssrc, rows)


@asynccontextmanager
async def restarted(tmp_path: Path, left: Fallen, **settings: Any) -> AsyncIterator[Rig]:
    async with rig(tmp_path, core_db=left.rows, **settings) as it:
        it.pbxs.append(left.pbx)
        left.pbx.switch = it.switch.sip_address
        yield it


def respond(pbx: Pbx, request: SipMessage, status: int, reason: str, body: str = "") -> None:
    response = SipMessage(status=status, reason=reason, body=body.encode())
    response.headers = [
        (name, value) for name, value in request.headers if name in ("Via", "From", "To", "Call-ID", "CSeq")
    ]
    response.headers.append(("Contact", f"<sip:pbx@127.0.0.1:{pbx.port}>"))
    pbx.send_raw(response.pack())


async def packet(pbx: Pbx) -> RtpPacket:
    data = await soon(asyncio.get_running_loop().sock_recv(pbx.rtp, 2048))
    found = RtpPacket.parse(data)
    assert found is not None
    return found


def drain(pbx: Pbx) -> None:
    """Forget what the switch before has sent."""
    try:
        while True:
            pbx.rtp.recv(2048)
    except BlockingIOError:
        return


@scenario
async def test_a_call_comes_back(tmp_path: Path) -> None:
    async def set_later(pbx: Pbx, session: Session) -> None:
        await session.api(f"uuid_setvar {session.uuid} eslbot_stage talking")

    left = await fallen(tmp_path, set_later)
    drain(left.pbx)
    async with restarted(tmp_path, left) as it:
        invite = await left.pbx.wants("INVITE")
        assert invite.need("Call-ID") == left.pbx.call_id
        sender, recipient = (NameAddr.parse(invite.need(name), name) for name in ("From", "To"))
        assert sender.params["tag"] == NameAddr.parse(left.pbx.to, "To").params["tag"]
        assert recipient.params["tag"] == "pbx"
        assert invite.cseq()[0] > 1
        sdp = invite.body.decode()
        assert f"m=audio {left.pbx.remote_rtp[1]} RTP/AVP 0 101" in sdp
        assert "telephone-event/0" in sdp
        session = await (await it.controllers[0].session()).begin()
        assert (await packet(left.pbx)).ssrc == left.ssrc, "it speaks before the answer"
        channel = session.channel
        assert channel["Unique-ID"] == left.uuid
        assert channel["Answer-State"] == "answered"
        assert channel["Core-UUID"] != left.core
        assert channel["variable_recovered"] == "true"
        assert "variable_eslbot_stage" not in channel, "it was set behind the row"
        assert int(channel["Caller-Channel-Created-Time"]) > int(channel["Caller-Channel-Answered-Time"]) > 0
        respond(left.pbx, invite, 200, "OK", left.pbx.sdp("0 101"))
        assert (await left.pbx.wants("ACK")).cseq()[0] == invite.cseq()[0]
        respond(left.pbx, invite, 200, "OK", left.pbx.sdp("0 101"))
        await left.pbx.wants("ACK")
        await it.tells("taken_up")
        await row_with(left.rows, lambda row: row.variable("recovered") == "true")
        await left.pbx.bye()
        assert (await it.tells("hangup"))["disposition"] == "recv_bye"


@scenario
async def test_what_is_set_before_a_reinvite_comes_back(tmp_path: Path) -> None:
    async def held(pbx: Pbx, session: Session) -> None:
        await session.api(f"uuid_setvar {session.uuid} eslbot_stage talking")
        sdp = pbx.sdp("0 101") + "a=sendonly\r\n"
        pbx.send_raw(pbx.request("INVITE", "2", [], sdp, branch=f"{pbx.branch}r"))
        assert (await pbx.status()).status == 200
        pbx.ack(cseq="2")

    left = await fallen(tmp_path, held, lambda row: row.variable("eslbot_stage") == "talking")
    drain(left.pbx)
    async with restarted(tmp_path, left) as it:
        invite = await left.pbx.wants("INVITE")
        assert "sendonly" not in invite.body.decode()
        assert "recvonly" not in invite.body.decode()
        session = await (await it.controllers[0].session()).begin()
        await packet(left.pbx)  # though the PBX had said that it does not listen
        assert session.channel["variable_eslbot_stage"] == "talking"
        respond(left.pbx, invite, 200, "OK", left.pbx.sdp("0 101"))
        await it.tells("taken_up")


@pytest.mark.parametrize("status", [481, 488, 491, 500])
def test_a_refused_call_is_dropped_without_bye(tmp_path: Path, status: int) -> None:
    @scenario
    async def refused(tmp_path: Path) -> None:
        left = await fallen(tmp_path)
        async with restarted(tmp_path, left) as it:
            respond(left.pbx, await left.pbx.wants("INVITE"), status, "No")
            await left.pbx.wants("ACK")
            assert (await it.tells("hangup"))["disposition"] == "recv_refuse"
            assert not it.all_told("bye")
            assert it.controllers[0].accepted == 0, "no controller hears of it"
            left.pbx.send_raw(left.pbx.request("BYE", "2", [], branch=f"{left.pbx.branch}b"))
            assert (await left.pbx.status()).status == 481

    refused(tmp_path)


@scenario
async def test_a_pbx_that_does_not_answer_is_spoken_to_for_64_t1(tmp_path: Path) -> None:
    left = await fallen(tmp_path)
    async with restarted(tmp_path, left, sip_t1=0.02) as it:
        began = asyncio.get_running_loop().time()
        session = await (await it.controllers[0].session()).begin()
        await it.tells("hangup", cause="RECOVERY_ON_TIMER_EXPIRE")
        assert asyncio.get_running_loop().time() - began > 64 * 0.02 - 0.2
        headers, _ = await session.event("CHANNEL_HANGUP")
        assert headers["Unique-ID"] == left.uuid
        assert not it.all_told("bye")
        assert not list(left.rows.iterdir()), "nobody takes it up a second time"


def _without(*names: str) -> Before:
    """Unset variables, and have the row written again by a re-INVITE."""

    async def before(pbx: Pbx, session: Session) -> None:
        for name in names:
            await session.api(f"uuid_setvar {session.uuid} {name}")
        pbx.send_raw(pbx.request("INVITE", "2", [], pbx.sdp("0 101"), branch=f"{pbx.branch}r"))
        assert (await pbx.status()).status == 200
        pbx.ack(cseq="2")

    return before


@pytest.mark.parametrize("name", ["recovery_profile_name", "sip_contact_uri"])
def test_a_row_that_lacks_what_freeswitch_needs_is_no_call(tmp_path: Path, name: str) -> None:
    @scenario
    async def lost(tmp_path: Path) -> None:
        left = await fallen(tmp_path, _without(name), lambda row: not row.variable(name))
        async with restarted(tmp_path, left) as it:
            told = await it.tells("not_recovered")
            assert name in told["reason"]
            assert it.switch.calls == 0

    lost(tmp_path)


@scenario
async def test_a_call_without_its_rtp_port_comes_back_mute(tmp_path: Path) -> None:
    name = "local_media_port"
    left = await fallen(tmp_path, _without(name), lambda row: not row.variable(name))
    async with restarted(tmp_path, left) as it:
        invite = await left.pbx.wants("INVITE")
        assert f"m=audio {left.pbx.remote_rtp[1]} " not in invite.body.decode()
        respond(left.pbx, invite, 200, "OK", left.pbx.sdp("0 101"))
        await it.tells("taken_up")
        left.pbx.send_raw(left.pbx.request("BYE", "3", [], branch=f"{left.pbx.branch}b"))
        assert (await left.pbx.status()).status == 200
        assert (await it.tells("hangup"))["rtp_sent"] == 0


@scenario
async def test_a_row_is_written_behind_its_cause(tmp_path: Path) -> None:
    dying = Tracking(tmp_path / "db")
    dying.write(ROW)
    assert Tracking(tmp_path / "db").take() == [], "a younger call is lost"
    dying.flush()
    assert stat.S_IMODE((tmp_path / "db").stat().st_mode) == 0o700
    (path,) = (tmp_path / "db").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Tracking(tmp_path / "db").take() == [ROW]
    assert Tracking(tmp_path / "db").take() == []
    dying.write(ROW)
    dying.drop(ROW.uuid)
    dying.flush()
    assert Tracking(tmp_path / "db").take() == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", ROW.text()[:-20], json.dumps({**json.loads(ROW.text()), "invite": "no message"})],
)
def test_a_file_that_is_no_row_is_told(tmp_path: Path, text: str) -> None:
    tracking = Tracking(tmp_path)
    (tmp_path / "a.json").write_text(text)
    (found,) = tracking.take()
    assert isinstance(found, RowError)


@scenario
async def test_a_clean_stop_leaves_no_row(tmp_path: Path) -> None:
    async with rig(tmp_path, core_db=tmp_path / "db") as it:
        await it.call()
    assert not list((tmp_path / "db").iterdir())
