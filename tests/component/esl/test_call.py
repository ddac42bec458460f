"""The whole story of a call in this process: FreeSWITCH's end of a real socket, an Ameyo over HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network

import gevent
import pytest
import structlog

from eslbot.ameyo.client import AmeyoClient
from eslbot.calls.call import INFORMATIONAL
from eslbot.config.model import Edge, loopback
from eslbot.esl.session import Session
from eslbot.ledger.facts import What
from eslbot.relay import control
from eslbot.relay.control import CALL, IDENTITY, PART, PTIME, SWITCH, News, Order, Part
from eslbot.server import controller as controller_module
from eslbot.telemetry import metrics
from tests.component.esl.conftest import AMEYO_TOKEN, BOT_TOKEN, OTHER, House
from tests.support import wire
from tests.support.ameyo_server import Answer
from tests.support.peer import eventually, tcp_pair
from tests.support.switch import CRT, DID, INVITE, SIGNER, UUID, WORKSPACE, Channel

EDGE = Edge(ip_address("127.0.0.20"), 5060, 5070, None, (loopback(5062),), (ip_address("127.0.0.20"),))

# -- the story --------------------------------------------------------------------------------------------


def test_the_whole_story_in_order(house: House) -> None:
    channel = house.talking()
    channel.ends({"summary": "billing"})
    channel.wait_stage("held")
    channel.hang_up()
    channel.wait_closed()
    assert channel.story == [
        "connect",
        "get sip_from_display",
        "linger 5",
        f"filter Unique-ID {UUID}",
        "event plain CHANNEL_EXECUTE_COMPLETE CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE BACKGROUND_JOB "
        "DTMF RECV_INFO CUSTOM sofia::reinvite "
        "mod_audio_stream::connect mod_audio_stream::disconnect mod_audio_stream::error "
        "mod_audio_stream::json",
        "set eslbot_take_overs",
        "set eslbot_identity",
        "stage admitted",
        "set eslbot_switch",
        "answer at once",
        "answer",
        "stage answered",
        *(f"unset {name}" for name in INFORMATIONAL),
        "stage connecting",
        "set STREAM_MESSAGE_DEFLATE",
        "set STREAM_HEART_BEAT",
        "set STREAM_SUPPRESS_LOG",
        "set STREAM_EXTRA_HEADERS",
        "stream start",
        "unset STREAM_EXTRA_HEADERS",
        "unset STREAM_MESSAGE_DEFLATE",
        "unset STREAM_HEART_BEAT",
        "unset STREAM_SUPPRESS_LOG",
        "set eslbot_lines",
        "displace start",
        "displace start",
        "stage talking",
        "set eslbot_properties",
        "set eslbot_reason",
        "set eslbot_outcome",
        "stage ended",
        "stream send_text",  # the end is acknowledged,
        "stream send_text",  # and that its last word was heard;
        "stream send_text",  # stop
        "stream stop",
        "displace stop",
        "displace stop",
        "unset eslbot_lines",
        "stage handing_off",
        "set eslbot_attempts",
        "unset eslbot_next_attempt",
        "set eslbot_held_at",
        "stage held",
    ]
    stages = ["admitted", "answered", "connecting", "talking", "ended", "handing_off", "held"]
    assert channel.stages == stages
    assert len(house.posts()) == 1


def test_an_attempt_is_on_the_wire_before_its_post(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = house.talking()
    on_the_wire: dict[str, bool] = {}
    monkeypatch.setattr(
        house, "append", lambda call, what, *_: on_the_wire.setdefault(what, channel.peer.has_data())
    )
    channel.wait_stage("talking")
    channel.ends()
    channel.wait_stage("held")
    # The channel's greenlet has read nothing in between: the story's has not waited.
    assert (on_the_wire["attempt_began"], on_the_wire["attempt"]) == (True, True)


def test_what_ameyo_is_told(house: House) -> None:
    channel = house.talking()
    channel.ends({"summary": "x", "DID": "the bot's"}, "customer asked", dropped=("secret", "score"))
    with structlog.testing.capture_logs() as lines:
        channel.wait_stage("held")
    (request,) = house.ameyo.requests
    assert json.loads(request.body) == {
        "notificationId": "95",
        "uniqueId": CRT,
        "callResponse": True,
        "sessionId": "na",
        "properties": {
            "summary": "x",
            "DID": DID,
            "outcome": "bot_ended",
            "why": "customer asked",
            "call": UUID,
        },
    }
    assert request.header("Authorization") == [AMEYO_TOKEN]
    assert request.header("Host") == ["acme.ameyo.app"]
    assert channel.variables["eslbot_outcome"] == "bot_ended"
    assert channel.variables["eslbot_reason"] == "customer asked"
    assert json.loads(channel.variables["eslbot_properties"]) == {"summary": "x", "DID": "the bot's"}
    (dropped,) = [line for line in lines if line["event"] == "bot_properties_dropped"]
    assert dropped["names"] == ["secret", "score"]


def test_what_the_relay_is_told(house: House) -> None:
    channel = house.talking()
    (start,) = channel.starts
    assert start["url"] == "ws://127.0.0.1:1/"
    assert start["rest"] == ["mono", "8000"]
    headers = start["headers"]
    assert set(headers) == {IDENTITY, CALL, PART, PTIME, SWITCH}
    assert SIGNER.verify(headers[CALL], headers[IDENTITY]) == INVITE
    assert headers[PART] == Part.NEW
    assert headers[PTIME] == "20"
    assert {"STREAM_MESSAGE_DEFLATE", "STREAM_HEART_BEAT"} < set(start["settings"])
    assert start["settings"]["STREAM_SUPPRESS_LOG"] == "true"
    assert BOT_TOKEN not in json.dumps(channel.commands), "FreeSWITCH never has the bot's token"
    channel.ends()
    channel.wait_stage("held")
    assert channel.relay.orders[-1] == {"order": "stop", "reason": "ended", "ack": 3}
    assert "STREAM_EXTRA_HEADERS" not in channel.variables, "every event would carry it"


def test_the_stream_is_not_started_before_the_answer_has_completed(house: House) -> None:
    channel = house.call()
    completed: list[str] = []
    complete = channel.complete

    def hold_answer(application: str, event_uuid: str) -> None:
        if application == "answer":
            completed.append(event_uuid)
        else:
            complete(application, event_uuid)

    channel.complete = hold_answer  # type: ignore[method-assign]
    channel.wait(lambda: completed)
    # A round trip later, still nothing: what comes of our own socket is in order.
    channel.event("DTMF")
    gevent.sleep(0.05)
    assert channel.stages == ["admitted"]
    assert channel.starts == []
    complete("answer", completed[0])
    channel.wait(lambda: channel.starts)


def test_what_was_answered_before_the_completion_counts_from_there(house: House) -> None:
    second = 1_700_000_000_000_000
    before = metrics.SETUP_SECONDS.labels("acme")._sum.get()
    times = {"Caller-Channel-Created-Time": str(second), "Event-Date-Timestamp": str(second + 500_000)}
    channel = house.call(more=times)
    complete = channel.complete

    def late(application: str, event_uuid: str) -> None:
        answered = str(second + 510_000)
        complete(
            application,
            event_uuid,
            **{"Caller-Channel-Answered-Time": answered, "Event-Date-Timestamp": str(second + 900_000)},
        )

    channel.complete = late  # type: ignore[method-assign]
    channel.wait_stage("talking")
    # The INVITE was half a second before we were asked; of what came behind, 390 ms were after the 200.
    assert 0.0 < metrics.SETUP_SECONDS.labels("acme")._sum.get() - before < 0.5


@pytest.mark.parametrize("crt", ["d444-$\\{};x", "${sip_to_user}", "\\n\\s\\\\", "a{b;c}d^^:"])
def test_odd_ids_pass_through_exactly(house: House, crt: str) -> None:
    channel = house.talking({"sip_from_display": f"{DID}|{crt}"})
    headers = channel.starts[0]["headers"]
    invite = SIGNER.verify(headers[CALL], headers[IDENTITY])
    assert invite is not None and invite.crt_object_id == crt
    channel.ends()
    channel.wait_stage("held")
    assert house.posts()[0]["uniqueId"] == crt


@pytest.mark.parametrize("name", ["X-Workspace-ID", "x-workspace-id", "X-WORKSPACE-ID", "x-Workspace-Id"])
def test_the_workspace_header_in_any_case(house: House, name: str) -> None:
    channel = house.call()
    del channel.variables["sip_h_X-Workspace-ID"]
    channel.variables[f"sip_h_{name}"] = WORKSPACE.upper()
    channel.wait_stage("talking")


# -- refusals ---------------------------------------------------------------------------------------------


def refusal(channel: Channel) -> list[tuple[str, str]]:
    channel.wait_closed()
    assert not channel.answered
    assert channel.starts == []
    return channel.applications


@pytest.mark.parametrize(
    ("variables", "response", "why"),
    [
        ({"sip_from_display": ""}, "400 Bad Request", "malformed_display_name"),
        ({"sip_from_display": DID}, "400 Bad Request", "malformed_display_name"),
        ({"sip_from_display": f"{DID}|a|b"}, "400 Bad Request", "malformed_display_name"),
        ({"sip_from_display": f"+9199901520|{CRT}"}, "400 Bad Request", "malformed_display_name"),
        ({"sip_from_display": f"{DID}|a%0AUnique-ID: evil"}, "400 Bad Request", "malformed_display_name"),
        ({"sip_from_display": f"{DID}%7C{CRT}"}, "400 Bad Request", "malformed_display_name"),
        ({"sip_h_X-Workspace-ID": "acme"}, "400 Bad Request", "malformed_workspace_header"),
        ({"sip_h_X-Workspace-ID": OTHER}, "403 Forbidden", "unknown_workspace"),
        ({"sip_network_ip": "127.0.0.2"}, "403 Forbidden", "foreign_source"),
        ({"sip_network_ip": ""}, "403 Forbidden", "foreign_source"),
    ],
)
def test_a_refusal_has_its_status_and_its_line(
    house: House, variables: dict[str, str], response: str, why: str
) -> None:
    with structlog.testing.capture_logs() as lines:
        channel = house.call(variables)
        assert refusal(channel) == [("respond", response)]
    (line,) = [line for line in lines if line["event"] == "call_refused"]
    assert (line["status"], line["why"]) == (int(response[:3]), why)
    for value in variables.values():
        assert wire.clean(value)[:10] in line["detail"] + str(line["source"])
    assert house.ameyo.requests == []


@pytest.mark.parametrize(
    ("changes", "filed_under"),
    [
        ({"sip_network_ip": "127.0.0.2"}, None),
        ({"sip_h_X-Workspace-ID": OTHER}, None),
        ({}, "acme"),
    ],
    ids=["a foreign source", "an unknown workspace", "its own source, and it is full"],
)
def test_a_refusal_is_filed_under_a_tenant_only_if_it_came_from_there(
    house: House, changes: dict[str, str], filed_under: str | None
) -> None:
    """Else anybody whom FreeSWITCH lets in could fill another tenant's list."""
    house.workspace = replace(house.workspace, max_calls=1)
    first = house.talking()
    channel = house.call(changes)
    channel.wait_closed()
    told = house.told(What.REFUSED)
    assert (told.get("workspace"), told.get("workspace_id")) == (filed_under, filed_under and WORKSPACE)
    assert told["crt_object_id"] == CRT
    first.hang_up()


