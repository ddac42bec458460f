"""The rendered configuration on a real FreeSWITCH: who gets in, and that nothing ever lets go of a call."""

from __future__ import annotations

import re
import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from eslbot.sim.addresses import free_port
from eslbot.sim.freeswitch import FreeSwitchError, FreeSwitchProcess, find
from tests.process.freeswitch.conftest import (
    FOREIGN,
    Caller,
    Controllers,
    Session,
    Switch,
    reinvite,
    request,
    running,
    taken_up,
    until,
)

RETRY_AFTER = '<ereg regexp="^ *5 *$" search_in="hdr" header="Retry-After:" check_it="true" assign_to="1"/>'


def body(pattern: str, *, inverse: bool = False) -> str:
    check = "check_it_inverse" if inverse else "check_it"
    return f'<ereg regexp="{pattern}" search_in="msg" {check}="true" assign_to="1"/>'


def answered(controllers: Controllers, caller: Caller) -> Session:
    """The first controller's session of a call that it has answered."""
    session = controllers.accept()
    session.connect()
    session.execute("answer")
    caller.up()
    return session


def listening(pid: int) -> set[str]:
    """The local addresses of every socket of ``pid`` that waits for strangers."""
    waiting = (psutil.CONN_LISTEN, psutil.CONN_NONE)  # none: UDP
    sockets = psutil.Process(pid).net_connections("inet")
    return {str(one.laddr.ip) for one in sockets if one.status in waiting and not one.raddr}


def rows(switch: Switch) -> int:
    """How many calls could be taken up again."""
    with closing(sqlite3.connect(switch.process.work / "db" / "core.db")) as core:
        (count,) = core.execute("select count(*) from recovery").fetchone()
    return int(count)


def test_it_listens_on_loopback_only(switch: Switch) -> None:
    assert listening(switch.process.pid) == {"127.0.0.1"}


def test_it_starts_without_a_complaint_and_forgets_the_password(switch: Switch) -> None:
    log = switch.process.log_file.read_text()
    assert not re.findall(r"\[(?:ERR|CRIT|ALERT)\].*", log.partition("New Channel")[0])
    assert switch.process.api("global_getvar event_socket_password") in ("", "-ERR no reply")
    assert switch.process.event_socket.password not in switch.process.api("global_getvar")


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_stranger_gets_403_before_any_dialplan(
    switch: Switch, controllers: Controllers, tmp_path: Path, tcp: bool
) -> None:
    controllers.open()
    with Caller(switch, tmp_path, tcp=tcp, source=FOREIGN) as caller:
        caller.refused(403)
    assert not controllers.called


@pytest.mark.parametrize("offer", ["G729", "opus", "telephone-event"])
def test_an_offer_without_g711_gets_488_before_any_dialplan(
    switch: Switch, controllers: Controllers, tmp_path: Path, offer: str
) -> None:
    controllers.open()
    with Caller(switch, tmp_path, offer=offer) as caller:
        caller.refused(488)
    assert not controllers.called


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_without_a_controller_a_call_is_refused_with_503_and_retry_after(
    switch: Switch, controllers: Controllers, tmp_path: Path, tcp: bool
) -> None:
    with Caller(switch, tmp_path, tcp=tcp) as caller:
        caller.refused(503, RETRY_AFTER)


def test_controllers_that_close_before_connect_are_each_tried_and_then_503(
    switch: Switch, controllers: Controllers, tmp_path: Path
) -> None:
    controllers.open()
    with Caller(switch, tmp_path) as caller, caller.refusal(503, RETRY_AFTER):
        called = []
        for _ in range(3):
            session = controllers.accept()
            called.append(session.host)
            session.die()
    assert called == [0, 1, 1]


@pytest.mark.parametrize("up", [0, 1])
def test_a_new_call_goes_to_the_first_host_that_takes_it(
    switch: Switch, controllers: Controllers, tmp_path: Path, up: int
) -> None:
    controllers.open(up)
    with Caller(switch, tmp_path) as caller, caller.call():
        assert answered(controllers, caller).host == up


def test_calls_go_to_the_first_host_while_both_are_up(
    switch: Switch, controllers: Controllers, tmp_path: Path
) -> None:
    controllers.open()
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        with Caller(switch, tmp_path / str(number)) as caller, caller.call():
            assert answered(controllers, caller).host == 0


