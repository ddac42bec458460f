"""FreeSWITCH dies under a call and comes back with it; the channel is as it was at the answer."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gevent
import pytest
from gevent.event import Event as Flag
from structlog.testing import capture_logs

from eslbot.ameyo.client import Attempt
from eslbot.ameyo.retry import Verdict
from eslbot.ledger.facts import What
from eslbot.outcome import Outcome
from eslbot.relay import control
from eslbot.relay.control import Part
from eslbot.telemetry import metrics
from tests.component.esl.conftest import House
from tests.support.peer import eventually
from tests.support.switch import UUID, WORKSPACE, Channel


def accepted(house: House) -> list[str]:
    return [post["properties"]["outcome"] for post in house.posts()]


def left(house: House) -> list[str]:
    folder = house.state / "calls"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_talking_call_goes_on_where_it_was(house: House) -> None:
    first = house.talking()
    recovered = metrics.CALLS_RECOVERED.labels("acme")._value.get()
    with capture_logs() as told:
        second = house.restarted(first)
        second.wait(lambda: second.displaced)
    (start,) = second.starts
    assert start["headers"][control.PART] == Part.UNDER_WAY
    assert start["headers"][control.SWITCH] == "2"
    assert second.variables["eslbot_stage"] == "talking"
    assert second.variables["eslbot_switch"] == "2", "so that the next controller takes it for the same"
    assert house.told(What.SWITCH_RESTARTED)["restarts"] == 1
    assert 0 <= house.told(What.SWITCH_RESTARTED)["gap"] < 5
    assert metrics.CALLS_RECOVERED.labels("acme")._value.get() == recovered + 1
    (line,) = (line for line in told if line["event"] == "switch_restarted")
    assert line["known"] and line["stage"] == "talking"
    second.ends({"summary": "x"})
    second.wait_stage("held")
    assert accepted(house) == ["bot_ended"]
    assert left(house) == []


def test_nothing_is_written_while_no_connection_is_lost(house: House) -> None:
    channel = house.talking()
    channel.ends()
    channel.wait_stage("held")
    channel.hang_up()
    channel.wait_closed()
    assert not (house.state / "calls").exists()


def test_what_is_left_is_for_this_user_alone(house: House) -> None:
    first = house.talking()
    first.lose_controller()
    eventually(lambda: left(house))
    folder = house.state / "calls"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / UUID).stat().st_mode) == 0o600


def test_a_call_that_was_handed_off_is_not_handed_off_again(house: House) -> None:
    first = house.talking()
    first.ends()
    first.wait_stage("held")
    second = house.restarted(first)
    second.wait_stage("held")
    second.hang_up()
    second.wait_closed()
    assert accepted(house) == ["bot_ended"]
    assert second.starts == [] and "displace start" not in second.story


def test_a_bot_that_was_done_does_not_begin_anew(house: House) -> None:
    first = house.talking()
    first.ends({"summary": "billing"}, done=False)
    first.wait_stage("ended")
    second = house.restarted(first)
    second.wait(lambda: second.starts)
    assert second.starts[0]["headers"][control.PART] == Part.OVER
    second.relay.is_done()
    second.wait_stage("held")
    (post,) = house.posts()
    assert post["properties"]["summary"] == "billing" and post["properties"]["outcome"] == "bot_ended"


class SlowAmeyo:
    """An Ameyo client whose attempts end when the test says so."""

    def __init__(self, house: House, *verdicts: Verdict, sent: bool = True) -> None:
        self.release = Flag()
        self.begun = 0
        self._verdicts, self._sent = list(verdicts), sent
        house.controller._ameyo[WORKSPACE] = self  # type: ignore[assignment]

    def warm(self) -> None:
        """Nothing to open."""

    def notify(self, body: bytes, over: Flag, *, before: int, begin: Any, **_: Any) -> Iterator[Attempt]:
        for number, verdict in enumerate(self._verdicts, before + 1):
            if over.is_set():
                return
            begin(number)
            self.begun += 1
            self.release.wait()
            yield Attempt(number, verdict, None, "", 0.0, delay=0.05, sent=self._sent)


def under_way(house: House, ameyo: SlowAmeyo) -> Channel:
    """A call with a new FreeSWITCH, whose notification is under way with the controller before."""
    first = house.talking()
    first.ends()
    eventually(lambda: ameyo.begun)
    first.lose_controller()
    eventually(lambda: left(house))
    second = house.call(first.tracked, {"Core-UUID": "2"}, answered=True)
    second.wait(lambda: second.stages.count("handing_off"))
    return second


def test_a_notification_under_way_is_waited_for_and_not_repeated(house: House) -> None:
    ameyo = SlowAmeyo(house, Verdict.ACCEPTED)
    second = under_way(house, ameyo)
    gevent.sleep(0.2)  # it does not begin another one meanwhile
    assert ameyo.begun == 1
    ameyo.release.set()
    second.wait_stage("held")
    assert (ameyo.begun, left(house)) == (1, [])
    assert second.variables["eslbot_held_at"]


def test_a_notification_that_failed_meanwhile_is_repeated_when_it_is_due(house: House) -> None:
    ameyo = SlowAmeyo(house, Verdict.FAILED, Verdict.ACCEPTED)
    second = under_way(house, ameyo)
    ameyo.release.set()
    second.wait(lambda: second.variables["eslbot_attempts"] == "3")


def test_a_notification_that_was_not_sent_any_more_is_sent_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.calls.hand_off.DOUBT", 60.0)
    ameyo = SlowAmeyo(house, Verdict.INTERRUPTED, sent=False)
    second = under_way(house, ameyo)
    ameyo.release.set()
    second.wait(lambda: ameyo.begun >= 2)


def test_a_notification_of_which_its_sender_knows_nothing_is_repeated_behind_the_doubt(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.calls.hand_off.DOUBT", 0.1)
    ameyo = SlowAmeyo(house, Verdict.INTERRUPTED)
    doubts = metrics.IN_DOUBT.labels("acme")._value.get()
    second = under_way(house, ameyo)
    ameyo.release.set()
    second.wait(lambda: ameyo.begun >= 2)
    assert metrics.IN_DOUBT.labels("acme")._value.get() == doubts + 1


@pytest.mark.timed
def test_the_calls_own_clock_goes_on(house: House) -> None:
    house.workspace = replace(house.workspace, max_duration=1.0)
    first = house.talking()
    time.sleep(0.5)  # the time that is measured
    began = time.monotonic()
    second = house.restarted(first)
    second.wait_stage("held")
    assert time.monotonic() - began < 0.9, "max_duration counts from the first answer"
    assert accepted(house) == ["max_duration"]


def test_a_call_under_which_freeswitch_dies_again_goes_to_an_agent_without_its_bot(house: House) -> None:
    first = house.talking()
    second = house.restarted(first, "2")
    second.wait(lambda: second.displaced)
    third = house.restarted(second, "3")
    third.wait_stage("held")
    assert third.starts == []
    assert accepted(house) == [Outcome.SWITCH_LOST]
    assert "died 2 times within 60 s" in house.posts()[0]["properties"]["why"]


def ended_and_back(house: House) -> Channel:
    """A call that Ameyo has accepted and ended, and that FreeSWITCH, which died over it, brings back."""
    first = house.talking()
    first.ends()
    first.wait_stage("held")
    first.hang_up()
    first.wait_closed()
    return house.restarted(first)


def test_an_ended_call_that_comes_back_is_let_go(house: House) -> None:
    """FreeSWITCH was killed in the second of the BYE: the call's row was still there."""
    before = metrics.ENDED_CALLS_RECOVERED._value.get()
    with capture_logs() as told:
        second = ended_and_back(house)
        eventually(lambda: any(line["event"] == "ended_call_came_back" for line in told))
        known = len(house.facts)
        second.hang_up("recv_refuse", "NORMAL_TEMPORARY_FAILURE")  # 481: the PBX knows it no more
        second.wait_closed()
    assert accepted(house) == ["bot_ended"], "Ameyo is not told again"
    assert second.starts == [] and "displace start" not in second.story
    assert (len(house.facts), left(house)) == (known, []), "the ledger has its end, and nobody looks for it"
    assert metrics.ENDED_CALLS_RECOVERED._value.get() == before + 1
    assert not [line for line in told if line["event"] in ("call_stranded", "call_taken_over")]