@pytest.mark.parametrize(
    ("variables", "source"),
    [
        ({}, ""),
        ({"sip_h_X-Source-IP": "127.0.0.9"}, "127.0.0.9"),
        ({"sip_h_X-Source-IP": "nonsense"}, ""),
        ({"sip_h_X-Source-IP": "127.0.0.1", "sip_h_x-source-ip": "127.0.0.1"}, ""),
        ({"sip_h_X-Source-IP": "127.0.0.1", "sip_network_ip": "127.0.0.9"}, "127.0.0.9"),
    ],
    ids=["unsaid", "a foreign one", "garbage", "twice", "said by somebody else"],
)
def test_behind_an_edge_who_is_no_source_is_refused(
    house: House, variables: dict[str, str], source: str
) -> None:
    house.edge = EDGE
    with structlog.testing.capture_logs() as lines:
        channel = house.call({"sip_network_ip": str(EDGE.sip_ip), **variables})
        assert refusal(channel) == [("respond", "403 Forbidden")]
    (line,) = [line for line in lines if line["event"] == "call_refused"]
    assert (line["why"], line["source"]) == ("foreign_source", source)
    assert (source or "what the edge does not name") in line["detail"]


def test_behind_an_edge_a_source_gets_its_bot(house: House) -> None:
    house.edge = EDGE
    channel = house.talking({"sip_network_ip": str(EDGE.sip_ip), "sip_h_X-Source-IP": "127.0.0.1"})
    assert house.told(What.ADMITTED)["source"] == "127.0.0.1"
    channel.hang_up()