def test_the_death_of_one_hosts_controller_moves_the_call_to_the_other_and_back(
    switch: Switch, controllers: Controllers, tmp_path: Path
) -> None:
    controllers.open(0)
    with Caller(switch, tmp_path) as caller, caller.call():
        session = answered(controllers, caller)
        uuid = session.uuid
        for dead, alive in ((0, 1), (1, 0), (0, 1)):
            controllers.open(alive)
            controllers.close(dead)
            session.die(reset=alive == 1)
            session = controllers.accept()
            reply = session.connect()
            assert (session.host, session.uuid, reply["Answer-State"]) == (alive, uuid, "answered")


def test_a_controller_that_dies_before_the_answer_is_replaced(
    switch: Switch, controllers: Controllers, tmp_path: Path
) -> None:
    controllers.open()
    with Caller(switch, tmp_path) as caller, caller.call():
        first = controllers.accept()
        first.connect()
        first.die(reset=True)
        answered(controllers, caller)


@pytest.mark.parametrize(("offer", "payload"), [("PCMU", 0), ("PCMA", 8), ("both", 8)])
@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_g711_is_answered_with_dtmf_and_without_session_timer(
    switch: Switch, controllers: Controllers, tmp_path: Path, offer: str, payload: int, tcp: bool
) -> None:
    controllers.open()
    timer = "Supported: timer\nSession-Expires: 90;refresher=uac"
    answer = body(f"m=audio [0-9]+ RTP/AVP {payload} 101") + body("Session-Expires", inverse=True)
    with (
        Caller(switch, tmp_path, offer=offer, tcp=tcp, headers=timer, answer=answer) as caller,
        caller.call(),
    ):
        answered(controllers, caller)


def test_an_answered_call_survives_fifty_controllers(
    switch: Switch, controllers: Controllers, tmp_path: Path
) -> None:
    controllers.open()
    with Caller(switch, tmp_path) as caller, caller.call():
        session = answered(controllers, caller)
        for number in range(50):
            session.die(reset=number % 2 == 0)
            session = controllers.accept()
            if number % 5:  # every fifth one closes without a word
                reply = session.connect()
                assert reply["Answer-State"] == "answered"
                assert reply["variable_sip_to_user"] == "1234"
        assert switch.channels() == 1


def test_with_no_controller_an_answered_call_is_kept_in_silence_until_bye(
    switch: Switch, controllers: Controllers, tmp_path: Path
) -> None:
    controllers.open()
    with Caller(switch, tmp_path) as caller, caller.call():
        session = answered(controllers, caller)
        controllers.close()
        session.die()
        for _ in range(100):  # two seconds, over several rounds of the dialplan
            packet = caller.rtp.recv(2048)
            assert (packet[1] & 0x7F, len(packet)) == (0, 172)
            assert set(packet[12:]) == {0xFF}
    until(lambda: switch.channels() == 0, "the channel outlives its BYE")


@pytest.mark.parametrize("back", [0, 1])
def test_the_first_controller_that_comes_back_gets_the_call(
    switch: Switch, controllers: Controllers, tmp_path: Path, back: int
) -> None:
    controllers.open()
    with Caller(switch, tmp_path) as caller, caller.call():
        session = answered(controllers, caller)
        controllers.close()
        session.die()
        for _ in range(50):
            caller.rtp.recv(2048)
        controllers.open(back)
        session = controllers.accept()
        assert (session.host, session.connect()["Answer-State"]) == (back, "answered")


def test_refer_hold_and_a_bad_offer_within_a_call_do_not_end_it(
    switch: Switch, controllers: Controllers, tmp_path: Path
) -> None:
    controllers.open()
    sdp = "v=0\no=pbx 1 {} IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 9 RTP/AVP {}"
    during = (
        request("REFER", "2", "Refer-To: <sip:9@127.0.0.1>")
        + '<recv response="405"/>\n'
        + reinvite("3", sdp.format(2, "0") + "\na=sendonly", 200)
        + reinvite("4", sdp.format(3, "18"), 488)
        + reinvite("5", sdp.format(4, "0"), 200)
    )
    with Caller(switch, tmp_path, during=during) as caller, caller.call():
        answered(controllers, caller)
        assert switch.channels() == 1


def test_a_digit_by_sip_info_reaches_the_controller(
    switch: Switch, controllers: Controllers, tmp_path: Path
) -> None:
    controllers.open()
    info = request("INFO", "2", "Content-Type: application/dtmf-relay", "Signal=5\nDuration=100")
    with (
        Caller(switch, tmp_path, during=info + '<recv response="200"/>\n') as caller,
        caller.call(),
    ):
        session = controllers.accept()
        session.connect()
        session.send("event plain DTMF")
        session.read()
        session.execute("answer")
        assert session.read_event()["DTMF-Digit"] == "5"


