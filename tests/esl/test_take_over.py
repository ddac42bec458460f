"""A controller goes away in mid-call, and another goes on from what is on the channel."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
import structlog

from eslbot import metrics
from eslbot.bot.folder import STALE, SpeechFolder
from eslbot.bot.speech import cut_of, done_of
from eslbot.identity import Signer
from eslbot.ledger.facts import What
from tests.esl.conftest import AMEYO_TOKEN, BOT_TOKEN, OTHER, House
from tests.esl.test_speech import sound, without_silence
from tests.support.ameyo_server import Answer
from tests.support.peer import eventually
from tests.support.switch import CRT, DID, INVITE, SIGNER, UUID, WORKSPACE, Channel, Player, end
from tests.support.wire import NO_NUMBERS


def told(channel: Channel, *kinds: str) -> list[dict[str, Any]]:
    texts = [json.loads(text) for text in channel.texts]
    return [text for text in texts if not kinds or text["type"] in kinds]


def answers(channel: Channel, *more: dict[str, Any]) -> None:
    """The bot answers `resumed`, and repeats what it had sent."""

    def answer(message: dict[str, Any]) -> None:
        if message["type"] == "resumed":
            for text in ({"type": "resumed"}, *more):
                channel.says(text)

    channel.on_text = answer


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.bot.leg.RESUMED", 0.2)
    monkeypatch.setattr("eslbot.call.DOUBT", 0.2)


def outcome(house: House, channel: Channel) -> str:
    channel.wait_stage("held")
    return str(house.posts()[-1]["properties"]["outcome"])


# -- the bot goes on --------------------------------------------------------------------------------------


def test_the_bot_keeps_its_stream_and_is_told(house: House) -> None:
    first = house.talking()
    first.wait_stage("talking")
    second = house.taken_over(first)
    answers(second)
    second.wait(lambda: told(second, "resumed"))
    second.says(end({"summary": "billing"}))
    assert outcome(house, second) == "bot_ended"
    assert second.starts == []
    assert second.stages == ["ended", "handing_off", "held"]
    assert [text["type"] for text in told(second)] == ["resumed", "stop"]
    assert second.variables["eslbot_take_overs"] == "1"
    third = house.taken_over(second)
    third.wait(lambda: third.variables["eslbot_take_overs"] == "2")
    assert len(house.posts()) == 1


def test_an_end_that_fell_into_the_gap_is_recovered(house: House) -> None:
    first = house.talking()
    first.wait_stage("talking")
    second = house.taken_over(first)
    answers(second, end({"summary": "billing"}))
    assert outcome(house, second) == "bot_ended"
    assert house.posts()[-1]["properties"]["summary"] == "billing"


def test_a_bot_that_answers_is_not_restarted(house: House) -> None:
    first = house.talking()
    first.wait_stage("talking")
    second = house.taken_over(first)
    answers(second)
    second.wait(lambda: told(second, "resumed"))
    gevent.sleep(0.4)  # twice the time after which a silent bot is lost
    assert second.starts == [] and second.attached


def test_a_bot_that_says_nothing_gets_a_new_stream(house: House) -> None:
    first = house.talking()
    first.wait_stage("talking")
    second = house.taken_over(first)
    second.wait(lambda: told(second, "start"))
    assert second.story.index("stream stop") < second.story.index("stream start")
    (start,) = told(second, "start")
    assert start["resumed"] is True
    second.says(end())
    assert outcome(house, second) == "bot_ended"


def test_a_stream_that_is_gone_is_started_anew(house: House) -> None:
    first = house.talking()
    first.wait_stage("talking")
    first.attached = False
    second = house.taken_over(first)
    second.wait(lambda: told(second, "start"))
    assert told(second, "start")[0]["resumed"] is True
    assert len(second.starts) == 1


def test_a_bot_that_is_gone_for_good_is_a_hand_off(house: House) -> None:
    first = house.talking()
    first.wait_stage("talking")
    second = house.taken_over(first)
    second.on_start = lambda number: second.refuse_stream()
    assert outcome(house, second) == "bot_failed"


@pytest.mark.parametrize("stage", ["", "admitted", "answered", "connecting", "nonsense"])
def test_a_bot_that_was_not_there_yet_is_connected(house: House, stage: str) -> None:
    channel = house.call({"eslbot_stage": stage}, answered=True)
    channel.attached = True  # a start whose outcome nobody has seen
    channel.wait_stage("talking")
    assert channel.story.index("stream stop") < channel.story.index("stream start")
    (start,) = told(channel, "start")
    assert "resumed" not in start
    assert house.counts.total(WORKSPACE) == 1


def test_the_time_of_a_call_goes_on(house: House) -> None:
    house.workspace = replace(house.workspace, max_duration=60.0)
    answered, now = 1_700_000_000_000_000, 1_700_000_059_800_000
    times = {"Event-Date-Timestamp": str(now), "Caller-Channel-Answered-Time": str(answered)}
    channel = house.call({"eslbot_stage": "talking"}, times, answered=True)
    channel.attached = True
    answers(channel)
    assert outcome(house, channel) == "max_duration"


def test_a_bot_that_has_spoken_may_be_silent(house: House) -> None:
    house.with_bot(first_audio_timeout=0.2)
    for variables, expected in [({}, "bot_silent"), ({"eslbot_spoken": "true"}, "bot_ended")]:
        channel = house.call({"eslbot_stage": "talking", **variables}, answered=True)
        channel.attached = True
        answers(channel)
        channel.wait(lambda channel=channel: told(channel, "resumed"))
        gevent.sleep(0.4)  # twice the time after which a bot that has not spoken is silent
        channel.says(end())
        assert outcome(house, channel) == expected
        channel.hang_up()
        channel.wait_closed()


def test_a_refused_subscription_leaves_the_call_to_the_next(house: House) -> None:
    channel = house.call({"eslbot_stage": "held"}, answered=True)
    channel.mute = ("event", "api")
    channel.wait(lambda: any(command.startswith("event") for command in channel.commands))
    channel.peer.send(b"Content-Type: command/reply\nReply-Text: -ERR no keywords supplied\n\n")
    channel.wait_closed()


# -- speech -----------------------------------------------------------------------------------------------


class Heard:
    """A call that speaks, over all its controllers."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house, self.folder = house, folder
        house.temp_dir = str(folder)
        self.channel = house.talking()
        self.channel.wait_stage("talking")
        self.players = [Player(self.channel)]
        self._number = 0

    def write(self, content: bytes, kind: str = "pcmu") -> Path:
        """The module writes a chunk."""
        path = self.folder / f"{UUID}_{self._number}.tmp.{kind}"
        self._number += 1
        path.write_bytes(content)
        return path

    def say(self, content: bytes, kind: str = "pcmu") -> None:
        self.tell(self.write(content, kind), kind)

    def tell(self, path: Path, kind: str = "pcmu") -> None:
        name = kind if kind in ("pcmu", "pcma", "wav") else "raw"
        self.channel.custom("play", {"audioDataType": name, "sampleRate": 8000, "file": str(path)})

    def take_over(self, *bot_repeats: dict[str, Any]) -> None:
        before = self.channel
        before.lose_controller()
        eventually(lambda: not self.house.controller.calls)
        self.channel = self.house.call(dict(before.variables), answered=True)
        self.channel.attached = True
        self.players.append(Player(self.channel))
        answers(self.channel, *bot_repeats)

    @property
    def heard(self) -> bytes:
        return b"".join(without_silence(player.heard) for player in self.players)

    def wait(self, expected: bytes) -> None:
        self.channel.wait(lambda: self.heard == expected)

    def quiet(self) -> None:
        """Until the bot's last word was heard, and the call was handed off."""
        self.channel.says(end())
        self.channel.wait_stage("held")

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