def test_a_call_from_before_there_was_an_edge_is_taken_over(house: House) -> None:
    """An answered call is never refused, wherever the edge of today would have it come from."""
    before = house.talking()
    house.edge, house._controller = EDGE, None
    channel = house.taken_over(before, sip_network_ip=str(EDGE.sip_ip))
    channel.wait(lambda: any(fact["what"] == What.TAKEN_OVER for fact in house.facts))
    assert house.told(What.TAKEN_OVER)["workspace"] == "acme"
    channel.hang_up()


def test_a_missing_header_is_400(house: House) -> None:
    channel = house.call()
    del channel.variables["sip_h_X-Workspace-ID"]
    assert refusal(channel) == [("respond", "400 Bad Request")]


def busy(channel: Channel, phrase: str = "Service Unavailable") -> None:
    assert refusal(channel) == [("set", "sip_rh_Retry-After=30"), ("respond", f"503 {phrase}")]


def test_a_full_worker_is_503_with_retry_after_and_takes_the_next_call(house: House) -> None:
    house.max_calls = 1
    first = house.talking()
    busy(house.call())
    first.hang_up()
    first.wait_closed()
    eventually(lambda: not house.controller.calls)
    house.talking()


def test_a_full_workspace_is_503_whoever_has_the_calls(house: House) -> None:
    house.workspace = replace(house.workspace, max_calls=3)
    other_worker = house.counts.take_row()
    for _ in range(3):
        house.counts.add(other_worker, WORKSPACE, 1)
    busy(house.call(), "Workspace Full")  # the edge goes by it
    house.counts.add(other_worker, WORKSPACE, -1)
    house.talking()
    house.counts.free_row(other_worker)


