"""A controller goes away in mid-call, and another goes on from what is on the channel."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import gevent
import pytest
import structlog

from eslbot.caller.identity import Signer
from eslbot.caller.invite import Invite
from eslbot.ledger.facts import What
from eslbot.relay.control import CALL, IDENTITY, PART, News, Order, Part
from eslbot.telemetry import metrics
from tests.component.esl.conftest import AMEYO_TOKEN, OTHER, House
from tests.support.ameyo_server import Answer
from tests.support.peer import eventually
from tests.support.switch import CRT, DID, INVITE, SIGNER, UUID, WORKSPACE, Channel


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.calls.hand_off.DOUBT", 0.2)


def identity_of(channel: Channel) -> Invite | None:
    """Whose call the relay is told that it is."""
    (start,) = channel.starts
    return SIGNER.verify(start["headers"][CALL], start["headers"][IDENTITY])


def outcome(house: House, channel: Channel) -> str:
    channel.wait_stage("held")
    return str(house.posts()[-1]["properties"]["outcome"])


# -- the bot goes on --------------------------------------------------------------------------------------


def test_the_bot_keeps_its_stream_and_hears_nothing_of_it(house: House) -> None:
    first = house.talking()
    second = house.taken_over(first)
    second.wait(lambda: second.relay.told(Order.HELLO))
    second.ends({"summary": "billing"})
    assert outcome(house, second) == "bot_ended"
    assert second.starts == []
    assert "displace start" not in second.story
    assert second.stages == ["ended", "handing_off", "held"]
    assert second.variables["eslbot_take_overs"] == "1"
    third = house.taken_over(second)
    third.wait(lambda: third.variables["eslbot_take_overs"] == "2")
    assert len(house.posts()) == 1


def test_an_end_that_fell_into_the_gap_is_recovered(house: House) -> None:
    first = house.talking()
    first.lose_controller()
    first.relay.lost = True
    first.ends({"summary": "billing"})
    first.relay.lost = False
    second = house.taken_over(first)
    assert outcome(house, second) == "bot_ended"
    assert house.posts()[-1]["properties"]["summary"] == "billing"
    assert house.told(What.BOT_ENDED)["outcome"] == "bot_ended"


def test_a_stream_that_is_gone_is_started_anew(house: House) -> None:
    first = house.talking()
    first.attached = False
    second = house.taken_over(first)
    second.wait(lambda: second.starts)
    assert second.starts[0]["headers"][PART] == Part.UNDER_WAY
    second.ends()
    assert outcome(house, second) == "bot_ended"


@pytest.mark.parametrize("attached", [True, False], ids=["a stream", "no stream"])
@pytest.mark.parametrize("stage", ["", "admitted", "answered", "connecting", "nonsense"])
def test_a_bot_that_was_not_there_yet_is_connected(house: House, stage: str, attached: bool) -> None:
    channel = house.call({"eslbot_stage": stage}, answered=True)
    channel.attached = attached  # a start whose outcome nobody has seen
    channel.wait_stage("talking")
    assert [start["headers"][PART] for start in channel.starts] == ([] if attached else [Part.NEW])
    assert house.counts.total(WORKSPACE) == 1


def test_the_time_of_a_call_goes_on(house: House) -> None:
    house.workspace = replace(house.workspace, max_duration=60.0)
    answered, now = 1_700_000_000_000_000, 1_700_000_059_800_000
    times = {"Event-Date-Timestamp": str(now), "Caller-Channel-Answered-Time": str(answered)}
    channel = house.call({"eslbot_stage": "talking"}, times, answered=True)
    channel.attached = True
    assert outcome(house, channel) == "max_duration"


def test_a_refused_subscription_leaves_the_call_to_the_next(house: House) -> None:
    channel = house.call({"eslbot_stage": "held"}, answered=True)
    channel.mute = ("event", "api")
    channel.wait(lambda: any(command.startswith("event") for command in channel.commands))
    channel.peer.send(b"Content-Type: command/reply\nReply-Text: -ERR no keywords supplied\n\n")
    channel.wait_closed()


# -- the hand-off goes on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["customer asked", ""])
def test_a_hand_off_goes_on_with_what_the_bot_said(house: House, reason: str) -> None:
    house.ameyo.answers[:] = [Answer(500)]
    first = house.talking()
    first.ends({"summary": "billing"}, reason)
    first.wait(lambda: "eslbot_next_attempt" in first.variables)
    first.lose_controller()
    eventually(lambda: not house.controller.calls)
    house.ameyo.answers[:] = [Answer(200)]
    second = house.taken_over(first)
    second.wait_stage("held")
    before, after = house.posts()[0], house.posts()[-1]
    assert after == before
    assert after["properties"] == {
        "summary": "billing",
        "DID": DID,
        "outcome": "bot_ended",
        "why": reason,
        "call": UUID,
    }
    assert second.starts == []
    assert int(second.variables["eslbot_attempts"]) == len(house.posts())


@pytest.mark.parametrize("stage", ["ended", "handing_off", "held"])
def test_what_the_controller_before_has_left_on_the_channel_is_taken_off(house: House, stage: str) -> None:
    paths = [f"/var/lib/eslbot/lines/{UUID}.{name}.r8" for name in "ab"]
    found = {"eslbot_stage": stage, "eslbot_outcome": "bot_ended", "eslbot_lines": " ".join(paths)}
    channel = house.call(found, answered=True)
    channel.attached, channel.displaced = True, list(paths)
    channel.relay.bot, channel.relay.done = "over", True
    channel.wait(lambda: not channel.attached and not channel.displaced)
    channel.wait_stage("held") if stage != "held" else None
    assert channel.starts == []


def test_a_retry_after_is_waited_for_by_the_next_controller(house: House) -> None:
    house.ameyo.answers[:] = [Answer(503, headers={"Retry-After": "1"}), Answer(200)]
    first = house.talking()
    first.ends()
    first.wait(lambda: "eslbot_next_attempt" in first.variables)
    second = house.taken_over(first)
    second.wait_stage("held")
    earlier, later = house.ameyo.requests
    assert later.at - earlier.at >= 0.95


def test_a_post_whose_answer_nobody_noted_waits_for_the_bye(house: House) -> None:
    doubts = metrics.IN_DOUBT.labels("acme")._value.get()
    variables = {"eslbot_stage": "handing_off", "eslbot_outcome": "bot_ended", "eslbot_properties": "{}"}
    channel = house.call({**variables, "eslbot_attempts": "3"}, answered=True)
    channel.wait_stage("handing_off")
    channel.hang_up()
    channel.wait_closed()
    assert house.ameyo.requests == []
    assert metrics.IN_DOUBT.labels("acme")._value.get() == doubts + 1


def test_a_post_whose_answer_nobody_noted_is_repeated_at_last(house: House) -> None:
    variables = {"eslbot_stage": "handing_off", "eslbot_outcome": "bot_ended", "eslbot_properties": "{}"}
    with structlog.testing.capture_logs() as lines:
        channel = house.call({**variables, "eslbot_attempts": "3"}, answered=True)
        channel.wait_stage("held")
    assert len(house.posts()) == 1
    (accepted,) = [line for line in lines if line["event"] == "hand_off_accepted"]
    assert accepted["attempt"] == 4


def test_a_hand_off_whose_notes_are_broken_is_one_all_the_same(house: House) -> None:
    variables = {"eslbot_stage": "handing_off", "eslbot_outcome": "bot_ended", "eslbot_properties": "{"}
    variables |= {"eslbot_attempts": "many", "eslbot_next_attempt": "soon", "eslbot_take_overs": "-1"}
    channel = house.call(variables, answered=True)
    channel.wait_stage("held")
    assert house.posts()[0]["properties"]["outcome"] == "controller_lost"


def test_a_call_that_was_accepted_is_not_handed_off_again(house: House) -> None:
    with structlog.testing.capture_logs() as lines:
        variables = {
            "eslbot_stage": "held",
            "eslbot_outcome": "bot_ended",
            "eslbot_reason": "done",
            "eslbot_properties": "{}",
        }
        channel = house.call(variables, answered=True)
        channel.wait(lambda: any(command.startswith("event ") for command in channel.story))
        channel.hang_up()
        channel.wait_closed()
        eventually(lambda: not house.controller.calls)
    assert house.ameyo.requests == []
    (line,) = [line for line in lines if line["event"] == "call_ended"]
    assert (line["outcome"], line["stage"], line["handed_off"]) == ("bot_ended", "held", True)
    assert line["take_overs"] == 1


def test_a_call_that_was_not_answered_begins_again(house: House) -> None:
    channel = house.call({"eslbot_stage": "admitted"})
    channel.wait_stage("talking")
    assert channel.stages == ["admitted", "answered", "connecting", "talking"]


def test_no_limit_sends_an_answered_call_away(house: House) -> None:
    house.max_calls = 1
    house.talking()
    house.controller.draining = True
    channel = house.call({"eslbot_stage": "connecting"}, answered=True)
    channel.wait_stage("talking")


# -- whose call it is -------------------------------------------------------------------------------------

#: What an ACK, a re-INVITE or an UPDATE of the PBX can make of a channel's variables.
REWRITTEN = [
    {"sip_from_display": ""},
    {"sip_from_display": "Alice"},
    {"sip_from_display": "0049301234567|somebody-elses"},
    {"sip_from_user": "somebody", "sip_to_user": "else"},
    {"sip_h_X-Workspace-ID": OTHER},
    {"sip_h_X-Workspace-ID": "", "sip_h_x-workspace-id": OTHER},
    {"sip_network_ip": "127.0.0.77"},
]


@pytest.mark.parametrize("rewritten", REWRITTEN)
@pytest.mark.parametrize("stage", ["connecting", "talking", "ended", "handing_off"])
def test_nothing_that_a_pbx_sends_later_changes_whose_call_it_is(
    house: House, rewritten: dict[str, str], stage: str
) -> None:
    house.with_another_tenant()
    over = (
        {"eslbot_outcome": "bot_ended", "eslbot_properties": "{}"}
        if stage in ("ended", "handing_off")
        else {}
    )
    channel = house.call({"eslbot_stage": stage, **over, **rewritten}, answered=True)
    if not over:
        channel.wait(lambda: channel.displaced)
        assert identity_of(channel) == INVITE
        channel.ends()
    channel.wait_stage("held")
    (request,) = house.ameyo.requests
    assert (request.header("Authorization"), request.header("Host")) == ([AMEYO_TOKEN], ["acme.ameyo.app"])
    assert json.loads(request.body)["uniqueId"] == CRT
    told = house.told(What.TAKEN_OVER)
    assert (told["workspace"], told["workspace_id"], told["crt_object_id"]) == ("acme", WORKSPACE, CRT)
    assert (told["did"], told["caller"], told["called"], told["source"]) == (
        DID,
        "0401234567",
        "bot",
        "127.0.0.1",
    )


FORGED = [
    pytest.param("", id="none"),
    pytest.param("nonsense", id="nonsense"),
    pytest.param(Signer([bytes(32)]).sign(INVITE), id="another key"),
    pytest.param(
        SIGNER.sign(replace(INVITE, call_id="6e7cd1a1-0b1a-4ad5-8a2c-00000000000f")), id="another channel"
    ),
    pytest.param(SIGNER.sign(INVITE).swapcase(), id="changed"),
]


@pytest.mark.parametrize("token", FORGED)
@pytest.mark.parametrize("stage", ["answered", "talking", "handing_off", "held"])
def test_an_answered_channel_without_our_signature_gets_nothing_and_is_kept(
    house: House, token: str, stage: str
) -> None:
    """No bot, no token, no refusal, no hang-up; and an alarm that says what to do."""
    unverified = metrics.NOT_VERIFIED._value.get()
    with structlog.testing.capture_logs() as lines:
        channel = house.call({"eslbot_stage": stage, "eslbot_identity": token}, answered=True)
        channel.wait(lambda: "set eslbot_take_overs" in channel.story)
        eventually(lambda: [line for line in lines if line["event"] == "identity_not_verified"])
        channel.ends()
        channel.event("DTMF", {"DTMF-Digit": "1"})
        gevent.sleep(0.1)  # in which a command that must not come would
        assert not channel._greenlet.ready()
        assert metrics.CALLS_NOT_VERIFIED._value.get() == 1
        assert (channel.applications, channel.stages, channel.starts) == ([], [], [])
        channel.hang_up()
        channel.wait_closed()
        eventually(lambda: not house.controller.calls)
    (line,) = [line for line in lines if line["event"] == "identity_not_verified"]
    assert line["log_level"] == "error" and "server.key_file" in line["remedy"]
    assert [line["event"] for line in lines if line["event"] == "call_ended"] == ["call_ended"]
    assert metrics.NOT_VERIFIED._value.get() == unverified + 1
    assert metrics.CALLS_NOT_VERIFIED._value.get() == 0
    assert house.told(What.NOT_VERIFIED)["take_overs"] == 1
    assert house.ameyo.requests == []
    assert house.counts.total(WORKSPACE) == 0


def test_a_call_whose_key_comes_later_goes_on(house: House) -> None:
    """The remedy of the alarm: the key of the other host, and a reload."""
    house.signer = Signer([bytes(32)])
    channel = house.call({"eslbot_stage": "talking"}, answered=True)
    channel.wait(lambda: "set eslbot_take_overs" in channel.story)
    house.signer, house._controller = Signer([bytes(32), bytes(range(32))]), None
    channel.attached = True
    again = house.taken_over(channel)
    again.wait(lambda: again.relay.told(Order.HELLO))
    again.ends()
    again.wait_stage("held")
    assert house.posts()[0]["uniqueId"] == CRT


def test_a_call_whose_workspace_is_gone_is_kept(house: House) -> None:
    stranger = replace(INVITE, workspace_id=OTHER)
    with structlog.testing.capture_logs() as lines:
        variables = {"eslbot_stage": "talking", "eslbot_identity": SIGNER.sign(stranger)}
        channel = house.call(variables, answered=True)
        eventually(lambda: [line for line in lines if line["event"] == "workspace_gone"])
        channel.hang_up()
        channel.wait_closed()
    assert house.ameyo.requests == []
    assert house.told(What.TAKEN_OVER)["workspace_id"] == OTHER


def test_a_call_whose_workspace_was_removed_goes_on_with_what_it_was(house: House) -> None:
    config = house.controller.config
    house.controller.config = replace(config, workspaces={}, former=config.workspaces)
    with structlog.testing.capture_logs() as lines:
        variables = {"eslbot_stage": "talking", "eslbot_identity": SIGNER.sign(INVITE)}
        channel = house.call(variables, answered=True)
        channel.wait(lambda: channel.relay.told(Order.HELLO) or channel.starts)
        assert house.counts.total(WORKSPACE) == 1, "it is counted, or nobody would know that it is needed"
        channel.ends()
        channel.wait_stage("held")
        channel.hang_up()
        channel.wait_closed()
    assert house.posts()[0]["uniqueId"] == CRT
    assert house.told(What.TAKEN_OVER)["workspace"] == "acme"
    assert [line for line in lines if line["event"] == "workspace_gone"] == []
    refused = house.call({"eslbot_identity": SIGNER.sign(INVITE)})
    refused.wait(lambda: "respond 403 Forbidden" in refused.story)


def test_who_was_admitted_and_not_answered_is_asked_no_more(house: House) -> None:
    """The worker died between its admission and the answer; an UPDATE came in between."""
    channel = house.call({"eslbot_identity": SIGNER.sign(INVITE), "sip_from_display": "Alice"})
    channel.wait_stage("talking")
    assert identity_of(channel) == INVITE


# -- a BYE that does not come -----------------------------------------------------------------------------


def figure(gauge: metrics.Gauge) -> float:
    return float(gauge.labels("acme")._value.get())


def overdue(lines: list[Any]) -> list[Any]:
    return [line for line in lines if line["event"] == "bye_overdue"]


def test_a_bye_that_does_not_come_is_an_alarm_and_nothing_else(house: House) -> None:
    house.workspace = replace(house.workspace, ameyo=replace(house.rest, bye_timeout=0.2))
    channel = house.talking()
    with structlog.testing.capture_logs() as lines:
        channel.ends()
        channel.wait(lambda: len(overdue(lines)) >= 2)
        assert figure(metrics.CALLS_BYE_OVERDUE) == 1
        # Another controller has it, and knows that it is overdue before that is an alarm again.
        house.workspace = replace(house.workspace, ameyo=replace(house.rest, bye_timeout=0.2))
        second = house.taken_over(channel)
        second.wait(lambda: figure(metrics.CALLS_BYE_OVERDUE) == 1)
        second.hang_up()
        second.wait_closed()
        eventually(lambda: not house.controller.calls)
    assert figure(metrics.CALLS_BYE_OVERDUE) == 0
    assert len(house.posts()) == 1
    assert [application for application, _ in channel.applications] == ["answer"]


def test_an_alarm_is_told_once_whoever_has_the_call(house: House) -> None:
    house.workspace = replace(house.workspace, ameyo=replace(house.rest, bye_timeout=60.0))
    variables = {"eslbot_stage": "held", "eslbot_outcome": "bot_ended", "eslbot_properties": "{}"}
    variables["eslbot_held_at"] = "10.0"
    with structlog.testing.capture_logs() as lines:
        channel = house.call(variables, answered=True, age=100.0)
        channel.wait(lambda: "set eslbot_take_overs" in channel.story)
        gevent.sleep(0.1)  # in which the second alarm that must not come would
        assert overdue(lines) == []
        second = house.call(channel.variables, answered=True, age=129.8)
        second.wait(lambda: len(overdue(lines)) == 1)


@pytest.mark.slow
@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_step_of_the_hosts_clock_is_no_alarm(
    house: House, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """Forward it was an alarm, and with ``renotify`` a POST, for each minute of the step, without a pause."""
    house.workspace = replace(house.workspace, ameyo=replace(house.rest, bye_timeout=1.0, renotify=True))
    channel = house.talking()
    with structlog.testing.capture_logs() as lines:
        channel.ends()
        channel.wait_stage("held")
        real = time.time
        monkeypatch.setattr("time.time", lambda: real() + step)
        channel.wait(lambda: overdue(lines))
        assert overdue(lines)[0]["held_for"] < 5
        gevent.sleep(0.2)  # in which the next hundred would come
        assert len(overdue(lines)) == 1
        again = house.taken_over(channel)
        again.wait(lambda: len(overdue(lines)) == 2)
        again.hang_up()
        again.wait_closed()
    assert len(house.posts()) <= 3


def test_ameyo_may_be_told_again(house: House) -> None:
    house.workspace = replace(house.workspace, ameyo=replace(house.rest, bye_timeout=0.2, renotify=True))
    channel = house.talking()
    channel.ends()
    channel.wait(lambda: len(house.posts()) >= 3)
    assert house.posts()[0] == house.posts()[2]
    channel.hang_up()
    channel.wait_closed()


def test_a_pbx_that_vanished_is_counted_apart(house: House) -> None:
    alarms = metrics.SEND_BYE._value.get()
    vanished = metrics.MEDIA_TIMEOUTS.labels("acme")._value.get()
    channel = house.talking()
    with structlog.testing.capture_logs() as lines:
        channel.hang_up("send_bye", "MEDIA_TIMEOUT")
        channel.wait_closed()
        eventually(lambda: not house.controller.calls)
    (line,) = [line for line in lines if line["event"] == "call_ended"]
    assert (line["outcome"], line["log_level"]) == ("media_timeout", "warning")
    assert metrics.SEND_BYE._value.get() == alarms
    assert metrics.MEDIA_TIMEOUTS.labels("acme")._value.get() == vanished + 1


# -- a worker that leaves ---------------------------------------------------------------------------------


def test_a_leaving_worker_gives_its_calls_away(house: House) -> None:
    channel = house.talking()
    channel.wait_stage("talking")
    with structlog.testing.capture_logs() as lines:
        house.controller.hand_over(0.0)
        channel.wait_closed()
    assert channel.story[-1] == "noevents"
    assert channel.attached and not channel.down
    assert [line["stage"] for line in lines if line["event"] == "call_handed_over"] == ["talking"]
    assert house.controller.calls == set()


def test_a_bot_that_is_being_connected_keeps_no_worker_and_is_dialled_once(house: House) -> None:
    channel = house.call()
    channel.relay.connects = False
    channel.wait(lambda: channel.displaced)
    house.controller.hand_over(0.0)
    assert channel.stages[-1] == "connecting"
    assert channel.attached
    house._controller = None
    second = house.taken_over(channel)
    second.wait(lambda: second.relay.told(Order.HELLO))
    second.relay.tells(News.CONNECTED)
    second.wait_stage("talking")
    assert second.starts == []


def test_a_bye_that_is_due_finds_its_controller(house: House) -> None:
    channel = house.talking()
    channel.ends()
    channel.wait_stage("held")
    leaving = gevent.spawn(house.controller.hand_over, 0.0)
    gevent.sleep(0.2)  # in which a controller that must stay would have gone
    channel.hang_up()
    leaving.get(timeout=2)
    assert "noevents" not in channel.story


@pytest.mark.slow
def test_a_post_that_is_under_way_is_noted_first(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.ameyo.answers[:] = [Answer(200, write=_slowly)]
    channel = house.talking()
    channel.ends()
    channel.wait(lambda: house.ameyo.requests)
    house.controller.hand_over(0.0)
    channel.wait_closed()
    assert channel.variables["eslbot_stage"] == "held"
    second = house.taken_over(channel)
    second.wait(lambda: "set eslbot_take_overs" in second.story)
    gevent.sleep(0.3)  # longer than `DOUBT`: in which the second POST that must not come would
    assert len(house.posts()) == 1


def test_a_worker_may_wait_for_its_calls(house: House) -> None:
    channel = house.talking()
    leaving = gevent.spawn(house.controller.hand_over, 5.0)
    eventually(lambda: house.controller.draining)
    channel.ends()
    channel.wait_stage("held")
    channel.hang_up()
    leaving.get(timeout=2)
    assert "noevents" not in channel.story


def test_a_freeswitch_that_does_not_answer_keeps_no_worker(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = house.talking()
    channel.wait_stage("talking")
    monkeypatch.setattr("eslbot.esl.connection.TIMEOUT", 0.1)
    for call in house.controller.calls:
        call.session.timeout = 0.1
    channel.mute = ("noevents",)
    house.controller.hand_over(0.0)
    channel.wait_closed()


def _slowly(handler: Any) -> None:
    time.sleep(0.5)
    handler.send_response(200)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def test_the_crt_object_id_is_the_same_after_a_take_over(house: House) -> None:
    first = house.talking()
    second = house.taken_over(first)
    second.ends()
    second.wait_stage("held")
    assert house.posts()[-1]["uniqueId"] == CRT


@pytest.mark.parametrize("attached", [True, False], ids=["a stream", "no stream"])
def test_last_words_that_were_heard_are_not_waited_for(house: House, attached: bool) -> None:
    variables = {"eslbot_stage": "ended", "eslbot_outcome": "bot_ended", "eslbot_properties": "{}"}
    channel = house.call(variables, answered=True)
    channel.attached = attached
    channel.relay.bot, channel.relay.done = "over", True
    assert outcome(house, channel) == "bot_ended"
    assert not channel.attached


def test_last_words_are_heard_though_controller_and_relay_die_in_them(house: House) -> None:
    variables = {
        "eslbot_stage": "ended",
        "eslbot_outcome": "bot_ended",
        "eslbot_properties": '{"summary": "x"}',
    }
    channel = house.call(variables, answered=True)
    channel.relay.speaks = True
    channel.wait(lambda: channel.displaced)
    assert channel.starts[0]["headers"][PART] == Part.OVER
    gevent.sleep(0.05)  # in which a hand-off that comes too soon would
    assert house.posts() == []
    channel.relay.is_done()
    assert outcome(house, channel) == "bot_ended"
    assert house.posts()[0]["properties"]["summary"] == "x"


def test_a_fault_that_repeats_itself_does_not_spin(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("eslbot.server.controller.FAULT_PAUSE", 0.3)
    monkeypatch.setattr("eslbot.calls.call.Call.hand_off", fail)
    faults = metrics.INTERNAL_ERRORS._value.get()
    variables = {"eslbot_stage": "handing_off", "eslbot_outcome": "bot_ended", "eslbot_properties": "{}"}
    began = time.monotonic()
    channel = house.call(variables, answered=True)
    channel.wait_closed()
    assert time.monotonic() - began >= 0.3
    assert metrics.INTERNAL_ERRORS._value.get() == faults + 1
