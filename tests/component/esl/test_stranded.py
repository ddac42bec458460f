"""Calls that do not come back behind FreeSWITCH's death: their customers go to an agent all the same."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address

import gevent
import pytest
from structlog.testing import capture_logs

from eslbot.ameyo.retry import Verdict
from eslbot.calls import stranded
from eslbot.calls.stranded import Fate, StrandedCalls
from eslbot.config.model import Address, Secret
from eslbot.ledger.facts import What
from eslbot.telemetry import metrics
from tests.component.esl.conftest import House
from tests.component.esl.test_switch_dies import SlowAmeyo
from tests.support.inbound_switch import PASSWORD, InboundSwitch, Spoiled
from tests.support.peer import eventually
from tests.support.switch import UUID, Channel

CORE = "7b0e8f0a-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stranded, "BACK_DUE", 0.0)
    monkeypatch.setattr(stranded, "ASK_DUE", 0.5)


@contextmanager
def switch(house: House, core: str, exists: str = "false", uptime: str = "7529") -> Iterator[InboundSwitch]:
    """A FreeSWITCH that can be asked for the call."""
    with InboundSwitch() as inbound:
        house.event_socket = (Address(ip_address("127.0.0.1"), inbound.port), Secret(PASSWORD))
        replies = {f"uuid_exists {UUID}": exists, "global_getvar core_uuid": core, "uptime": uptime}
        controller = house.controller
        address, password = house.event_socket
        asked = replace(controller.config.freeswitch, event_socket=address, event_socket_password=password)
        controller.config = replace(controller.config, freeswitch=asked)  # where it was made before
        inbound.holds(controller.config, Spoiled(replies=replies))
        yield inbound


def left(house: House) -> list[str]:
    return [path.name for path in (house.state / "calls").iterdir()]


def lost(house: House, stage: str = "talking") -> Channel:
    """A call whose FreeSWITCH dies in that stage."""
    channel = house.call()
    channel.wait_stage("talking")
    if stage != "talking":
        channel.ends({"summary": "billing"}, done=stage != "ended")
        channel.wait_stage(stage)
    channel.lose_controller()
    eventually(lambda: not house.controller.calls and left(house))
    return channel


def look(house: House) -> None:
    """Once, and until whoever is handed off is."""
    StrandedCalls(house.controller).look()
    eventually(lambda: not house.controller.calls)


@pytest.mark.parametrize("alive", [True, False], ids=["another FreeSWITCH", "none"])
def test_a_call_that_freeswitch_has_lost_is_handed_off(house: House, alive: bool) -> None:
    before = metrics.CALLS_STRANDED.labels("acme")._value.get()
    if alive:
        with switch(house, "another"):
            lost(house)
            look(house)
            look(house)
        assert left(house) == []
    else:
        lost(house)
        look(house)
        look(house)
        assert left(house) == [UUID], "it may come back with the call"
    (post,) = house.posts()
    assert post["properties"]["outcome"] == "switch_lost"
    assert "did not come back" in post["properties"]["why"]
    assert metrics.CALLS_STRANDED.labels("acme")._value.get() == before + 1
    assert house.told(What.BOT_ENDED)["outcome"] == "switch_lost"
    assert house.told(What.ATTEMPT)["verdict"] == "accepted"


def test_what_the_bot_had_said_at_its_end_is_told(house: House) -> None:
    lost(house, "ended")
    look(house)
    (post,) = house.posts()
    assert (post["properties"]["outcome"], post["properties"]["summary"]) == ("bot_ended", "billing")


def test_a_customer_whom_ameyo_has_accepted_is_not_told_again(house: House) -> None:
    with switch(house, "another"):
        lost(house, "held")
        look(house)
    assert len(house.posts()) == 1
    assert left(house) == []


@pytest.mark.parametrize("refused", [False, True], ids=["its PBX has it", "its PBX has not"])
def test_a_call_that_comes_back_behind_its_hand_off_is_not_handed_off_again(
    house: House, refused: bool
) -> None:
    first = lost(house)
    look(house)
    second = house.restarted(first)
    second.wait_stage("held")
    if refused:
        second.hang_up("recv_refuse", "RECOVERY_ON_TIMER_EXPIRE")
    else:
        second.hang_up()
    second.wait_closed()
    look(house)
    assert (len(house.posts()), left(house)) == (1, [])
    assert second.starts == []


def test_a_call_that_comes_back_while_it_is_handed_off_waits_for_that(house: House) -> None:
    ameyo = SlowAmeyo(house, Verdict.ACCEPTED)
    first = lost(house)
    StrandedCalls(house.controller).look()
    eventually(lambda: ameyo.begun)
    second = house.call(first.tracked, {"Core-UUID": "2"}, answered=True)
    second.wait(lambda: second.stages.count("handing_off"))
    ameyo.release.set()
    second.wait_stage("held")
    assert ameyo.begun == 1 and second.starts == []


@pytest.mark.parametrize("fate", [Fate.LIVES, Fate.STARTING])
def test_where_freeswitch_has_come_back_with_the_call_its_controller_goes_on(
    house: House, fate: Fate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stranded, "FRESH", 0.0)
    ameyo = SlowAmeyo(house, Verdict.FAILED, Verdict.ACCEPTED)
    fates = iter([Fate.AWAY, Fate.AWAY, fate])
    monkeypatch.setattr(stranded.Switch, "fate_of", lambda *_: next(fates))
    lost(house)
    ameyo.release.set()
    look(house)
    assert ameyo.begun == 1
    document = json.loads((house.state / "calls" / UUID).read_text())
    assert document["variables"]["eslbot_attempts"] == "1"
    assert document["variables"]["eslbot_next_attempt"]


@pytest.mark.parametrize("verdict", [Verdict.ACCEPTED, Verdict.FAILED])
def test_a_worker_that_leaves_finishes_what_is_under_way(house: House, verdict: Verdict) -> None:
    """The next one would not know of it, and tell Ameyo again."""
    ameyo = SlowAmeyo(house, verdict, Verdict.ACCEPTED)
    lost(house)
    StrandedCalls(house.controller).look()
    eventually(lambda: ameyo.begun)
    leaving = gevent.spawn(house.controller.hand_over, 0.0)
    leaving.join(timeout=0.2)
    assert not leaving.ready()
    ameyo.release.set()
    leaving.join(timeout=5)
    assert leaving.ready() and ameyo.begun == 1
    left_over = house.controller.resume_states.take(UUID)
    assert left_over is not None and not left_over.under_way
    stage = "held" if verdict is Verdict.ACCEPTED else "handing_off"
    assert (left_over.variables["eslbot_stage"], left_over.variables["eslbot_attempts"]) == (stage, "1")
    house.controller.resume_states.save(UUID, left_over)
    look(house)
    assert ameyo.begun == 1, "who leaves begins nothing"


def test_all_calls_of_a_look_are_asked_for_by_one_connection(house: House) -> None:
    with switch(house, CORE) as inbound:
        copies(house, 3)
        look(house)
    assert inbound.asked.count("global_getvar core_uuid") == 1
    assert sum(asked.startswith("uuid_exists") for asked in inbound.asked) == 3


@pytest.mark.timed
def test_a_freeswitch_that_says_nothing_is_waited_for_once_a_look(house: House) -> None:
    with InboundSwitch() as inbound:
        house.event_socket = (Address(ip_address("127.0.0.1"), inbound.port), Secret(PASSWORD))
        inbound.holds(house.controller.config, Spoiled(manners="silent"))
        names = copies(house, 5)
        began = time.monotonic()
        look(house)
        assert time.monotonic() - began < 2 * stranded.ASK_DUE
    assert sorted(left(house)) == names


def copies(house: House, number: int) -> list[str]:
    """So many calls that were lost."""
    lost(house)
    path = house.state / "calls" / UUID
    for index in range(1, number):
        path.with_name(f"{UUID[:-1]}{index + 1}").write_text(path.read_text())
    names = sorted(left(house))
    assert len(names) == number
    return names


@pytest.mark.parametrize(("core", "exists"), [(CORE, "false"), (CORE, "true"), ("another", "true")])
def test_a_call_that_has_ended_or_that_somebody_has_is_left_alone(
    house: House, core: str, exists: str
) -> None:
    with switch(house, core, exists):
        lost(house)
        look(house)
    assert house.posts() == []
    assert left(house) == []


def test_a_freeswitch_that_has_just_come_is_given_time_to_take_its_calls_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was away for longer than a call is waited for, and answers before it does."""
    lost(house)
    monkeypatch.setattr(stranded, "BACK_DUE", 15.0)
    path = house.state / "calls" / UUID
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"lost_at": document["lost_at"] - 20}))
    for uptime, exists in (("2", "false"), ("2", "true")):
        with switch(house, "another", exists, uptime):
            look(house)
        assert house.posts() == [] and left(house) == [UUID]
    with switch(house, "another", uptime="15"):
        look(house)
    assert len(house.posts()) == 1