def test_a_leaving_worker_leaves_a_new_call_to_the_next(house: House) -> None:
    house.controller.draining = True
    channel = house.call()
    channel.wait_closed()
    assert (channel.applications, channel.stages) == ([], [])


def test_calls_that_come_at_once_do_not_overshoot_the_cap(house: House) -> None:
    house.max_calls = 3
    channels = [house.call(uuid=f"{UUID[:-2]}{number:02}") for number in range(10, 20)]
    for channel in channels:
        channel.wait(lambda channel=channel: channel.applications)
    eventually(lambda: sum(channel.applications[-1][0] == "respond" for channel in channels) == 7)
    assert sum(channel.answered for channel in channels) == 3


def test_a_caller_who_leaves_before_the_answer(house: House) -> None:
    channel = house.call()
    channel.mute = ("sendmsg",)
    channel.wait_stage("admitted")
    channel.hang_up("recv_cancel", "ORIGINATOR_CANCEL")
    channel.wait_closed()
    assert house.ameyo.requests == []


def test_a_peer_outside_switches_gets_nothing(house: House) -> None:
    ours, theirs = tcp_pair()
    house.controller.take(ours, ("127.0.0.2", 1))
    assert theirs.recv(10) == b""
    theirs.close()


# -- the bot's ends ---------------------------------------------------------------------------------------


