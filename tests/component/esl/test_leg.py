"""The bot's leg with a relay on a script: streams that break, controllers that change, news that are lost."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import gevent
import pytest
from structlog.testing import capture_logs

from eslbot.calls.bot.link import UNACKNOWLEDGED, WAITING
from eslbot.calls.bot.stream import NOT_UPGRADED
from eslbot.ledger.facts import What
from eslbot.outcome import Outcome
from eslbot.relay.control import HEARD, PART, News, Order, Part
from eslbot.telemetry import metrics
from tests.component.esl.conftest import House
from tests.support.peer import eventually
from tests.support.relay import DIRECTORY, ScriptedRelay
from tests.support.switch import UUID, Channel

NOTED = ("speech_began", "speech_ended", "mark", "cleared", "caller_speaks", "bot_reconnected")


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.calls.bot.link.RELAY_DUE", 0.6)
    monkeypatch.setattr("eslbot.calls.bot.link.STATE_DUE", 0.2)
    monkeypatch.setattr("eslbot.calls.bot.link.EXCUSED", 0.8)
    monkeypatch.setattr("eslbot.calls.bot.link.STEADY", 0.05)
    monkeypatch.setattr("eslbot.calls.bot.link.REFUSALS", 2)
    monkeypatch.setattr("eslbot.calls.bot.leg.HUNG_UP", 0.3)


def outcome(house: House, channel: Channel) -> tuple[str, str]:
    channel.wait_stage("held")
    properties = house.posts()[-1]["properties"]
    assert (channel.attached, channel.displaced) == (False, [])
    return properties["outcome"], properties["why"]


def parts(channel: Channel) -> list[Part]:
    return [start["headers"][PART] for start in channel.starts]


def noted(house: House, *whats: str) -> list[dict[str, Any]]:
    return [fact for fact in house.facts if fact["what"] in (whats or NOTED)]


def another_relay(channel: Channel) -> ScriptedRelay:
    """The relay is gone with all that it knew, and another one takes the next stream."""
    channel.relay = ScriptedRelay(channel)
    channel.relay.bot = "connected"
    return channel.relay


# -- what the relay tells ---------------------------------------------------------------------------------


def test_what_happens_on_the_line_is_told(house: House) -> None:
    channel = house.talking()
    relay = channel.relay
    relay.tells(News.BEGAN, ago=0.01)
    relay.tells(News.CALLER_SPEECH, speaking=True)
    relay.tells(News.MARK, name="a\n", cleared=True)
    relay.tells(News.CLEARED)
    relay.tells(News.SILENT, cut=True, ago=0.02)
    relay.tells(News.RECONNECTED, why="closed with 1011")
    channel.ends()
    channel.wait_stage("held")
    assert [{k: v for k, v in fact.items() if k != "call"} for fact in noted(house)] == [
        {"what": "speech_began"},
        {"what": "caller_speaks", "speaking": True},
        {"what": "mark", "name": "a ", "cleared": True},
        {"what": "cleared"},
        {"what": "speech_ended", "cut": True},
        {"what": "bot_reconnected", "why": "closed with 1011"},
    ]


def test_the_bot_is_heard_when_it_is_there_and_not_before(house: House) -> None:
    """What tells of the two has different ways; either may be late by milliseconds, here by half a minute."""
    before = metrics.FIRST_AUDIO_SECONDS.labels("acme")._sum.get()
    channel = house.talking()
    channel.relay.tells(News.BEGAN, ago=30.0)
    channel.ends()
    channel.wait_stage("held")
    assert noted(house, "speech_began")
    assert 0 <= metrics.FIRST_AUDIO_SECONDS.labels("acme")._sum.get() - before < 5


def test_turns_are_noted_and_measured(house: House) -> None:
    names = ("TURN_SECONDS", "TURN_BOT_SECONDS", "BARGE_IN_SECONDS", "BARGE_IN_BOT_SECONDS")
    before = {name: getattr(metrics, name).labels("acme")._sum.get() for name in names}
    overlaps = metrics.OVERLAP_SECONDS.labels("acme", "bot")._sum.get()
    channel = house.talking()
    channel.relay.tells(News.TURN, turn=1, kind="answer", seconds=0.5, bot=0.4, ago=0.6)
    channel.relay.tells(News.TURN, turn=2, kind="barge_in", seconds=0.3, bot=0.2, ago=0.6)
    channel.relay.tells(News.TURN, turn=3, kind="overlap", seconds=0.7, by="bot", ago=0.6)
    channel.ends()
    channel.wait_stage("held")
    assert [{k: v for k, v in fact.items() if k != "call"} for fact in noted(house, "turn")] == [
        {"what": "turn", "number": 1, "kind": "answer", "seconds": 0.5, "bot": 0.4},
        {"what": "turn", "number": 2, "kind": "barge_in", "seconds": 0.3, "bot": 0.2},
        {"what": "turn", "number": 3, "kind": "overlap", "seconds": 0.7, "by": "bot"},
    ]
    after = [getattr(metrics, name).labels("acme")._sum.get() - before[name] for name in names]
    assert after == pytest.approx([0.5, 0.4, 0.3, 0.2])
    assert metrics.OVERLAP_SECONDS.labels("acme", "bot")._sum.get() - overlaps == pytest.approx(0.7)


def test_more_turns_than_a_call_has_are_not_noted(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.calls.bot.leg.MAX_TURNS", 3)
    channel = house.talking()
    for number in range(1, 6):
        channel.relay.tells(News.TURN, turn=number, kind="answer", seconds=0.5, bot=0.4, ago=0.6)
    channel.ends()
    channel.wait_stage("held")
    assert [fact["number"] for fact in noted(house, "turn")] == [1, 2, 3]


@pytest.mark.parametrize(
    "odd", [{"kind": "dance"}, {"kind": 7}, {"by": "nobody"}, {"by": None}, {"kind": None}]
)
def test_a_turn_of_a_later_version_is_not_noted(house: House, odd: dict[str, Any]) -> None:
    channel = house.talking()
    channel.relay.tells(News.TURN, **{"turn": 1, "kind": "overlap", "seconds": 0.5, "by": "bot", **odd})
    channel.ends()
    assert outcome(house, channel)[0] == "bot_ended"
    assert noted(house, "turn") == []


def test_a_recording_is_in_the_calls_timeline(house: House) -> None:
    channel = house.talking()
    channel.relay.tells(News.RECORDING)
    channel.relay.tells(News.RECORDING, why="full\n")
    channel.relay.tells(News.RECORDING, why=["no text"])
    channel.ends()
    channel.wait_stage("held")
    told = noted(house, "recording_begun", "recording_failed")
    assert [(fact["what"], fact.get("why")) for fact in told] == [
        ("recording_begun", None),
        ("recording_failed", "full "),
        ("recording_begun", None),
    ]


def test_the_first_word_is_measured_once(house: House) -> None:
    before = metrics.FIRST_AUDIO_SECONDS.labels("acme")._sum.get()
    channel = house.talking()
    for _ in range(2):
        channel.relay.tells(News.BEGAN, ago=0.0)
        channel.relay.tells(News.SILENT, cut=False, ago=0.0)
    channel.ends()
    channel.wait_stage("held")
    assert 0 < metrics.FIRST_AUDIO_SECONDS.labels("acme")._sum.get() - before < 5


@pytest.mark.parametrize(
    ("ptime", "wanted"), [("20", "60:200:20"), ("40", "80:300:20"), ("60", "120:400:20")]
)
def test_short_packets_get_one_jitter_buffer(house: House, ptime: str, wanted: str) -> None:
    channel = house.talking({"rtp_use_codec_ptime": ptime})
    channel.relay.tells(News.SHORT_PACKETS)
    channel.relay.tells(News.SHORT_PACKETS)
    channel.ends()
    channel.wait_stage("held")
    assert [entry for entry in channel.story if entry.startswith("jitter")] == [f"jitter buffer {wanted}"]


def test_where_the_caller_is_late_freeswitch_is_made_to_flush_now_and_then(house: House) -> None:
    channel = house.talking()
    with capture_logs() as lines:
        for late in (0.53, 0.3, 0.2):
            channel.relay.tells(News.LATE, by=late)
        channel.ends()
        channel.wait_stage("held")
    told = [line for line in lines if line["event"] == "caller_audio_late"]
    assert [(line["seconds"], line["flush"]) for line in told] == [(0.53, "+OK Success ")]
    assert channel.flushes == 1


def test_it_is_made_to_flush_again_after_a_while(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.calls.bot.leg.FLUSH_AGAIN", 0.0)
    channel = house.talking()
    for _ in range(2):
        channel.relay.tells(News.LATE, by=0.05)
    channel.ends()
    channel.wait_stage("held")
    assert channel.flushes == 2


# -- what it is told --------------------------------------------------------------------------------------


def test_news_are_acknowledged_in_heaps_and_ends_at_once(house: House) -> None:
    channel = house.talking()
    relay = channel.relay
    for _ in range(UNACKNOWLEDGED + 2):
        relay.tells(News.CLEARED)
    channel.wait(lambda: relay.acknowledged == UNACKNOWLEDGED)
    channel.event("DTMF", {"DTMF-Digit": "5", "DTMF-Duration": "960"})
    channel.wait(lambda: relay.acknowledged == UNACKNOWLEDGED + 3)  # and the connection's
    assert relay.told(Order.KEY) == [{"order": "key", "digit": "5", "ms": 120}]
    channel.ends(done=False)
    channel.wait(lambda: relay.acknowledged == UNACKNOWLEDGED + 4)
    relay.is_done()
    channel.wait(lambda: relay.acknowledged == UNACKNOWLEDGED + 5)


def test_keys_reach_the_relay(house: House) -> None:
    channel = house.talking()
    keys = ("5", "960"), ("*", "1600"), ("#", ""), ("D", "x"), ("0", "-1"), ("1", "٣"), ("2", "9" * 5000)
    for digit, samples in keys:
        channel.event("DTMF", {"DTMF-Digit": digit, "DTMF-Duration": samples, "DTMF-Source": "RTP"})
    for digit in ("", "12", "F", "w", "5\n"):
        channel.event("DTMF", {"DTMF-Digit": digit, "DTMF-Duration": "800"})
    relay = {"SIP-Content-Type": "application/dtmf-relay"}
    channel.event("RECV_INFO", relay, b"Signal=*\r\nDuration=160\r\n")
    channel.ends()
    channel.wait_stage("held")
    assert [(key["digit"], key["ms"]) for key in channel.relay.told(Order.KEY)] == [
        ("5", 120),
        ("*", 200),
        ("#", 0),
        ("D", 0),
        ("0", 0),
        ("1", 0),
        ("2", 0),
        ("*", 160),
    ]


def test_keys_wait_for_a_relay(house: House) -> None:
    channel = house.call()
    channel.on_start = lambda number: None
    channel.wait(lambda: channel.starts)
    for number in range(WAITING + 5):
        channel.event("DTMF", {"DTMF-Digit": str(number % 10), "DTMF-Duration": "800"})
    eventually(lambda: len(noted(house, "key")) == WAITING + 5)
    channel.relay.stream_up(0)
    channel.wait(lambda: len(channel.relay.told(Order.KEY)) == WAITING)
    assert channel.relay.told(Order.KEY)[0]["digit"] == "5", "the last ones"


def hold(channel: Channel, on: bool) -> None:
    channel.variables["remote_audio_media_flow"] = "sendonly" if on else "sendrecv"
    channel.event("CUSTOM", {"Event-Subclass": "sofia::reinvite"})


def test_a_hold_and_its_end_are_told(house: House) -> None:
    channel = house.talking()
    hold(channel, True)
    channel.wait(lambda: channel.relay.told(Order.HOLD))
    hold(channel, True)
    hold(channel, False)
    channel.wait(lambda: len(channel.relay.told(Order.HOLD)) == 2)
    assert [order["on"] for order in channel.relay.told(Order.HOLD)] == [True, False]
    assert [fact["on"] for fact in noted(house, "hold")] == [True, False]


def test_the_next_controller_tells_of_a_hold(house: House) -> None:
    channel = house.talking()
    channel.variables["remote_audio_media_flow"] = "sendonly"  # nobody was there to see it
    second = house.taken_over(channel)
    second.wait(lambda: second.relay.told(Order.HELLO))
    assert second.relay.told(Order.HELLO) == [{"order": "hello", "hold": True}]


def test_the_next_relay_is_told_of_a_hold(house: House) -> None:
    channel = house.talking()
    hold(channel, True)
    channel.wait(lambda: channel.relay.told(Order.HOLD))
    relay = another_relay(channel)
    channel.lose_stream()
    channel.wait(lambda: relay.told(Order.HOLD))
    assert relay.told(Order.HOLD) == [{"order": "hold", "on": True}]


# -- the lines --------------------------------------------------------------------------------------------


def test_lines_that_freeswitch_reads_already_are_left_alone(house: House) -> None:
    channel = house.call()
    channel.displaced.append(channel.relay.paths[0])
    channel.wait_stage("talking")
    assert channel.story.count("displace start") == 1
    assert channel.displaced == channel.relay.paths


def test_a_relay_that_does_not_know_that_a_line_is_on_is_no_reason_to_hand_off(house: House) -> None:
    channel = house.talking()
    relay = another_relay(channel)
    relay.odd = {"lines": [{"path": path, "on": False} for path in relay.paths]}
    channel.lose_stream()
    channel.wait(lambda: channel.story.count("displace start") == 4)  # two of them refused
    channel.ends()
    assert outcome(house, channel)[0] == "bot_ended"


def test_lines_of_another_directory_take_the_place_of_those_before(house: House) -> None:
    channel = house.talking()
    relay = another_relay(channel)
    relay.paths = [f"/srv/lines/{UUID}.{name}.r8" for name in "ab"]
    channel.lose_stream()
    channel.wait(lambda: channel.displaced == relay.paths)
    assert channel.variables["eslbot_lines"] == " ".join(relay.paths)
    channel.ends()
    assert outcome(house, channel)[0] == "bot_ended"


def test_lines_of_a_relay_that_died_stay_until_they_were_heard(house: House) -> None:
    """And the STATE that says so, which nobody has asked for, loses and repeats no news."""
    channel = house.talking()
    old = list(channel.relay.paths)
    relay = another_relay(channel)
    relay.paths = [f"{DIRECTORY}/{UUID}.2.{name}.r8" for name in "ab"]
    ours = [{"path": path, "on": False} for path in relay.paths]
    relay.odd = {"lines": ours + [{"path": path, "on": True} for path in old]}
    channel.lose_stream()
    channel.wait(lambda: set(channel.displaced) == {*old, *relay.paths})
    assert channel.variables["eslbot_lines"].split() == relay.paths + old
    relay.tells(News.MARK, name="before", cleared=False)
    eventually(lambda: noted(house, "mark"))
    relay.odd = {"lines": [{"path": path, "on": True} for path in relay.paths]}
    relay.state()
    relay.tells(News.MARK, name="behind", cleared=False)
    channel.wait(lambda: channel.displaced == relay.paths)
    assert channel.variables["eslbot_lines"].split() == relay.paths
    assert channel.story.count("displace start") == 4
    channel.ends()
    assert outcome(house, channel)[0] == "bot_ended"
    assert [fact["name"] for fact in noted(house, "mark")] == ["before", "behind"]
    assert relay.told(Order.HELLO) == []


@pytest.mark.parametrize("which", [0, 1])
def test_a_line_that_freeswitch_cannot_read_is_a_hand_off_at_once(house: House, which: int) -> None:
    channel = house.call()
    channel.unreadable = (channel.relay.paths[which],)
    assert outcome(house, channel) == ("relay_lost", f"FreeSWITCH does not read {channel.relay.paths[which]}")
    assert len(channel.starts) == 1


def test_a_caller_who_leaves_before_the_line_is_on_is_not_handed_off(house: House) -> None:
    # FreeSWITCH refuses a line of a channel that is hung up; or its relay has removed the files by then.
    channel = house.call()
    channel.unreadable = tuple(channel.relay.paths)
    channel.wait(lambda: "displace start" in channel.story)
    channel.hang_up()
    channel.wait_closed()
    assert house.posts() == []
    assert house.told(What.ENDED)["outcome"] == "caller_hangup"


@pytest.mark.parametrize(
    "lines",
    [
        None,
        {},
        "x",
        [7],
        [{}],
        [{"path": 7}],
        *(
            [{"path": path, "on": False}]
            for path in (
                "",
                "relative.r8",
                f"{DIRECTORY}/{UUID}.a r8",
                f"{DIRECTORY}/{UUID}.a.r8\n",
                f"{DIRECTORY}/another-call.a.r8",
                f"{DIRECTORY}/../{UUID}.a.r8",
                f"/{UUID}.${{x}}.r8",
                f"/{'d' * 255}/{UUID}.a.r8",
                f"tone_stream://{UUID}.a.r8",
            )
        ),
        [{"path": f"{DIRECTORY}/{UUID}.{name}.r8", "on": False} for name in "abcdefghi"],
    ],
)
def test_no_other_file_is_ever_displaced(house: House, lines: object) -> None:
    before = metrics.RELAY_TEXTS_IGNORED._value.get()
    channel = house.call()
    channel.relay.odd = {"lines": lines}
    assert outcome(house, channel)[0] == "relay_lost"
    assert "displace start" not in channel.story
    assert metrics.RELAY_TEXTS_IGNORED._value.get() > before


def test_what_is_noted_of_lines_and_cannot_be_is_not_told_freeswitch(house: House) -> None:
    noted_paths = f"/etc/passwd {DIRECTORY}/{UUID}.a.r8"
    channel = house.call({"eslbot_stage": "held", "eslbot_lines": noted_paths}, answered=True)
    channel.wait(lambda: "displace stop" in channel.story)
    channel.wait(lambda: "unset eslbot_lines" in channel.story)
    assert channel.story.count("displace stop") == 1


# -- hostile news -----------------------------------------------------------------------------------------

HOSTILE: list[Any] = [
    b"{",
    b"[1]",
    b"\xff",
    b"[" * 100_000,
    {"news": "dance", "n": 2},
    {"order": "stop"},
    {"news": "ended", "n": "2"},
    {"news": ["ended"], "n": 2},
    {"news": "ended", "n": 1.5},
]


@pytest.mark.parametrize("text", HOSTILE, ids=[str(number) for number in range(len(HOSTILE))])
def test_what_is_no_news_is_counted_and_told_once(house: House, text: Any) -> None:
    before = metrics.RELAY_TEXTS_IGNORED._value.get()
    channel = house.talking()
    with capture_logs() as lines:
        channel.custom("json", text)
        channel.custom("json", text)
        channel.ends()
        assert outcome(house, channel)[0] == "bot_ended"
    assert metrics.RELAY_TEXTS_IGNORED._value.get() == before + 2
    assert [line["event"] for line in lines].count("relay_text_ignored") == 1


@pytest.mark.parametrize("field", [None, 7, -1.5, [], {}, "x" * 5000, True, 1e999])
@pytest.mark.parametrize("what", [News.BEGAN, News.SILENT, News.MARK, News.RECONNECTED, News.LATE, News.TURN])
def test_fields_of_any_kind_harm_nobody(house: House, what: News, field: Any) -> None:
    channel = house.talking()
    names = ("ago", "cut", "name", "cleared", "why", "by", "speaking", "kind", "seconds", "bot", "turn")
    channel.relay.tells(what, **dict.fromkeys(names, field))
    channel.ends()
    assert outcome(house, channel)[0] == "bot_ended"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, ("internal_error", "")),
        ({"outcome": "fine", "reason": 7, "properties": [], "dropped": 7}, ("internal_error", "")),
        ({"outcome": ["bot_ended"]}, ("internal_error", "")),
        ({"outcome": "bot_failed", "reason": "a\0" + "x" * 5000}, ("bot_failed", "a " + "x" * 198)),
        ({"outcome": "bot_ended", "properties": None, "dropped": [{}, None]}, ("bot_ended", "")),
    ],
)
def test_an_end_is_an_end_whatever_its_fields(
    house: House, facts: dict[str, Any], expected: tuple[str, str]
) -> None:
    channel = house.talking()
    channel.relay.tells(News.ENDED, **facts)
    channel.relay.is_done()
    assert outcome(house, channel) == expected


def test_every_outcome_of_a_relay_is_taken(house: House) -> None:
    channel = house.talking()
    channel.ends(outcome=str(Outcome.BOT_SILENT), reason="no audio within 10 s")
    assert outcome(house, channel) == ("bot_silent", "no audio within 10 s")


# -- a take-over ------------------------------------------------------------------------------------------


def test_news_that_fell_into_a_take_over_are_told_in_order_and_once(house: House) -> None:
    channel = house.talking()
    relay = channel.relay
    for name in ("heard before", "not acknowledged"):
        relay.tells(News.MARK, name=name, cleared=False)
    eventually(lambda: len(noted(house, "mark")) == 2)
    channel.event("DTMF", {"DTMF-Digit": "1", "DTMF-Duration": "800"})
    channel.wait(lambda: relay.acknowledged == 3)
    channel.lose_controller()
    relay.lost = True
    for name in ("nobody", "was there"):
        relay.tells(News.MARK, name=name, cleared=False)
    relay.lost = False
    second = house.taken_over(channel)
    second.custom("json", {"news": "mark", "n": 6, "name": "of another time", "cleared": False})
    second.relay.tells(News.MARK, name="and on", cleared=False)
    second.ends()
    assert outcome(house, second)[0] == "bot_ended"
    names = [fact["name"] for fact in noted(house, "mark")]
    assert names == ["heard before", "not acknowledged", "nobody", "was there", "and on"]


@pytest.mark.parametrize("done", [True, False], ids=["done", "last words"])
@pytest.mark.parametrize("when", ["before it is told", "told and not acknowledged", "acknowledged"])
def test_an_end_is_told_once_over_any_take_over(house: House, when: str, done: bool) -> None:
    channel = house.talking()
    if when == "before it is told":
        channel.lose_controller()
        channel.relay.lost = True
    channel.ends({"summary": "x"}, done=False)
    if when != "before it is told":
        channel.wait(lambda: channel.relay.acknowledged == 2)
        channel.wait_stage("ended")
        channel.lose_controller()
        if when == "told and not acknowledged":
            channel.relay.acknowledged = 0  # it never came
            channel.relay._kept = [(2, json.dumps({"news": "ended", "n": 2, **(channel.relay.ended or {})}))]
        channel.relay.lost = True
    if done:
        channel.relay.is_done()
    channel.relay.lost = False
    second = house.taken_over(channel)
    if not done:
        second.wait(lambda: second.relay.told(Order.HELLO))
        assert "handing_off" not in second.stages
        second.relay.is_done()
    assert outcome(house, second) == ("bot_ended", "done")
    assert house.posts()[0]["properties"]["summary"] == "x"
    assert [fact["outcome"] for fact in noted(house, "bot_ended")] == ["bot_ended"]


def test_an_end_that_a_controller_has_acknowledged_and_died_over_is_the_states_word(house: House) -> None:
    channel = house.call({"eslbot_stage": "talking"}, answered=True)
    relay = channel.relay
    relay.bot, relay.done = "over", True
    relay.ended = {"outcome": "bot_closed", "reason": "x", "properties": {"summary": "y"}, "dropped": []}
    channel.attached = True
    assert outcome(house, channel) == ("bot_closed", "x")
    assert house.posts()[0]["properties"]["summary"] == "y"


def test_a_number_that_is_missing_is_asked_for(house: House) -> None:
    channel = house.talking()
    relay = channel.relay
    relay.lost = True
    relay.tells(News.MARK, name="lost", cleared=False)
    relay.lost = False
    relay.tells(News.MARK, name="came", cleared=False)
    eventually(lambda: len(noted(house, "mark")) == 2)
    assert [fact["name"] for fact in noted(house, "mark")] == ["lost", "came"]
    assert len(relay.told(Order.HELLO)) == 1


def test_what_a_relay_does_not_have_any_more_is_not_waited_for(house: House) -> None:
    channel = house.talking()
    relay = channel.relay
    relay.lost = True
    relay.tells(News.MARK, name="lost", cleared=False)
    relay.lost = False
    relay._kept.clear()
    relay.tells(News.MARK, name="came", cleared=False)
    eventually(lambda: len(noted(house, "mark")) == 1)
    assert [fact["name"] for fact in noted(house, "mark")] == ["came"]
    assert len(relay.told(Order.HELLO)) == 1


def test_a_hello_that_nobody_answers_starts_another_stream(house: House) -> None:
    channel = house.talking()
    channel.relay.silent = True
    second = house.taken_over(channel)
    second.wait(lambda: second.relay.told(Order.HELLO))
    second.relay.silent = False
    second.wait(lambda: second.starts)
    assert second.story.index("stream stop") < second.story.index("stream start")
    assert second.relay.told(Order.AGAIN) == [{"order": "again"}], "it is not the call's end"
    assert parts(second) == [Part.UNDER_WAY]
    second.ends()
    assert outcome(house, second)[0] == "bot_ended"


# -- a relay that is lost ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["error", "disconnect"])
def test_a_stream_that_breaks_is_started_again_and_nothing_is_told_twice(house: House, how: str) -> None:
    lost = metrics.RELAY_STREAMS_RESTARTED._value.get()
    channel = house.talking()
    channel.relay.tells(News.MARK, name="before", cleared=False)
    eventually(lambda: noted(house, "mark"))
    channel.lose_stream(how)
    channel.wait(lambda: len(channel.starts) == 2)
    channel.relay.tells(News.MARK, name="behind", cleared=False)
    channel.ends()
    assert outcome(house, channel)[0] == "bot_ended"
    assert parts(channel) == [Part.NEW, Part.UNDER_WAY]
    assert [fact["name"] for fact in noted(house, "mark")] == ["before", "behind"]
    assert len(noted(house, "bot_connected")) == 1
    assert channel.story.count("displace start") == 2, "what was written plays on"
    assert metrics.RELAY_STREAMS_RESTARTED._value.get() == lost + 1


@pytest.mark.parametrize("known_by", ["its beginning", "the state", "nothing"])
def test_another_relay_is_told_whether_the_bot_has_spoken(house: House, known_by: str) -> None:
    """Or a bot that only listens there, as it should, would count as silent."""
    channel = house.talking()
    if known_by == "its beginning":
        channel.relay.tells(News.BEGAN, ago=0.0)
        eventually(lambda: noted(house, "speech_began"))
    elif known_by == "the state":
        channel.relay.spoken = True
        channel = house.taken_over(channel)
        channel.wait(lambda: channel.relay.told(Order.HELLO))
    starts = len(channel.starts)
    channel.lose_stream()
    channel.wait(lambda: len(channel.starts) == starts + 1)
    headers = channel.starts[-1]["headers"]
    assert headers[PART] == Part.UNDER_WAY, "what relays of earlier versions know"
    assert headers.get(HEARD) == (None if known_by == "nothing" else "1")
    channel.ends()
    assert outcome(house, channel)[0] == "bot_ended"


@pytest.mark.parametrize("state", ["connecting", "talking", "last words"])
def test_another_relay_is_told_how_far_the_bots_part_is(house: House, state: str) -> None:
    channel = house.call()
    channel.relay.connects = state != "connecting"
    channel.wait(lambda: channel.displaced)
    if state == "talking":
        channel.wait_stage("talking")
    if state == "last words":
        channel.ends({"summary": "x"}, done=False)
        channel.wait_stage("ended")
    relay = ScriptedRelay(channel)
    relay.bot = "connected" if state == "talking" else "dialling"
    relay.speaks = True
    channel.relay = relay
    channel.lose_stream()
    channel.wait(lambda: len(channel.starts) == 2)
    assert (
        parts(channel)[1]
        == {
            "connecting": Part.NEW,
            "talking": Part.UNDER_WAY,
            "last words": Part.OVER,
        }[state]
    )
    if state == "last words":
        relay.is_done()
    else:
        channel.wait_stage("talking")
        channel.ends({"summary": "x"})
    assert outcome(house, channel) == ("bot_ended", "done")
    assert house.posts()[0]["properties"]["summary"] == "x"
    assert len(noted(house, "bot_ended")) == 1


@pytest.mark.parametrize("how", ["error", "disconnect"])
@pytest.mark.parametrize(
    ("state", "expected"),
    [("connecting", "relay_lost"), ("talking", "relay_lost"), ("last words", "bot_ended")],
)
def test_without_any_relay_the_customer_goes_to_an_agent(
    house: House, monkeypatch: pytest.MonkeyPatch, state: str, expected: str, how: str
) -> None:
    monkeypatch.setattr("eslbot.calls.bot.link.STEADY", 0.0)  # the stream was up for long
    channel = house.call()
    channel.relay.connects = state != "connecting"
    channel.wait(lambda: channel.displaced)
    if state != "connecting":
        channel.wait_stage("talking")
    if state == "last words":
        channel.ends(done=False)
        channel.wait_stage("ended")
    channel.on_start = lambda number: channel.refuse_stream()
    channel.lose_stream(how)
    assert outcome(house, channel)[0] == expected
    assert 4 < len(channel.starts) < 12, "at first every 50 to 100 ms"
    ended = noted(house, "bot_ended")
    assert [fact["outcome"] for fact in ended] == [expected]


def test_a_relay_that_was_never_there_is_a_hand_off(house: House) -> None:
    channel = house.call()
    channel.on_start = lambda number: channel.refuse_stream()
    assert outcome(house, channel) == ("relay_lost", "Connection refused (system error 111) (code 6)")
    assert "displace start" not in channel.story


def test_who_refuses_the_stream_again_and_again_is_not_waited_for(house: House) -> None:
    channel = house.call()
    channel.on_start = lambda number: channel.refuse_stream(6, NOT_UPGRADED)
    with capture_logs() as told:
        ended, why = outcome(house, channel)
    assert ended == "relay_lost"
    assert why == "what listens at relay.listen takes no stream: WebSocket upgrade failed (code 6)"
    assert len(channel.starts) == 2, "REFUSALS"
    (line,) = (line for line in told if line["event"] == "relay_lost")
    assert line["relay"] == channel.starts[-1]["url"]
    assert "stream_refused" in line["remedy"]


def test_one_refusal_and_another_fault_are_no_two_refusals(house: House) -> None:
    channel = house.call()
    up = channel.on_start

    def start(number: int) -> None:
        if number in (0, 2):
            channel.refuse_stream(6, NOT_UPGRADED)
        elif number == 1:
            channel.refuse_stream()
        else:
            up(number)

    channel.on_start = start
    channel.wait_stage("talking")
    assert len(channel.starts) == 4
    channel.ends()
    assert outcome(house, channel)[0] == "bot_ended"


def test_a_relay_that_has_no_line_is_a_hand_off_at_once(house: House) -> None:
    channel = house.call()
    channel.relay.paths = []
    channel.wait_stage("connecting")
    with capture_logs() as told:
        channel.relay.tells(
            News.ENDED, outcome="relay_lost", reason="the relay cannot make its line files", properties={}
        )
        channel.relay.tells(News.DONE)
        assert outcome(house, channel) == ("relay_lost", "the relay cannot make its line files")
    assert len(channel.starts) == 1
    (line,) = (line for line in told if line["event"] == "relay_lost")
    assert line["reason"] == "the relay cannot make its line files" and "relay's log" in line["remedy"]


@pytest.mark.parametrize("up", [True, False], ids=["connected and silent", "not connected"])
def test_a_relay_that_says_nothing_is_a_hand_off(house: House, up: bool) -> None:
    channel = house.call()
    channel.relay.silent = True
    if not up:
        channel.on_start = lambda number: None
    assert outcome(house, channel) == ("relay_lost", "the relay said nothing within 0.2 s")
    assert len(channel.starts) > 1


# -- who is only late -------------------------------------------------------------------------------------


def before(channel: Channel, verb: str, happens: Callable[[], object]) -> None:
    """Have this happen before FreeSWITCH does a command of the module's."""
    does = channel._stream

    def stream(answer: Callable[[str], None], uuid: str, what: str, *arguments: str) -> None:
        if what == verb:
            happens()
        does(answer, uuid, what, *arguments)

    channel._stream = stream  # type: ignore[method-assign, assignment]


