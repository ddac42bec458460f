"""Every line that is logged while a call goes wrong in every way says whose call it is."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from eslbot.relay.control import News
from eslbot.telemetry import logs
from tests.component.esl.conftest import House
from tests.support import wire
from tests.support.ameyo_server import Answer
from tests.support.peer import eventually
from tests.support.switch import CRT, UUID, Channel

WHOSE = {"call_id": UUID, "workspace": "acme", "crt_object_id": CRT}


class Lines:
    """What was logged so far, as the service writes it."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    def __call__(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._stream.getvalue().splitlines()]

    def of(self, event: str) -> dict[str, Any]:
        """The first line of this event."""
        eventually(lambda: any(line["event"] == event for line in self()))
        return next(line for line in self() if line["event"] == event)

    def all_say_whose(self, *events: str) -> None:
        """Also that there were these."""
        for event in events:
            self.of(event)
        nameless = [line for line in self() if {key: line.get(key) for key in WHOSE} != WHOSE]
        assert nameless == []


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lines]:
    before, stream = structlog.get_config(), io.StringIO()
    with monkeypatch.context() as patched:
        patched.setattr("sys.stderr", stream)
        logs.configure(json_logs=True)
        yield Lines(stream)
    structlog.configure(**before)


def odd_frame(channel: Channel) -> None:
    """What only the greenlet sees that reads."""
    channel.peer.send(b"Content-Type: text/odd\n\n")


def test_from_the_admission_to_the_end(house: House, lines: Lines) -> None:
    house.ameyo.answers[:] = [Answer(500), Answer(401), Answer(200)]
    channel = house.talking()
    channel.peer.send(wire.reply("+OK nobody has asked"))
    odd_frame(channel)
    channel.custom("json", b"{")
    channel.relay.tells(News.RECONNECTED, why="closed with 1011")
    channel.relay.tells(News.LATE, by=0.5)
    channel.relay.tells(News.SHORT_PACKETS)
    channel.lose_stream()
    channel.wait(lambda: len(channel.starts) == 2)
    channel.ends(dropped=("unknown",))
    lines.of("hand_off_failed")
    channel.hang_up("send_bye")
    channel.wait_closed()
    lines.all_say_whose(
        "call_admitted",
        "bot_connected",
        "esl_reply_without_command",
        "esl_unknown_frame",
        "relay_text_ignored",
        "bot_reconnected",
        "caller_audio_late",
        "short_packets",
        "relay_stream_lost",
        "bot_properties_dropped",
        "bot_part_over",
        "hand_off_failed",
        "call_ended",
    )


def test_when_a_worker_leaves(house: House, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.esl.session.SETTLE", 0.05)
    channel = house.talking()
    channel.mute = ("noevents",)
    house.controller.hand_over(0.0)
    lines.all_say_whose("call_not_settled", "call_handed_over")


def test_when_the_connection_breaks_and_another_goes_on(house: House, lines: Lines) -> None:
    before = house.talking()
    channel = house.taken_over(before)
    lines.of("call_taken_over")  # before that, nobody has read whose it is
    odd_frame(channel)
    lines.all_say_whose("controller_connection_lost", "call_taken_over", "esl_unknown_frame")


def test_a_fault_of_ours(house: House, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("eslbot.calls.bot.leg.BotLeg.talk", broken)
    channel = house.call()
    channel.wait_stage("held")
    channel.hang_up()
    channel.wait_closed()
    lines.all_say_whose("talk_failed", "hand_off_accepted", "call_ended")
    assert "ZeroDivisionError" in lines.of("talk_failed")["exception"]


def test_a_post_s_own_greenlet(house: House, lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    logs_of_it = structlog.get_logger()

    def told(*_: object) -> str:
        logs_of_it.warning("of_the_post")
        return ""

    monkeypatch.setattr("eslbot.ameyo.client.AmeyoClient._detail", told)
    channel = house.talking()
    channel.ends(reason="")
    channel.wait_stage("held")
    lines.all_say_whose("of_the_post", "hand_off_accepted")


def test_one_call_s_lines_do_not_name_another(house: House, lines: Lines) -> None:
    first, second = house.talking(), house.call(uuid="another-uuid")
    second.wait_stage("talking")
    odd_frame(first)
    assert lines.of("esl_unknown_frame")["call_id"] == UUID
    assert {line["call_id"] for line in lines()} == {UUID, "another-uuid"}