def outcome(house: House, channel: Channel) -> tuple[str, str]:
    channel.wait_stage("held", 8)
    (post,) = house.posts()
    assert not channel.attached, "the stream was stopped"
    return post["properties"]["outcome"], post["properties"]["why"]


def test_a_reason_that_no_variable_takes_keeps_the_bots_properties(house: House) -> None:
    channel = house.talking()
    channel.ends({"summary": "a\0b\ud800"}, "x\0y\ud800z\nw")
    assert outcome(house, channel) == ("bot_ended", "x y z w")
    assert house.posts()[0]["properties"]["summary"] == "a\0b\ud800"
    assert json.loads(channel.variables["eslbot_properties"])["summary"] == "a\0b\ud800"


@pytest.mark.parametrize("how", ["bot_ended", "bot_closed", "bot_failed", "bot_silent", "bot_unreachable"])
def test_how_the_bots_part_ended_is_the_relays_word(house: House, how: str) -> None:
    channel = house.talking()
    channel.ends(reason="so it was", outcome=how)
    assert outcome(house, channel) == (how, "so it was")


def test_a_bot_that_is_not_there_is_a_hand_off_at_once(house: House) -> None:
    channel = house.call()
    channel.relay.connects = False
    channel.wait(lambda: channel.displaced)
    channel.ends(reason="refused", outcome="bot_unreachable")
    assert outcome(house, channel) == ("bot_unreachable", "refused")
    assert "talking" not in channel.stages


def test_the_bound_of_a_call(house: House) -> None:
    house.workspace = replace(house.workspace, max_duration=0.3)
    channel = house.talking()
    assert outcome(house, channel) == ("max_duration", "0.3 s")
    assert channel.relay.told(Order.STOP) == [{"order": "stop", "reason": "max_duration"}]


def test_the_last_word_is_heard_before_the_hand_off(house: House) -> None:
    channel = house.talking()
    channel.ends(done=False)
    channel.wait_stage("ended")
    gevent.sleep(0.05)  # in which a hand-off that comes too soon would
    assert (channel.stages[-1], channel.attached, house.ameyo.requests) == ("ended", True, [])
    assert len(channel.displaced) == 2
    channel.relay.is_done()
    assert outcome(house, channel)[0] == "bot_ended"
    assert channel.displaced == []


# -- hang-ups ---------------------------------------------------------------------------------------------


def test_a_caller_who_leaves_the_bot_is_not_handed_off(house: House) -> None:
    channel = house.talking()
    with structlog.testing.capture_logs() as lines:
        channel.hang_up()
        channel.wait_closed()
        eventually(lambda: not house.controller.calls)
    assert house.ameyo.requests == []
    (line,) = [line for line in lines if line["event"] == "call_ended"]
    assert (line["outcome"], line["handed_off"]) == ("caller_hangup", False)
    assert line["sip_hangup_disposition"] == "recv_bye"


def test_a_caller_who_leaves_in_the_last_word_is_not_handed_off(house: House) -> None:
    channel = house.talking()
    channel.ends(done=False)
    channel.wait_stage("ended")
    channel.hang_up()
    channel.wait_closed()
    assert house.ameyo.requests == []


def test_a_bye_of_ours_is_an_alarm(house: House) -> None:
    channel = house.talking()
    with structlog.testing.capture_logs() as lines:
        channel.hang_up("send_bye", "NORMAL_CLEARING")
        channel.wait_closed()
        eventually(lambda: not house.controller.calls)
    (line,) = [line for line in lines if line["event"] == "call_ended"]
    assert (line["log_level"], line["sip_hangup_disposition"]) == ("error", "send_bye")


def test_ameyo_fails_and_then_accepts(house: House) -> None:
    house.ameyo.answers[:] = [Answer(500), Answer(503), Answer(200)]
    channel = house.talking()
    channel.ends()
    channel.wait_stage("held")
    eventually(lambda: metrics.CALLS_HAND_OFF_FAILING.labels("acme")._value.get() == 0)
    assert len(house.ameyo.requests) == 3
    assert len({request.body for request in house.ameyo.requests}) == 1