def is_well(house: House, channel: Channel, starts: int) -> None:
    """The call is served, by the stream of so many that were started."""
    channel.wait_stage("talking")
    channel.ends()
    assert outcome(house, channel) == ("bot_ended", "done")
    assert len(channel.starts) == starts


def test_a_relay_that_is_late_keeps_its_stream(house: House) -> None:
    channel = house.call()
    channel.relay.silent = True
    channel.wait(lambda: channel.relay.told(Order.HELLO))
    channel.relay.silent = False
    channel.relay.state()
    is_well(house, channel, 1)


def test_a_state_of_the_stream_before_is_nobodys(house: House) -> None:
    """It names the lines of a call that was over for its relay when that stream ended: they are no more."""
    channel = house.call()
    relay = channel.relay
    relay.silent = True
    gone = f"{DIRECTORY}/{UUID}.1.a.r8"
    channel.unreadable = (gone,)

    def late() -> None:
        relay.odd = {"lines": [{"path": gone, "on": False}]}
        relay.state()
        relay.odd, relay.silent = {}, False

    before(channel, "stop", late)
    is_well(house, channel, 2)


def test_a_state_that_comes_while_the_stream_does_not_end_is_nobodys(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.calls.bot.stream.STOPPED", 0.05)
    channel = house.call()
    relay = channel.relay
    relay.silent = channel.stuck = True
    stops = []

    def late() -> None:
        stops.append(1)
        if len(stops) == 1:
            gevent.spawn_later(0.06, relay.state)
        else:
            channel.stuck = relay.silent = False

    before(channel, "stop", late)
    is_well(house, channel, 2)


def test_what_has_come_is_read_before_a_time_counts_as_over(house: House) -> None:
    channel = house.call()

    def start(number: int) -> None:
        channel.relay.stream_up(number)
        time.sleep(0.9)  # nobody runs, we neither: longer than RELAY_DUE

    channel.on_start = start
    is_well(house, channel, 1)


def test_time_in_which_we_did_not_run_is_not_the_relays(house: House) -> None:
    channel = house.call()
    channel.relay.silent = True

    def start(number: int) -> None:
        channel.relay.stream_up(number)
        gevent.spawn_later(0.02, time.sleep, 0.7)
        gevent.spawn_later(0.1, channel.relay.state)  # due when we ran again

    channel.on_start = start
    is_well(house, channel, 1)


def test_time_for_which_freeswitch_has_not_answered_is_not_the_relays(house: House) -> None:
    channel = house.talking()
    channel.relay.silent = True
    second = house.taken_over(channel)

    def late() -> None:
        if not second.relay.told(Order.HELLO):
            gevent.sleep(0.7)  # longer than RELAY_DUE
            gevent.spawn_later(0.1, second.ends)
            gevent.spawn_later(0.1, second.relay.state)

    before(second, "send_text", late)
    assert outcome(house, second) == ("bot_ended", "done")
    assert second.starts == []


def test_a_start_of_which_freeswitch_has_not_told_yet_how_it_ended_is_waited_for(house: House) -> None:
    channel = house.call()

    def start(number: int) -> None:
        gevent.spawn_later(0.9, channel.relay.stream_up, number)

    channel.on_start = start
    channel.relay.silent = True  # HELLO is not heard: there is no socket yet
    gevent.spawn_later(0.8, setattr, channel.relay, "silent", False)
    is_well(house, channel, 1)


def test_a_relay_that_is_asked_again_has_its_time_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its stream is up: what it was late by when the call began is no more."""
    monkeypatch.setattr("eslbot.calls.bot.link.STEADY", 60.0)
    channel = house.call()
    channel.relay.silent = True
    gevent.sleep(0.5)  # it is so late
    channel.relay.silent = False
    channel.relay.state()
    channel.wait(lambda: channel.displaced)
    gevent.sleep(0.2)  # and RELAY_DUE is over since the call began
    channel.relay.silent = channel.relay.lost = True
    channel.relay.tells(News.MARK, name="lost", cleared=False)
    channel.relay.lost = False
    hellos = len(channel.relay.told(Order.HELLO))
    channel.relay.tells(News.MARK, name="came", cleared=False)
    channel.wait(lambda: len(channel.relay.told(Order.HELLO)) == hellos + 1)
    gevent.sleep(0.3)  # longer than STATE_DUE
    channel.relay.silent = False
    channel.ends()
    assert outcome(house, channel) == ("bot_ended", "done")


def test_the_error_that_is_on_its_way_is_not_that_of_the_next_stream(house: House) -> None:
    """The module gives up after the very second after which the relay is asked."""
    channel = house.call()
    up = channel.on_start

    def start(number: int) -> None:
        if number:
            gevent.spawn_later(0.1, up, number)
        else:
            error = {"status": "error", "message": {"code": 10, "error": "Timeout"}}
            gevent.spawn_later(0.15, setattr, channel, "attached", False)
            gevent.spawn_later(0.23, channel.custom, "error", error)

    channel.on_start = start
    channel.wait(lambda: len(channel.starts) == 2)
    is_well(house, channel, 2)
    assert "stream stop" not in channel.story[: channel.story.index("stage talking")]


@pytest.mark.timed
@pytest.mark.slow
def test_nobody_is_excused_for_ever(house: House) -> None:
    """A customer in silence gets to a human: within RELAY_DUE + EXCUSED, and one try more."""
    channel = house.call()
    channel.relay.silent = True
    channel.on_start = lambda number: None
    before(channel, "send_text", lambda: gevent.sleep(0.3))
    began = time.monotonic()
    assert outcome(house, channel)[0] == "relay_lost"
    assert time.monotonic() - began < 0.6 + 0.8 + 0.2 + 2 * 0.3 + 1.0


def test_lines_that_are_refused_once_are_asked_for_again(house: House) -> None:
    channel = house.call()
    relay, gone = channel.relay, list(channel.relay.paths)
    channel.unreadable = tuple(gone)
    channel.wait(lambda: "displace start" in channel.story)
    relay.paths = [f"{DIRECTORY}/{UUID}.2.{name}.r8" for name in "ab"]
    is_well(house, channel, 1)


def test_a_line_that_was_refused_and_can_be_read_now_is_heard(house: House) -> None:
    channel = house.call()
    channel.unreadable = (channel.relay.paths[0],)
    channel.wait(lambda: "displace start" in channel.story)
    channel.unreadable = ()
    channel.wait(lambda: set(channel.displaced) == set(channel.relay.paths))
    is_well(house, channel, 1)


@pytest.mark.parametrize("lines", ["not read", "read"])
def test_a_bot_that_has_failed_is_told_as_that_whatever_became_of_the_line(house: House, lines: str) -> None:
    channel = house.call()
    relay = channel.relay
    if lines == "not read":
        channel.unreadable = tuple(relay.paths)
    relay.bot, relay.done = "over", True
    relay.ended = {"outcome": "bot_failed", "reason": "closed with 1011", "properties": {}, "dropped": []}
    assert outcome(house, channel) == ("bot_failed", "closed with 1011")


def test_a_relay_that_only_comes_up_to_break_off_is_none(house: House) -> None:
    channel = house.call()

    def start(number: int) -> None:
        channel.relay.stream_up(number)
        channel.lose_stream()

    channel.on_start = start
    assert outcome(house, channel)[0] == "relay_lost"
    assert len(channel.starts) < 12


def test_a_start_that_is_refused_is_tried_again_with_the_stream_before_stopped(house: House) -> None:
    channel = house.call()
    channel.attached = True  # of whoever it was
    channel.wait_stage("talking")
    assert len(channel.starts) == 1
    assert channel.relay.told(Order.AGAIN), "it may be this call's, and a late event has said that it is gone"
    assert channel.story.index("stream stop") < len(channel.story) - 1 - channel.story[::-1].index(
        "stream start"
    )


def test_a_module_that_is_not_loaded_is_a_hand_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = house.call()
    monkeypatch.setattr(
        channel, "_stream", lambda answer, *_: answer("-ERR uuid_audio_stream Command not found!\n")
    )
    channel.wait_stage("held")
    assert house.posts()[0]["properties"]["outcome"] == "relay_lost"
    assert "refused to start" in house.posts()[0]["properties"]["why"]


def test_a_peer_that_leaves_tcp_open_is_not_waited_for_longer(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.calls.bot.stream.STOPPED", 0.1)
    channel = house.talking()
    channel.stuck = True
    channel.lose_stream("disconnect")
    channel.wait_stage("held")
    assert house.posts()[0]["properties"]["outcome"] == "relay_lost"
    assert len(channel.starts) == 1


def test_the_end_of_the_stream_before_is_not_that_of_the_next(house: House) -> None:
    channel = house.talking()
    up = channel.on_start

    def start(number: int) -> None:
        channel.custom("disconnect", {"status": "disconnected", "message": {"code": 1000, "reason": ""}})
        up(number)

    channel.on_start = start
    channel.lose_stream("disconnect")
    channel.wait(lambda: len(channel.starts) == 2)
    channel.ends()
    assert outcome(house, channel)[0] == "bot_ended"
    assert len(channel.starts) == 2


def test_a_caller_who_leaves_while_there_is_no_relay(house: House) -> None:
    channel = house.talking()
    channel.on_start = lambda number: channel.refuse_stream()
    channel.lose_stream()
    channel.wait(lambda: len(channel.starts) >= 2)
    channel.hang_up()
    channel.wait_closed()
    assert house.posts() == []
    assert house.told(What.ENDED)["outcome"] == "caller_hangup"


def test_the_time_of_a_call_goes_on_without_a_relay(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.calls.bot.link.RELAY_DUE", 60.0)
    house.workspace = replace(house.workspace, max_duration=0.3)
    channel = house.call()
    channel.on_start = lambda number: channel.refuse_stream()
    channel.wait_stage("held")
    assert house.posts()[0]["properties"]["outcome"] == "max_duration"