def test_a_freeswitch_that_was_killed_takes_its_calls_up_again(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    with running(tmp_path_factory) as switch:
        switch.controllers.open()
        with Caller(switch, tmp_path, during=taken_up()) as caller, caller.call():
            session = switch.controllers.accept()
            before = session.connect()
            session.execute("answer")
            until(lambda: rows(switch) == 1, "the call is not in the core database")
            switch.process.crash()
            session = switch.controllers.accept()
            after = session.connect()
            assert after["Answer-State"] == "answered"
            assert after["Unique-ID"] == before["Unique-ID"]
            assert after["Core-UUID"] != before["Core-UUID"]


def test_a_clean_stop_ends_its_calls_and_leaves_none_to_be_taken_up(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    with running(tmp_path_factory) as switch:
        switch.controllers.open()
        with Caller(switch, tmp_path) as caller, caller.abandoned("SYSTEM_SHUTDOWN"):
            session = switch.controllers.accept()
            session.connect()
            session.execute("answer")
            until(lambda: rows(switch) == 1, "the call is not in the core database")
            switch.process.stop()
        assert rows(switch) == 0
        switch.process.start()
        assert switch.channels() == 0
        assert switch.process.api("sofia recover") == "No calls to recover."


def test_a_first_start_has_nothing_to_take_up_and_says_nothing_of_it(switch: Switch) -> None:
    assert switch.process.api("global_getvar api_on_startup") == "sofia recover"
    assert rows(switch) == 0
    log = switch.process.log_file.read_text().partition("New Channel")[0]
    assert not re.findall(r"\[(?:WARNING|ERR|CRIT)\].*recover.*", log, re.IGNORECASE)


def test_no_secret_reaches_the_log(switch: Switch, controllers: Controllers, tmp_path: Path) -> None:
    controllers.open()
    with socket.create_server(("127.0.0.1", 0)) as bot, Caller(switch, tmp_path) as caller, caller.call():
        bot.settimeout(10)
        session = answered(controllers, caller)
        uuid = session.uuid
        session.execute("set", 'STREAM_EXTRA_HEADERS={"Authorization":"hush-1"}')
        session.api(f'uuid_setvar {uuid} STREAM_EXTRA_HEADERS {{"Authorization":"hush-2"}}')
        url = "ws://{}:{}/?key=hush-3".format(*bot.getsockname())
        session.api(f"uuid_audio_stream {uuid} start {url} mono 8k hush-4")
        connection, _ = bot.accept()
        with connection:
            connection.settimeout(10)
            assert b"hush-2" in connection.recv(4096)
        until(lambda: "hush-2" in switch.process.api(f"uuid_dump {uuid}"), "the variable is not set")
    log = switch.process.log_file.read_text()
    assert "hush" not in log
    assert switch.process.event_socket.password not in log


@pytest.mark.parametrize("binary", ["/nonexistent/freeswitch", "/bin/true"])
def test_a_binary_that_was_named_has_to_be_usable(monkeypatch: pytest.MonkeyPatch, binary: str) -> None:
    monkeypatch.setenv("ESLBOT_FREESWITCH", binary)
    with pytest.raises(FreeSwitchError, match=binary):
        find()


def test_a_start_on_the_ports_of_another_one_fails_at_once(switch: Switch, tmp_path: Path) -> None:
    second = FreeSwitchProcess(switch.process.installation, switch.process.conf, tmp_path)
    with pytest.raises(FreeSwitchError, match="another one, which logs to"):
        second.start()
    with pytest.raises(FreeSwitchError, match="not running"):
        _ = second.pid


def test_a_start_that_fails_quotes_freeswitch(switch: Switch, tmp_path: Path) -> None:
    conf = tmp_path / "conf"
    shutil.copytree(switch.process.conf, conf)
    taken, free = switch.process.event_socket.port, free_port()
    text = (conf / "vars.xml").read_text()
    (conf / "vars.xml").write_text(text.replace(f"event_socket_port={taken}", f"event_socket_port={free}"))
    (conf / "freeswitch.xml").write_text("<document>")
    broken = FreeSwitchProcess(switch.process.installation, conf, tmp_path / "work")
    with pytest.raises(FreeSwitchError, match=r"exit code(?s:.*)Cannot Initialize"):
        broken.start()