def test_a_hang_up_ends_the_retries(house: House) -> None:
    house.ameyo.answers[:] = [Answer(401)]
    channel = house.talking()
    channel.ends()
    channel.wait(lambda: house.ameyo.requests)
    failing = metrics.CALLS_HAND_OFF_FAILING.labels("acme")
    channel.wait(lambda: failing._value.get() == 1)  # the customer waits now
    with structlog.testing.capture_logs() as lines:
        channel.hang_up()
        channel.wait_closed(2)
        eventually(lambda: not house.controller.calls)
    assert failing._value.get() == 0
    assert len(house.ameyo.requests) == 1
    assert "held" not in channel.stages
    (line,) = [line for line in lines if line["event"] == "call_ended"]
    assert (line["outcome"], line["handed_off"]) == ("bot_ended", False)


def test_the_line_is_held_until_the_pbx_hangs_up(house: House) -> None:
    channel = house.talking()
    channel.ends()
    channel.wait_stage("held")
    commands = len(channel.commands)
    gevent.sleep(0.2)  # in which a command that must not come would
    assert len(channel.commands) == commands
    assert not channel._greenlet.ready()
    channel.hang_up()
    channel.wait_closed()


# -- whatever fails ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["BotLeg._listen", "Link.begin", "Lines.bring", "BotLeg._over"])
def test_a_fault_of_ours_while_the_bot_talks_leads_to_the_hand_off(
    house: House, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(f"eslbot.calls.bot.leg.{where}", fail)
    with structlog.testing.capture_logs() as lines:
        channel = house.call()
        if where == "BotLeg._over":
            channel.wait_stage("talking")
            channel.ends()
        channel.wait_stage("held")
    assert house.posts()[0]["properties"]["outcome"] == "internal_error"
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["talk_failed"]
    assert not channel.attached, "the bot does not hear what is said to the agent"
    assert channel.displaced == []


def quick_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        controller_module, "Session", lambda address, sock: Session(address, sock, timeout=0.3)
    )