def test_a_call_that_may_still_come_back_is_waited_for(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stranded, "BACK_DUE", 60.0)
    first = lost(house)
    look(house)
    assert house.posts() == []
    second = house.restarted(first)
    second.wait(lambda: second.displaced)
    assert left(house) == []
    second.ends()
    second.wait_stage("held")


@pytest.mark.parametrize("why", ["no password", "wrong password", "another host", "silent"])
def test_where_nobody_can_tell_it_is_said_once_and_nothing_is_done(house: House, why: str) -> None:
    with InboundSwitch() as inbound:
        password = {"no password": None, "wrong password": Secret("wrong")}.get(why, Secret(PASSWORD))
        host = "192.0.2.1" if why == "another host" else "127.0.0.1"
        house.event_socket = (Address(ip_address(host), inbound.port), password)
        inbound.holds(house.controller.config, Spoiled(manners="silent" if why == "silent" else None))
        lost(house)
        looker = StrandedCalls(house.controller)
        with capture_logs() as told:
            looker.look()
            looker.look()
    assert [line["event"] for line in told] == ["call_perhaps_stranded"]
    assert told[0]["remedy"] and PASSWORD not in json.dumps(told)
    assert house.posts() == []
    assert left(house) == [UUID]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ECONNRESET])
def test_only_a_port_that_nobody_has_says_that_freeswitch_is_away(
    house: House, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is full, a network that is cut: FreeSWITCH may live, and have the call."""
    lost(house)

    def connect(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("eslbot.esl.inbound.socket.create_connection", connect)
    with capture_logs() as told:
        look(house)
    assert [line["event"] for line in told] == ["call_perhaps_stranded"]
    assert house.posts() == [] and left(house) == [UUID]


def test_two_workers_that_look_are_one_notification(house: House) -> None:
    lost(house)
    lookers = [StrandedCalls(house.controller) for _ in range(4)]
    gevent.joinall([gevent.spawn(looker.look) for looker in lookers], raise_error=True)
    eventually(lambda: not house.controller.calls)
    assert len(house.posts()) == 1


@pytest.mark.parametrize("whose", ["nobody's", "a tenant's of another configuration"])
def test_a_call_of_which_this_worker_does_not_know_whose_it_is_is_left_to_others(
    house: House, whose: str
) -> None:
    """They may be of before a reload, or behind it."""
    lost(house)
    if whose == "nobody's":
        path = house.state / "calls" / UUID
        document = json.loads(path.read_text())
        document["variables"]["eslbot_identity"] = "x.y"
        path.write_text(json.dumps(document))
    else:
        house.controller.config = replace(house.controller.config, workspaces={})
    with capture_logs() as told:
        look(house)
    assert [line["event"] for line in told] == ["call_perhaps_stranded"]
    assert house.posts() == [] and left(house) == [UUID]


@pytest.mark.parametrize("told", [True, False], ids=["a hang-up is told", "the connection ends"])
@pytest.mark.parametrize("later", [False, True], ids=["the first controller", "one behind it"])
def test_a_recovered_call_that_freeswitch_drops_is_handed_off_at_once(
    house: House, told: bool, later: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its PBX has refused the re-INVITE: there was no BYE."""
    monkeypatch.setattr(stranded, "BACK_DUE", 60.0)
    with switch(house, "2"):
        second = house.restarted(lost(house))
        second.wait(lambda: second.displaced)
        if later:
            second = house.taken_over(second, {"Core-UUID": "2"})
            second.wait(lambda: second.variables.get("eslbot_take_overs") == "2")
        if told:
            second.hang_up("recv_refuse", "RECOVERY_ON_TIMER_EXPIRE")
            second.wait_closed()
        else:
            second.lose_controller()
        eventually(lambda: not house.controller.calls)
        look(house)
    (post,) = house.posts()
    assert post["properties"]["outcome"] == "switch_lost"


def test_a_recovered_call_whose_freeswitch_dies_again_may_come_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stranded, "BACK_DUE", 60.0)
    second = house.restarted(lost(house))
    second.wait(lambda: second.displaced)
    second.lose_controller()
    eventually(lambda: not house.controller.calls)
    look(house)
    assert house.posts() == [] and left(house) == [UUID]


