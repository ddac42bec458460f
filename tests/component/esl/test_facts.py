"""What a call tells the ledger, in every way it can go."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from gevent.event import Event as Flag

from eslbot.ameyo.client import AmeyoClient, Attempt
from eslbot.ameyo.retry import Verdict
from eslbot.ledger import observer
from eslbot.ledger.facts import What
from eslbot.relay.control import News
from tests.component.esl.conftest import OTHER, House
from tests.support.ameyo_server import Answer
from tests.support.peer import eventually
from tests.support.switch import CRT, DID, UUID, WORKSPACE

WHO = {
    "workspace": "acme",
    "workspace_id": WORKSPACE,
    "did": DID,
    "crt_object_id": CRT,
    "caller": "0401234567",
    "called": "bot",
    "source": "127.0.0.1",
}


def test_a_whole_call(house: House) -> None:
    channel = house.talking()
    relay = channel.relay
    relay.tells(News.BEGAN, ago=0.0)
    relay.tells(News.CALLER_SPEECH, speaking=True)
    channel.event("DTMF", {"DTMF-Digit": "5", "DTMF-Duration": "800"})
    relay.tells(News.CLEARED)
    relay.tells(News.MARK, name="hello", cleared=True)
    relay.tells(News.SILENT, cut=True, ago=0.0)
    relay.tells(News.CALLER_SPEECH, speaking=False)
    channel.ends()
    channel.wait_stage("held")
    channel.hang_up()
    channel.wait_closed()
    assert [fact["what"] for fact in house.facts] == [
        "admitted",
        "answered",
        "bot_connecting",
        "bot_connected",
        "speech_began",
        "caller_speaks",
        "key",
        "cleared",
        "mark",
        "speech_ended",
        "caller_speaks",
        "bot_ended",
        "attempt_began",
        "attempt",
        "ended",
    ]
    assert {fact["call"] for fact in house.facts} == {UUID}
    assert house.told(What.ADMITTED).items() >= WHO.items()
    assert house.told(What.ADMITTED)["invited_at"] == pytest.approx(time.time(), abs=60)
    assert house.told(What.MARK).items() >= {"name": "hello", "cleared": True}.items()
    assert house.told(What.SPEECH_ENDED)["cut"] is True
    assert house.told(What.KEY) == {"call": UUID, "what": "key"}, "which key, is nobody's business"
    assert house.told(What.BOT_ENDED).items() >= {"outcome": "bot_ended", "reason": "done"}.items()
    assert house.told(What.ATTEMPT).items() >= {"number": 1, "verdict": "accepted", "status": 200}.items()
    ended = house.told(What.ENDED)
    assert ended.items() >= {"disposition": "recv_bye", "handed_off": True, "outcome": "bot_ended"}.items()


def test_a_caller_who_hangs_up(house: House) -> None:
    channel = house.talking()
    channel.hang_up()
    channel.wait_closed()
    ended = house.told(What.ENDED)
    assert ended.items() >= {"outcome": "caller_hangup", "handed_off": False, "stage": "talking"}.items()


def test_refusals_with_as_much_as_is_known(house: House) -> None:
    for variables, known in (
        ({"sip_from_display": "nonsense"}, {"why": "malformed_display_name", "status": 400}),
        ({"sip_h_X-Workspace-ID": OTHER}, {"why": "unknown_workspace", "status": 403, "did": DID}),
    ):
        channel = house.call(variables)
        channel.wait_closed()
        assert house.facts.pop().items() >= {"what": "refused", "source": "127.0.0.1", **known}.items()
    assert house.facts == []


def test_every_attempt(house: House) -> None:
    house.ameyo.answers[:] = [Answer(503), Answer(200)]
    channel = house.talking()
    channel.ends()
    channel.wait_stage("held")
    channel.hang_up()
    channel.wait_closed()
    attempts = [fact for fact in house.facts if fact["what"] == "attempt"]
    assert [(a["number"], a["verdict"], a["status"]) for a in attempts] == [
        (1, "failed", 503),
        (2, "accepted", 200),
    ]
    assert [fact["number"] for fact in house.facts if fact["what"] == "attempt_began"] == [1, 2]
    assert all(0 < attempt["seconds"] < 20 for attempt in attempts)


def test_a_take_over_says_all_that_is_known(house: House) -> None:
    before = house.talking()
    before.lose_controller()
    eventually(lambda: not house.controller.calls)
    assert house.told(What.LEFT)["why"] == "connection_lost"
    channel = house.taken_over(before)
    channel.wait(lambda: channel.texts)
    channel.hang_up()
    channel.wait_closed()
    taken = house.told(What.TAKEN_OVER)
    assert taken.items() >= {**WHO, "take_overs": 1, "stage": "talking", "attempts": 0}.items()


def test_the_timeline_is_bounded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observer, "MAX_TIMELINE", 5)
    channel = house.talking()
    for _ in range(20):
        channel.relay.tells(News.CALLER_SPEECH, speaking=True)
    channel.ends()
    channel.wait_stage("held")
    channel.hang_up()
    channel.wait_closed()
    told = [fact["what"] for fact in house.facts]
    assert (told.count("caller_speaks"), told.count("timeline_full")) == (4, 1)
    assert told[-1] == "ended", "what the record is made of is always told"


def test_a_bye_that_overtakes_ameyos_answer(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ameyo tells the PBX before it answers: the notification was accepted all the same, and is told so."""
    channel = house.talking()

    def notify(client: AmeyoClient, body: bytes, over: Flag, *, begin: Any, **_: Any) -> Iterator[Attempt]:
        begin(1)
        channel.hang_up()
        assert over.wait(5)
        yield Attempt(1, Verdict.ACCEPTED, 200, "", 0.01)

    monkeypatch.setattr(AmeyoClient, "notify", notify)
    channel.ends()
    channel.wait_closed()
    assert house.told(What.ATTEMPT)["verdict"] == "accepted"
    assert house.told(What.ENDED)["handed_off"] is True