def test_a_freeswitch_that_does_not_answer_leads_to_the_hand_off(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_sessions(monkeypatch)
    channel = house.call()
    # Nor what goes out with it: a reply to that would be taken for the start's.
    channel.mute = (f"api uuid_audio_stream {UUID} start", f"api uuid_setvar_multi {UUID} STREAM_EXTRA")
    channel.wait_stage("held")
    assert house.posts()[0]["properties"]["outcome"] == "internal_error"


def test_nobody_waits_for_the_answer_to_a_text(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    quick_sessions(monkeypatch)
    channel = house.call()
    channel.mute = (f"api uuid_audio_stream {UUID} send",)
    channel.wait(lambda: "talking" in channel.stages)
    channel.ends()
    channel.wait_stage("held")
    assert house.posts()[0]["properties"]["outcome"] == "bot_ended"


def test_a_stream_that_does_not_stop_costs_nothing_of_what_the_bot_said(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_sessions(monkeypatch)
    channel = house.talking()
    channel.mute = (f"api bgapi uuid_audio_stream {UUID} stop",)
    channel.ends({"summary": "billing"})
    channel.wait_stage("held")
    (post,) = house.posts()
    assert (post["properties"]["outcome"], post["properties"]["summary"]) == ("bot_ended", "billing")


# -- bots that are unkind ---------------------------------------------------------------------------------


def test_a_peer_that_leaves_tcp_open_blocks_neither_the_hand_off_nor_the_bye(house: House) -> None:
    channel = house.talking()
    channel.stuck = True
    channel.ends()
    channel.wait_stage("held")
    assert not channel.attached
    channel.hang_up()
    channel.wait_closed(2)
    assert house.told(What.ENDED)["disposition"] == "recv_bye"


def test_a_channel_that_its_module_holds_is_over_with_the_bye(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.calls.call.LAST_EVENT", 0.1)
    channel = house.talking()
    channel.down = True
    channel.event("CHANNEL_HANGUP", {"Hangup-Cause": "NORMAL_CLEARING", "variable_sip_term_status": "200"})
    channel.peer.send(wire.linger_notice(UUID))  # and no CHANNEL_HANGUP_COMPLETE, ever
    eventually(lambda: not house.controller.calls)
    assert house.counts.total(WORKSPACE) == 0
    told = house.told(What.ENDED)
    assert (told["disposition"], told["cause"]) == ("recv_bye", "NORMAL_CLEARING")


def test_a_hang_up_of_ours_that_its_module_holds_is_told_as_ours(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.calls.call.LAST_EVENT", 0.1)
    channel = house.talking()
    channel.down = True
    channel.event("CHANNEL_HANGUP", {"Hangup-Cause": "NORMAL_CLEARING"})
    eventually(lambda: not house.controller.calls)
    told = house.told(What.ENDED)
    assert (told["disposition"], told["outcome"]) == ("send_bye", "our_bye")


@pytest.mark.parametrize("behind", [True, False], ids=["behind the flood", "in the middle"])
def test_an_end_in_a_flood_is_heard(house: House, monkeypatch: pytest.MonkeyPatch, behind: bool) -> None:
    monkeypatch.setattr("eslbot.esl.connection.MAX_INBOX", 50)  # fewer than one read of the socket brings
    channel = house.talking()
    key = wire.event({"Event-Name": "DTMF", "Unique-ID": UUID, "DTMF-Digit": "?"})
    text = wire.event(
        {"Event-Name": "CUSTOM", "Event-Subclass": "mod_audio_stream::json", "Unique-ID": UUID},
        control.news(News.CLEARED, 1).encode(),  # told again: not news
    )
    channel.relay.lost = not behind  # or what it tells falls out of the middle of this flood
    channel.peer.send((key + text) * 3000)
    channel.ends({"summary": "x"})
    channel.relay.lost = False
    channel.wait_stage("held")
    (post,) = house.posts()
    assert (post["properties"]["outcome"], post["properties"]["summary"]) == ("bot_ended", "x")


def test_a_text_that_is_too_long_is_ignored_and_its_connection_kept(house: House) -> None:
    channel = house.talking()
    before = metrics.RELAY_TEXTS_IGNORED._value.get()
    with structlog.testing.capture_logs() as lines:
        for size in (300 * 1024, 5 * 1024 * 1024):
            channel.custom("json", {"news": "ended", "n": 2, "outcome": "bot_failed", "padding": "x" * size})
        channel.ends()
        channel.wait_stage("held")
    assert metrics.RELAY_TEXTS_IGNORED._value.get() == before + 2
    assert [line["event"] for line in lines].count("relay_text_ignored") == 1
    assert house.posts()[0]["properties"]["outcome"] == "bot_ended"
    assert channel.variables["eslbot_take_overs"] == "0"


@pytest.mark.parametrize("way", ["end", "bound", "unheard", "last words"])
def test_whatever_ends_the_bots_part_leaves_nothing_on_the_channel(
    house: House, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("eslbot.calls.bot.leg.LAST_WORDS", 0.1)
    if way == "bound":
        house.workspace = replace(house.workspace, max_duration=0.1)
    channel = house.call()
    if way == "unheard":
        channel.unreadable = tuple(channel.relay.paths[1:])
    if way in ("end", "last words"):
        channel.wait_stage("talking")
        channel.ends(done=way == "end")
    channel.wait_stage("held")
    assert (channel.attached, channel.displaced) == (False, [])
    assert "eslbot_lines" not in channel.variables
    channel.hang_up()
    channel.wait_closed()


def test_no_token_in_any_line(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    house.ameyo.answers[:] = [Answer(401, f"unknown token {AMEYO_TOKEN}".encode()), Answer(200)]
    with structlog.testing.capture_logs() as lines:
        channel = house.talking()
        channel.ends()
        channel.wait(lambda: house.ameyo.requests)
        channel.hang_up()
        channel.wait_closed()
    text = repr(lines) + "".join(capsys.readouterr())
    assert "unknown token" in text
    for token in (AMEYO_TOKEN, BOT_TOKEN):
        assert token not in text


# -- another worker has to go on: see test_take_over.py ---------------------------------------------------


def test_a_lost_connection_hangs_nobody_up_and_is_counted_out(house: House) -> None:
    channel = house.talking()
    assert house.counts.total(WORKSPACE) == 1
    channel.lose_controller()
    eventually(lambda: not house.controller.calls)
    assert house.counts.total(WORKSPACE) == 0
    assert house.ameyo.requests == []


def test_the_connection_to_ameyo_is_there_before_the_bot_ends(house: House) -> None:
    channel = house.talking()
    channel.wait_stage("talking")
    eventually(lambda: house.ameyo.connections)
    (before,) = house.ameyo.connections
    channel.ends()
    channel.wait_stage("held")
    channel.hang_up()
    channel.wait_closed()
    assert [request.peer for request in house.ameyo.requests] == [before]
    assert house.ameyo.connections == [before]


def test_it_is_seen_to_again_when_the_bot_ends(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    warmed: list[AmeyoClient] = []
    monkeypatch.setattr(AmeyoClient, "warm", lambda client: warmed.append(client))
    channel = house.talking()
    channel.wait_stage("talking")
    eventually(lambda: len(warmed) == 1)
    channel.ends()
    channel.wait_stage("held")
    assert len(warmed) == 2
    channel.hang_up()
    channel.wait_closed()


def test_one_client_for_each_workspace(house: House) -> None:
    first = house.controller.ameyo(house.workspace)
    assert first is house.controller.ameyo(house.workspace)
    other = replace(house.workspace, id=OTHER)
    assert house.controller.ameyo(other) is not first
    assert isinstance(first, AmeyoClient)


# -- floods -----------------------------------------------------------------------------------------------


@pytest.mark.timed
def test_over_its_budget_a_source_is_503_whatever_it_says(house: House) -> None:
    house.workspace = replace(house.workspace, max_cps=2, max_calls=1)
    before = metrics.OVER_BUDGET.labels("acme")._value.get()
    for _ in range(4):  # a budget is spent by what is refused, too, and by whom another tenant is named
        assert refusal(house.call({"sip_h_X-Workspace-ID": OTHER})) == [("respond", "403 Forbidden")]
    for nonsense in ({}, {"sip_from_display": "Alice"}, {"sip_h_X-Workspace-ID": OTHER}):
        assert refusal(house.call(nonsense)) == [
            ("set", "sip_rh_Retry-After=1"),
            ("respond", "503 Too Many Calls A Second"),
        ]
    assert metrics.OVER_BUDGET.labels("acme")._value.get() == before + 3


def test_a_call_that_is_up_is_taken_over_whatever_was_spent(house: House) -> None:
    house.workspace = replace(house.workspace, max_cps=1, max_calls=1)
    first = house.talking()
    refusal(house.call({"sip_h_X-Workspace-ID": OTHER}))
    refusal(house.call())
    channel = house.taken_over(first)
    channel.wait(lambda: any(fact["what"] == What.TAKEN_OVER for fact in house.facts))
    channel.hang_up()


def test_of_a_flood_that_is_refused_the_ledger_gets_the_first_ones(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.server.refusal_log.ALOUD", 3)
    before = metrics.REFUSALS.labels("foreign_source")._value.get()
    house.workspace = replace(house.workspace, sources=(ip_network("127.0.0.9/32"),), max_cps=1000)
    with structlog.testing.capture_logs() as lines:
        for _ in range(8):
            assert refusal(house.call()) == [("respond", "403 Forbidden")]
        house.controller._refusal_log.sum_up()
    assert [fact["what"] for fact in house.facts] == [What.REFUSED] * 3
    told = [line["event"] for line in lines if "refused" in line["event"]]
    assert told == ["call_refused"] * 3 + ["more_calls_refused"]
    assert metrics.REFUSALS.labels("foreign_source")._value.get() == before + 8