def test_a_recovered_call_whose_next_freeswitch_is_just_starting_may_come_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its event socket answers before it takes up its calls."""
    monkeypatch.setattr(stranded, "BACK_DUE", 60.0)
    with switch(house, "3"):
        second = house.restarted(lost(house))
        second.wait(lambda: second.displaced)
        second.lose_controller()
        eventually(lambda: not house.controller.calls)
        look(house)
    assert house.posts() == [] and left(house) == [UUID]


def test_a_recovered_call_that_its_pbx_ends_is_over(house: House) -> None:
    second = house.restarted(lost(house))
    second.wait(lambda: second.displaced)
    second.hang_up()
    second.wait_closed()
    assert left(house) == []
    look(house)
    assert house.posts() == []


def test_what_was_left_of_a_call_that_somebody_has_is_gone_with_it(house: House) -> None:
    """A look at it came in between: the next controller could not take it."""
    first = lost(house)
    with house.controller.resume_states.claim(UUID):
        second = house.restarted(first)
        second.wait(lambda: second.displaced)
    assert left(house) == [UUID]
    second.ends()
    second.wait_stage("held")
    second.hang_up()
    second.wait_closed()
    eventually(lambda: not left(house))


def test_what_a_controller_that_was_late_has_left_is_gone_with_the_call(house: House) -> None:
    """It has noticed when another one had the call already: that one knows how it has ended."""
    first = lost(house)
    late = house.controller.resume_states.take(UUID)
    assert late is not None
    second = house.restarted(first)
    second.wait(lambda: second.displaced)
    house.controller.resume_states.save(UUID, late)
    second.ends()
    second.wait_stage("held")
    second.hang_up()
    second.wait_closed()
    eventually(lambda: not house.controller.calls)
    look(house)
    assert (len(house.posts()), left(house)) == (1, [])