def test_a_bot_whose_connection_nobody_noted_begins_anew_and_is_heard(house: House, tmp_path: Path) -> None:
    house.temp_dir = str(tmp_path)
    for name in (f"{UUID}_0.eslbot.PCMU", f"{UUID}_3.tmp.r8.taken"):
        (tmp_path / name).write_bytes(sound(100))
    channel = house.call({"eslbot_stage": "connecting"}, answered=True)
    player = Player(channel)
    channel.wait_stage("talking")
    said = sound(100)
    (tmp_path / f"{UUID}_3.tmp.pcmu").write_bytes(said)
    path = f"{tmp_path}/{UUID}_3.tmp.pcmu"
    channel.custom("play", {"audioDataType": "pcmu", "sampleRate": 8000, "file": path})
    channel.says(end())
    channel.wait_stage("held")
    assert without_silence(player.heard) == said
    assert list(tmp_path.iterdir()) == []
    player.close()


@pytest.fixture
def speaking(house: House, tmp_path: Path) -> Iterator[Heard]:
    call = Heard(house, tmp_path)
    yield call
    for player in call.players:
        player.close()
    assert call.files() == [], "nothing is left behind"


def test_speech_goes_on_where_it_was_cut(speaking: Heard) -> None:
    first, second = sound(600), sound(200)
    speaking.say(first)
    speaking.channel.wait(lambda: speaking.heard)
    speaking.take_over()
    speaking.say(second)
    speaking.quiet()
    assert speaking.heard == first + second