def test_another_worker_knows_of_its_end_too(house: House) -> None:
    first = house.talking()
    first.hang_up()
    first.wait_closed()
    house._controller = None
    house.row = house.counts.take_row()
    second = house.restarted(first)
    eventually(lambda: house.controller.calls)
    second.hang_up("recv_refuse")
    second.wait_closed()
    assert second.starts == [] and house.posts() == []


def test_an_ended_call_that_its_pbx_accepts_lives_after_all(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.calls.take_over.DROP_DUE", 0.1)
    with capture_logs() as told:
        second = ended_and_back(house)
        second.wait(lambda: second.displaced)
    assert [line["after_seconds"] for line in told if line["event"] == "ended_call_stays"] == [0.1]
    second.ends()
    second.wait_stage("held")


def test_a_call_that_our_side_ended_is_no_ended_call(house: House) -> None:
    """Its PBX may not have heard of it: whether it comes back, and Ameyo is told, is as with any other."""
    first = house.talking()
    first.hang_up("send_bye")
    first.wait_closed()
    second = house.restarted(first)
    second.wait(lambda: second.displaced)
    second.ends()
    second.wait_stage("held")


def test_a_death_that_is_long_ago_does_not_count(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.calls.checkpoint.DEATHS_WITHIN", 0.0)
    first = house.talking()
    second = house.restarted(first, "2")
    second.wait(lambda: second.displaced)
    third = house.restarted(second, "3")
    third.wait(lambda: third.displaced)
    assert [fact["restarts"] for fact in house.facts if fact["what"] == What.SWITCH_RESTARTED] == [1, 2]
    third.ends()
    third.wait_stage("held")
    assert accepted(house) == ["bot_ended"]


def test_a_controller_that_dies_behind_a_restart_loses_nothing_of_it(house: House) -> None:
    first = house.talking()
    second = house.restarted(first)
    second.wait(lambda: second.displaced)
    third = house.taken_over(second, {"Core-UUID": "2"})
    third.ends()
    third.wait_stage("held")
    assert third.starts == [], "the same FreeSWITCH: its stream is there"
    assert len([fact for fact in house.facts if fact["what"] == What.SWITCH_RESTARTED]) == 1


def test_where_nothing_was_left_the_channel_alone_decides(house: House) -> None:
    """Controller and FreeSWITCH died together: the relay still knows how far the bot is."""
    first = house.talking()
    first.lose_controller()
    eventually(lambda: left(house))
    (house.state / "calls" / UUID).unlink()
    second = house.restarted(first)
    second.wait(lambda: second.displaced)
    assert second.starts[0]["headers"][control.PART] == Part.NEW
    assert house.told(What.SWITCH_RESTARTED)["gap"] is None
    second.ends()
    second.wait_stage("held")
    assert accepted(house) == ["bot_ended"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b'{"variables": {}}',
        b"[" * 100_000,
        b"x" * (600 * 1024),
        json.dumps({"boot": "another", "variables": {}}).encode(),
        json.dumps({"variables": {"eslbot_stage": 7}, "invited_at": "soon"}).encode(),
    ],
    ids=["empty", "list", "half", "no times", "deep", "long", "before the boot", "no numbers"],
)
def test_what_cannot_be_read_is_told_and_the_call_goes_on(house: House, content: bytes) -> None:
    first = house.talking()
    first.lose_controller()
    eventually(lambda: left(house))
    (house.state / "calls" / UUID).write_bytes(content)
    second = house.restarted(first)
    second.ends()
    second.wait_stage("held")
    assert accepted(house) == ["bot_ended"]


def test_what_a_controller_leaves_late_is_of_no_use_any_more(house: House) -> None:
    """A connection that broke half: the next controller had the call before the first one noticed."""
    first = house.talking()
    first.lose_controller()
    eventually(lambda: left(house))
    late = (house.state / "calls" / UUID).read_bytes()
    second = house.taken_over(first)
    second.ends()
    second.wait_stage("held")
    second.lose_controller()
    eventually(lambda: left(house))
    (house.state / "calls" / UUID).write_bytes(late)
    third = house.taken_over(second)
    third.wait(lambda: "stream stop" in third.story)
    assert left(house) == [] and third.starts == []
    third.hang_up()
    third.wait_closed()
    assert accepted(house) == ["bot_ended"], "talking was long ago"


def test_a_full_disk_is_told(house: House) -> None:
    (house.state / "calls").write_text("not a directory")
    first = house.talking()
    with capture_logs() as told:
        second = house.restarted(first)
        second.ends()
        second.wait_stage("held")
    assert any(line["event"] == "call_not_survived" and line["remedy"] for line in told)


def test_the_relay_that_has_the_call_is_asked_first(house: House) -> None:
    first = house.talking()
    first.relay.odd = {"url": "ws://127.0.0.1:40123/"}
    first.relay.state()
    eventually(lambda: first.variables.get("eslbot_relay"))
    second = house.restarted(first)
    second.wait(lambda: second.displaced)
    assert second.starts[0]["url"] == "ws://127.0.0.1:40123/"
