"""Calls that do not come back behind FreeSWITCH's death: their customers go to an agent all the same."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import gevent
import pytest
from structlog.testing import capture_logs

from eslbot import metrics, stranded
from eslbot.config.model import Address, Secret
from eslbot.ledger.facts import What
from eslbot.stranded import Stranded
from tests.esl.conftest import House
from tests.support.inbound_switch import PASSWORD, InboundSwitch, Spoiled
from tests.support.peer import eventually
from tests.support.switch import UUID, Channel

CORE = "7b0e8f0a-0000-4000-8000-000000000001"


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stranded, "BACK_DUE", 0.0)
    monkeypatch.setattr(stranded, "ASK_DUE", 0.5)


@contextmanager
def switch(house: House, core: str, exists: str = "false") -> Iterator[InboundSwitch]:
    """A FreeSWITCH that can be asked for the call."""
    with InboundSwitch() as inbound:
        house.event_socket = (Address(ip_address("127.0.0.1"), inbound.port), Secret(PASSWORD))
        replies = {f"uuid_exists {UUID}": exists, "global_getvar core_uuid": core}
        inbound.holds(house.controller.config, Spoiled(replies=replies))
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
    """Once, and until it is over."""
    before = set(house.controller.survival.lost())
    looker = Stranded(house.controller)
    gevent.joinall([gevent.spawn(looker._see_to, call_id) for call_id in before], timeout=5, raise_error=True)


@pytest.mark.parametrize("alive", [True, False], ids=["another FreeSWITCH", "none"])
def test_a_call_that_freeswitch_has_lost_is_handed_off(house: House, alive: bool) -> None:
    before = metrics.CALLS_STRANDED.labels("acme")._value.get()
    if alive:
        with switch(house, "another"):
            lost(house)
            look(house)
    else:
        lost(house)
        look(house)
    (post,) = house.posts()
    assert post["properties"]["outcome"] == "switch_lost"
    assert "did not come back" in post["properties"]["why"]
    assert left(house) == []
    assert metrics.CALLS_STRANDED.labels("acme")._value.get() == before + 1
    assert house.told(What.BOT_ENDED)["outcome"] == "switch_lost"
    assert house.told(What.ATTEMPT)["verdict"] == "accepted"


def test_what_the_bot_had_said_at_its_end_is_told(house: House) -> None:
    lost(house, "ended")
    look(house)
    (post,) = house.posts()
    assert (post["properties"]["outcome"], post["properties"]["summary"]) == ("bot_ended", "billing")


def test_a_customer_whom_ameyo_has_accepted_is_not_told_again(house: House) -> None:
    lost(house, "held")
    look(house)
    assert len(house.posts()) == 1
    assert left(house) == []


@pytest.mark.parametrize(("core", "exists"), [(CORE, "false"), (CORE, "true"), ("another", "true")])
def test_a_call_that_has_ended_or_that_somebody_has_is_left_alone(
    house: House, core: str, exists: str
) -> None:
    with switch(house, core, exists):
        lost(house)
        look(house)
    assert house.posts() == []
    assert left(house) == []


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
        looker = Stranded(house.controller)
        with capture_logs() as told:
            looker._see_to(UUID)
            looker._see_to(UUID)
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
    lookers = [Stranded(house.controller) for _ in range(4)]
    gevent.joinall([gevent.spawn(looker._see_to, UUID) for looker in lookers], raise_error=True)
    assert len(house.posts()) == 1


def test_a_call_that_is_nobodys_is_forgotten(house: House) -> None:
    lost(house)
    path = house.state / "calls" / UUID
    document = json.loads(path.read_text())
    document["variables"]["eslbot_identity"] = "x.y"
    path.write_text(json.dumps(document))
    look(house)
    assert house.posts() == [] and left(house) == []


@pytest.mark.parametrize("told", [True, False], ids=["a hang-up is told", "the connection ends"])
def test_a_recovered_call_that_freeswitch_drops_is_handed_off_at_once(
    house: House, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its PBX has refused the re-INVITE: there was no BYE."""
    monkeypatch.setattr(stranded, "BACK_DUE", 60.0)
    with switch(house, "2"):
        second = house.restarted(lost(house))
        second.wait(lambda: second.displaced)
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
    with house.controller.survival.claim(UUID):
        second = house.restarted(first)
        second.wait(lambda: second.displaced)
    assert left(house) == [UUID]
    second.ends()
    second.wait_stage("held")
    second.hang_up()
    second.wait_closed()
    eventually(lambda: not left(house))