def test_speech_survives_one_take_over_after_the_other(speaking: Heard) -> None:
    said = sound(1500)
    speaking.say(said)
    for _ in range(5):
        before = len(speaking.heard)
        speaking.channel.wait(lambda before=before: len(speaking.heard) > before)
        speaking.take_over()
    speaking.quiet()
    assert speaking.heard == said


def test_speech_that_had_not_begun_yet_is_not_lost(speaking: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = sound(60), sound(60), sound(60)
    speaking.say(first)
    speaking.wait(first)
    eventually(lambda: speaking.files() == [])
    monkeypatch.setattr("eslbot.bot.speech.START_DELAY", 5.0)
    speaking.say(second)
    speaking.channel.wait(lambda: any(name.endswith("_1.eslbot.PCMU") for name in speaking.files()))
    monkeypatch.setattr("eslbot.bot.speech.START_DELAY", 0.08)
    speaking.take_over()
    speaking.say(third)
    speaking.quiet()
    assert speaking.heard == first + second + third


def test_chunks_that_came_while_nobody_listened_are_said_in_order(speaking: Heard) -> None:
    chunks = [sound(60) for _ in range(12)]
    speaking.say(chunks[0])
    speaking.channel.wait(lambda: speaking.heard)
    for chunk in chunks[1:11]:
        speaking.write(chunk)
    speaking.take_over()
    speaking.say(chunks[11])
    speaking.quiet()
    assert speaking.heard == b"".join(chunks)


def test_a_chunk_whose_event_comes_after_it_was_taken_is_said_once(speaking: Heard) -> None:
    first, second = sound(100), sound(100)
    speaking.say(first)
    speaking.wait(first)
    path = speaking.write(second)
    speaking.take_over()
    speaking.channel.wait(lambda: not path.exists())
    speaking.tell(path)
    speaking.quiet()
    assert speaking.heard == first + second


def test_a_chunk_that_was_taken_early_by_the_controller_before_is_said_once(speaking: Heard) -> None:
    first, second = sound(200), sound(100)
    speaking.say(first)
    path = speaking.write(second)
    speaking.channel.wait(lambda: not path.exists())  # taken before its event
    speaking.take_over()
    speaking.tell(path)
    speaking.quiet()
    assert speaking.heard == first + second


def test_half_a_wav_file_waits_for_its_event(speaking: Heard) -> None:
    header = b"RIFF" + (36 + 1600).to_bytes(4, "little") + b"WAVEfmt "
    header += bytes.fromhex("10000000 0100 0100 401f0000 803e0000 0200 1000") + b"data"
    whole = header + (1600).to_bytes(4, "little") + b"\x00\x10" * 800
    first = sound(60)
    speaking.say(first)
    speaking.wait(first)
    path = speaking.write(whole[:500], "wav")
    speaking.take_over()
    speaking.channel.wait(lambda: told(speaking.channel, "resumed"))
    assert path.exists()
    path.write_bytes(whole)
    speaking.tell(path, "wav")
    speaking.quiet()
    assert len(speaking.heard) == len(first) + 800


def test_what_a_bot_has_cleared_is_not_taken_up(speaking: Heard) -> None:
    speaking.say(sound(1000))
    speaking.channel.wait(lambda: speaking.heard)
    speaking.players[0].mute = True  # the controller dies before it hears of the end
    speaking.channel.says({"type": "clear"})
    speaking.channel.wait(lambda: told(speaking.channel, "cleared"))
    heard = speaking.heard
    speaking.take_over()
    speaking.quiet()
    assert speaking.heard == heard


def test_the_last_words_are_heard_though_the_controller_dies_in_them(speaking: Heard) -> None:
    said = sound(800)
    speaking.say(said)
    speaking.channel.says(end({"summary": "billing"}))
    speaking.channel.wait_stage("ended")
    speaking.channel.wait(lambda: speaking.heard)
    speaking.take_over()
    assert outcome(speaking.house, speaking.channel) == "bot_ended"
    assert speaking.heard == said
    assert speaking.house.posts()[-1]["properties"]["summary"] == "billing"
    assert told(speaking.channel, "resumed") == []


def test_a_hang_up_after_a_take_over_leaves_no_file(speaking: Heard) -> None:
    speaking.say(sound(1000))
    speaking.channel.wait(lambda: speaking.heard)
    speaking.take_over()
    speaking.channel.wait(lambda: told(speaking.channel, "resumed"))
    speaking.channel.hang_up()
    speaking.channel.wait_closed()
    eventually(lambda: speaking.files() == [])


def test_a_mark_that_the_bot_repeats_comes_back(speaking: Heard) -> None:
    speaking.say(sound(400))
    speaking.channel.says({"type": "mark", "name": "heard"})
    speaking.channel.wait(lambda: speaking.heard)
    speaking.take_over({"type": "mark", "name": "heard"})
    speaking.quiet()
    assert told(speaking.channel, "mark") == [{"type": "mark", "name": "heard"}]


def test_on_another_host_speech_is_played_by_its_path(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = house.talking({"eslbot_stage": "talking"})
    first.wait_stage("talking")
    house.temp_dir = str(tmp_path / "not-here")
    house._controller = None
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            first.lose_controller()
            second = house.call({**first.variables, "eslbot_spoken": "true"}, answered=True)
            second.attached = True
            answers(second)
            second.wait(lambda second=second: told(second, "resumed"))
            path = second.speaks(7, f"{house.temp_dir}/{UUID}_7.tmp.r8")
            second.wait(lambda second=second, path=path: ("playback", path) in second.applications)
            first = second
    assert [line["event"] for line in lines].count("speech_by_path") == 1, "once in a worker's life"


def test_what_was_played_by_path_is_not_said_again(house: House, tmp_path: Path) -> None:
    house.temp_dir = str(tmp_path)
    chunks = [sound(100) for _ in range(4)]
    for number, chunk in enumerate(chunks):
        (tmp_path / f"{UUID}_{number}.tmp.pcmu").write_bytes(chunk)
    for number in range(4):  # of another controller, which was before the one that played by path
        (tmp_path / f"{UUID}_{number}.eslbot.PCMU").write_bytes(sound(100))
    found = {"eslbot_stage": "talking", "eslbot_spoken": "true"}
    by_path = {"eslbot_speech": "path", "eslbot_speech_done": "1"}
    channel = house.call({**found, **by_path}, answered=True)
    channel.attached = True
    players = [Player(channel)]
    answers(channel)
    channel.wait(lambda: len(without_silence(players[0].heard)) > 800)
    channel.lose_controller()
    eventually(lambda: not house.controller.calls)
    # The next one finds an utterance, and still the files that were played by path.
    channel = house.call(dict(channel.variables), answered=True)
    channel.attached = True
    players.append(Player(channel))
    answers(channel, end())
    channel.wait_stage("held")
    assert b"".join(without_silence(player.heard) for player in players) == chunks[2] + chunks[3]
    for player in players:
        player.close()


# -- what is left behind ----------------------------------------------------------------------------------


def test_a_sweep_takes_old_files_of_calls_and_nothing_else(tmp_path: Path) -> None:
    import os

    old = time.time() - STALE - 1
    stale = [f"{UUID}_3.eslbot.PCMU", f"{UUID}_9.tmp.r8.taken", f"{UUID}_10.tmp.wav"]
    kept = [f"{UUID}_4.eslbot.PCMA", "music.wav", f"{UUID}.eslbot.PCMU", "x_3.eslbot.PCMU"]
    for name in stale + kept:
        (tmp_path / name).write_bytes(b"")
    for name in [*stale, *kept[1:]]:
        os.utime(tmp_path / name, (old, old))
    assert SpeechFolder(str(tmp_path)).sweep() == len(stale)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_a_sweep_of_a_folder_that_is_not_here(tmp_path: Path) -> None:
    assert SpeechFolder(str(tmp_path / "x")).sweep() == 0


# -- the hand-off goes on ---------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["customer asked", ""])
def test_a_hand_off_goes_on_with_what_the_bot_said(house: House, reason: str) -> None:
    house.ameyo.answers[:] = [Answer(500)]
    first = house.talking()
    first.says(end({"summary": "billing"}, reason))
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
def test_a_stream_that_the_controller_before_has_left_open_is_closed(house: House, stage: str) -> None:
    channel = house.call({"eslbot_stage": stage, "eslbot_outcome": "bot_ended"}, answered=True)
    channel.attached = True
    channel.wait(lambda: not channel.attached)
    channel.wait_stage("held") if stage != "held" else None
    assert channel.starts == []


def test_a_stream_that_cannot_be_stopped_is_a_hand_off(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.bot.stream.STOPPED", 0.2)
    channel = house.call({"eslbot_stage": "connecting"}, answered=True)
    channel.attached = channel.stuck = True
    channel.wait_stage("held")
    assert channel.starts == []
    assert house.posts()[0]["properties"]["outcome"] == "bot_unreachable"


def test_a_retry_after_is_waited_for_by_the_next_controller(house: House) -> None:
    house.ameyo.answers[:] = [Answer(503, headers={"Retry-After": "1"}), Answer(200)]
    first = house.talking()
    first.says(end())
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
        channel.wait(lambda: channel.texts)
        (start,) = channel.starts
        assert (start["url"], start["headers"]["Authorization"]) == (house.bot.urls[0], BOT_TOKEN)
        assert start["headers"]["X-Workspace-ID"] == WORKSPACE
        assert start["headers"]["X-CRT-Object-ID"] == CRT
        channel.says(end())
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
        channel.says(end())
        channel.event("DTMF", {"DTMF-Digit": "1"})
        gevent.sleep(0.1)  # in which a command that must not come would
        assert not channel._greenlet.ready()
        assert (channel.applications, channel.stages, channel.starts) == ([], [], [])
        channel.hang_up()
        channel.wait_closed()
        eventually(lambda: not house.controller.calls)
    (line,) = [line for line in lines if line["event"] == "identity_not_verified"]
    assert line["log_level"] == "error" and "server.key_file" in line["remedy"]
    assert [line["event"] for line in lines if line["event"] == "call_ended"] == ["call_ended"]
    assert metrics.NOT_VERIFIED._value.get() == unverified + 1
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
    answers(again, end())
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


def test_who_was_admitted_and_not_answered_is_asked_no_more(house: House) -> None:
    """The worker died between its admission and the answer; an UPDATE came in between."""
    channel = house.call({"eslbot_identity": SIGNER.sign(INVITE), "sip_from_display": "Alice"})
    channel.wait_stage("talking")
    assert json.loads(channel.texts[0])["crt_object_id"] == CRT


# -- a BYE that does not come -----------------------------------------------------------------------------


def overdue(lines: list[Any]) -> list[Any]:
    return [line for line in lines if line["event"] == "bye_overdue"]


def test_a_bye_that_does_not_come_is_an_alarm_and_nothing_else(house: House) -> None:
    house.workspace = replace(house.workspace, ameyo=replace(house.rest, bye_timeout=0.2))
    channel = house.talking()
    with structlog.testing.capture_logs() as lines:
        channel.says(end())
        channel.wait(lambda: len(overdue(lines)) >= 2)
        channel.hang_up()
        channel.wait_closed()
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


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_step_of_the_hosts_clock_is_no_alarm(
    house: House, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    """Forward it was an alarm, and with ``renotify`` a POST, for each minute of the step, without a pause."""
    house.workspace = replace(house.workspace, ameyo=replace(house.rest, bye_timeout=1.0, renotify=True))
    channel = house.talking()
    with structlog.testing.capture_logs() as lines:
        channel.says(end())
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
    channel.says(end())
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


def test_a_worker_that_leaves_waits_for_the_bots_next_pause(speaking: Heard) -> None:
    said = sound(700)
    speaking.say(said)
    speaking.channel.wait(lambda: speaking.heard)
    speaking.house.controller.hand_over(0.0)
    speaking.channel.wait_closed()
    assert speaking.heard == said


def test_a_worker_that_leaves_lets_the_bot_be_connected(house: House) -> None:
    house.with_bot(connect_timeout=5.0)
    channel = house.call()
    channel.on_start = lambda number: None
    channel.wait_stage("connecting")
    leaving = gevent.spawn(house.controller.hand_over, 0.0)
    eventually(lambda: house.controller.draining)
    channel.custom("connect", {"status": "connected"})
    leaving.get(timeout=2)
    assert channel.stages[-1] == "talking"
    assert channel.story[-1] == "noevents"
    assert len(channel.starts) == 1


def test_a_bot_that_is_not_there_for_long_keeps_no_worker(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.call.BOT_DUE", 0.1)
    house.with_bot(connect_timeout=5.0)
    channel = house.call()
    channel.on_start = lambda number: None
    channel.wait_stage("connecting")
    house.controller.hand_over(0.0)
    assert channel.stages[-1] == "connecting"


def test_a_bot_that_never_pauses_keeps_no_worker(speaking: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.controller.PATIENCE", 0.2)
    said = sound(2000)
    speaking.say(said)
    speaking.channel.wait(lambda: speaking.heard)
    speaking.house.controller.hand_over(0.0)
    assert len(speaking.heard) < len(said) / 2
    speaking.take_over()
    speaking.quiet()
    assert speaking.heard == said


def test_a_bye_that_is_due_finds_its_controller(house: House) -> None:
    channel = house.talking()
    channel.says(end())
    channel.wait_stage("held")
    leaving = gevent.spawn(house.controller.hand_over, 0.0)
    gevent.sleep(0.2)  # in which a controller that must stay would have gone
    channel.hang_up()
    leaving.get(timeout=2)
    assert "noevents" not in channel.story


def test_a_post_that_is_under_way_is_noted_first(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.controller.PATIENCE", 0.1)
    house.ameyo.answers[:] = [Answer(200, write=_slowly)]
    channel = house.talking()
    channel.says(end())
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
    channel.says(end())
    channel.wait_stage("held")
    channel.hang_up()
    leaving.get(timeout=2)
    assert "noevents" not in channel.story


def test_a_freeswitch_that_does_not_answer_keeps_no_worker(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = house.talking()
    channel.wait_stage("talking")
    monkeypatch.setattr("eslbot.esl.session.TIMEOUT", 0.1)
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
    first.wait_stage("talking")
    second = house.taken_over(first)
    answers(second, end())
    second.wait_stage("held")
    assert house.posts()[-1]["uniqueId"] == CRT


# -- where FreeSWITCH was cut -----------------------------------------------------------------------------


def cut(read: int, position: int, milliseconds: int) -> int:
    """What :func:`cut_of` makes of it when the playback had begun so many milliseconds before."""
    channel = {
        "variable_eslbot_speech": "3.PCMU",
        "variable_playback_samples": str(read),
        "variable_playback_last_offset_pos": str(position),
        "variable_eslbot_speech_began": "1795386021000000",
        "variable_eslbot_left": str(1795386021000000 + 1000 * milliseconds),
    }
    name, played = cut_of(channel)
    assert name == "3.PCMU"
    return played


def test_what_freeswitch_has_read_ahead_is_not_taken_for_heard() -> None:
    # One look for 2 s of speech, and 15 frames of it sent: its position counts the first of them as half.
    assert cut(16000, 14 * 160 + 80, 295) == 15 * 160


def test_the_clock_counts_where_freeswitch_looked_often() -> None:
    # 50 frames, for every second of which it had to look.
    assert cut(8320, 25 * 160 + 25 * 80, 990) == 50 * 160


def test_no_more_was_heard_than_was_read() -> None:
    assert cut(8000, 25 * 160 + 25 * 80, 60_000) == 8000


@pytest.mark.parametrize("name", ["playback_last_offset_pos", "eslbot_speech_began", "eslbot_left"])
@pytest.mark.parametrize("value", ["0", "-5", "soon", *NO_NUMBERS])
def test_without_a_clock_what_was_read_counts_as_heard(name: str, value: str) -> None:
    channel = {
        "variable_eslbot_speech": "3.PCMU",
        "variable_playback_samples": "8000",
        "variable_playback_last_offset_pos": "6000",
        "variable_eslbot_speech_began": "1795386021000000",
        "variable_eslbot_left": "1795386021500000",
    }
    assert cut_of({**channel, f"variable_{name}": value}) == ("3.PCMU", 8000)
    assert cut_of({}) == ("", 0)


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_a_number_that_is_none_was_not_noted(text: str) -> None:
    assert cut_of({"variable_playback_samples": text}) == ("", 0)
    assert done_of({"variable_eslbot_speech_done": text}) == -1


def test_last_words_that_were_heard_are_not_waited_for(house: House, tmp_path: Path) -> None:
    house.temp_dir = str(tmp_path)
    variables = {"eslbot_stage": "ended", "eslbot_outcome": "bot_ended", "eslbot_properties": "{}"}
    channel = house.call(variables, answered=True)
    channel.attached = True
    assert outcome(house, channel) == "bot_ended"
    assert not channel.attached


def test_a_fault_that_repeats_itself_does_not_spin(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("eslbot.controller.FAULT_PAUSE", 0.3)
    monkeypatch.setattr("eslbot.call.Call.hand_off", fail)
    faults = metrics.INTERNAL_ERRORS._value.get()
    variables = {"eslbot_stage": "handing_off", "eslbot_outcome": "bot_ended", "eslbot_properties": "{}"}
    began = time.monotonic()
    channel = house.call(variables, answered=True)
    channel.wait_closed()
    assert time.monotonic() - began >= 0.3
    assert metrics.INTERNAL_ERRORS._value.get() == faults + 1
