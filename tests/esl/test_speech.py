"""Speech, chunk by chunk, against a FreeSWITCH that plays the files: what is heard, what the bot is told."""

from __future__ import annotations

import base64
import errno
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gevent
import pytest
import structlog

from eslbot import g711
from eslbot.bot import speech as speech_module
from eslbot.bot.audio import UnusableAudio
from eslbot.bot.path_speech import MAX_AHEAD, PathSpeech
from eslbot.bot.speech import CUT_LIMIT, ODD, START_DELAY, QueueFull, Speech
from eslbot.call import HOLD_TONE
from eslbot.esl import Event, Session
from eslbot.sim.audio import heard, tone, tone_power
from eslbot.sim.bot import wires
from tests.esl.conftest import House
from tests.support.peer import Hung, bounded, eventually, tcp_pair
from tests.support.switch import UUID, Channel, Player
from tests.support.wire import NO_NUMBERS

_random = random.Random(3)


def sound(milliseconds: int) -> bytes:
    """Bytes of the line that are not silence, and not the same twice."""
    return bytes(_random.randrange(0x7F) for _ in range(8 * milliseconds))


def said_of(lines: list[Any]) -> list[str]:
    """The events an operator is told of."""
    return [entry["event"] for entry in lines if entry["log_level"] in ("warning", "error")]


def without_silence(line: bytes) -> bytes:
    return line.replace(g711.SILENCE["PCMU"], b"").replace(g711.SILENCE["PCMA"], b"")


def test_freeswitch_may_read_what_it_is_to_play_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        speech_module.Utterance(tmp_path / "x.PCMU", "PCMU")
    finally:
        os.umask(before)
    assert (tmp_path / "x.PCMU").stat().st_mode & 0o777 == 0o640


class Line:
    """A call's speech, driven by the test as a call's greenlet drives it."""

    def __init__(self, folder: Path, path_speech: bool = False) -> None:
        self.folder = folder
        ours, theirs = tcp_pair()
        self.channel = Channel(theirs, answered=True)
        self.player = Player(self.channel)
        self.session = Session(("127.0.0.1", 1), ours)
        self.session.connect()
        self.session.subscribe("PLAYBACK_START")
        self.marks: list[tuple[str, bool]] = []
        self.marked_at: list[float] = []
        self.speech: Speech | PathSpeech = (
            PathSpeech(self.session, self.marked)
            if path_speech
            else Speech(self.session, str(folder), self.marked)
        )
        self._number = 0

    def marked(self, name: str, cleared: bool) -> None:
        self.marks.append((name, cleared))
        self.marked_at.append(time.monotonic())

    def file(self, content: bytes, kind: str = "pcmu") -> str:
        path = self.folder / f"{UUID}_{self._number}.tmp.{kind}"
        self._number += 1
        path.write_bytes(content)
        return str(path)

    def say(self, content: bytes, law: str = "PCMU") -> None:
        self.speech.play(self.file(content), "pcmu", 8000, law)

    def run(self, until: Callable[[], object] | None = None, seconds: float = 3.0) -> None:
        """Until a condition holds, else for so long."""
        deadline = time.monotonic() + seconds
        while not (until and until()):
            left = deadline - time.monotonic()
            if left <= 0:
                if until:
                    raise Hung(
                        f"not within {seconds:g} s; {self.channel.story}, heard {len(self.player.heard)}"
                    )
                return
            due = self.speech.due()
            event = self.session.next_event(min(left, 0.01, max(0.0, (due or 9e9) - time.monotonic())))
            if event is not None and event.name == "PLAYBACK_START":
                self.speech.started(event)
            elif event is not None:
                self.speech.completed(event)
            self.speech.tick()

    def quiet(self) -> bool:
        return self.speech.idle

    @property
    def heard(self) -> bytes:
        return without_silence(self.player.heard)

    @property
    def playbacks(self) -> list[str]:
        return [argument for application, argument in self.channel.applications if application == "playback"]

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    line = Line(tmp_path)
    yield from _used(line)
    assert line.files() == [], "nothing is left behind"


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Line]:
    """A line whose files only FreeSWITCH can read."""
    yield from _used(Line(tmp_path, path_speech=True))


def _used(line: Line) -> Iterator[Line]:
    with bounded(15):
        yield line
    line.speech.close()
    line.session.stop()
    line.player.close()
    assert line.channel.violations == []


# -- one utterance ----------------------------------------------------------------------------------------


def test_chunks_are_appended_to_one_playback(line: Line) -> None:
    chunks = [sound(60) for _ in range(5)]
    line.say(chunks[0])
    for chunk in chunks[1:]:
        line.run(seconds=0.03)
        line.say(chunk)
    line.run(line.quiet)
    assert line.heard == b"".join(chunks)
    assert line.player.heard.strip(b"\xff") == b"".join(chunks), "no silence within"
    (path,) = line.playbacks
    assert path == f"{line.folder}/{UUID}_0.eslbot.PCMU"
    assert line.channel.story.count("break") == 0


def test_an_utterance_begins_when_later_chunks_have_had_their_time(line: Line) -> None:
    began = time.monotonic()
    line.say(sound(40))
    line.run(lambda: line.playbacks)
    assert START_DELAY - 0.005 <= time.monotonic() - began < START_DELAY + 0.05
    line.run(line.quiet)
    began = time.monotonic()
    line.speech.play(line.file(sound(40)), "pcmu", 8000, "PCMU", age=0.03)
    line.run(lambda: len(line.playbacks) == 2)
    assert START_DELAY - 0.035 <= time.monotonic() - began < START_DELAY + 0.02, "its way here counts"
    line.run(line.quiet)


def test_an_utterance_of_less_than_a_frame_is_heard(line: Line) -> None:
    chunk = sound(13)
    line.say(chunk)
    line.run(line.quiet)
    assert line.heard == chunk


@pytest.mark.parametrize("milliseconds", [7, 30, 50])
def test_odd_sizes_join_without_a_hole(line: Line, milliseconds: int) -> None:
    chunks = [sound(milliseconds) for _ in range(6)]
    for chunk in chunks:
        line.say(chunk)
    line.run(line.quiet)
    assert line.player.heard.strip(b"\xff") == b"".join(chunks)


@pytest.mark.parametrize("samples", NO_NUMBERS)
def test_a_playback_that_does_not_say_how_much_it_read_has_read_all(line: Line, samples: str) -> None:
    line.player.mute = True
    line.say(sound(60))
    line.run(lambda: line.playbacks)
    assert line.speech._current is not None
    ended = {"Application-UUID": line.speech._current.playback, "Application-Response": "FILE PLAYED"}
    line.speech.completed(Event({**ended, "variable_playback_samples": samples}))
    assert line.quiet()


@pytest.mark.parametrize("number", ["٣", "9" * 5000])
def test_an_utterance_of_no_number_was_not_cut(line: Line, number: str) -> None:
    said = sound(60)
    (line.folder / f"{UUID}_3.eslbot.PCMU").write_bytes(g711.SILENCE["PCMU"] * ODD + said)
    assert line.speech.resume(f"{number}.PCMU", 80, "PCMU")
    line.run(line.quiet)
    assert line.heard == said


def test_the_modules_files_are_deleted_as_they_are_read(line: Line) -> None:
    line.say(sound(40))
    assert line.files() == [f"{UUID}_0.eslbot.PCMU"]
    line.run(line.quiet)


def test_a_file_that_cannot_be_deleted_is_not_said_twice(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Any, *_: Any, **__: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    chunk = sound(40)
    path = line.file(chunk)
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", refuse)
        patch.setattr(os, "rename", refuse)
        line.speech.play(path, "pcmu", 8000, "PCMU")
    line.run(line.quiet)
    assert line.heard == chunk
    Path(path).unlink()


# -- a bot that is late -----------------------------------------------------------------------------------


def test_a_late_chunk_is_the_next_utterance(line: Line) -> None:
    first, late, more = sound(40), sound(60), sound(40)

    def be_late(path: str) -> None:
        line.player.on_end = lambda path: None
        line.say(late)  # FreeSWITCH has seen the end, and we do not know it yet
        line.speech.mark("late")

    line.player.on_end = be_late
    line.say(first)
    line.speech.mark("first")
    line.run(lambda: len(line.playbacks) == 2)
    line.say(more)
    line.run(line.quiet)
    assert line.heard == first + late + more
    assert line.marks == [("first", False), ("late", False)]
    assert line.playbacks[1] == f"{line.folder}/{UUID}_1.eslbot.PCMU"


def test_a_mark_of_late_audio_waits_for_it(line: Line) -> None:
    first, late = sound(40), sound(200)

    def be_late(path: str) -> None:
        line.player.on_end = lambda path: None
        line.say(late)
        line.speech.mark("late")

    line.player.on_end = be_late
    line.say(first)
    line.run(lambda: len(line.playbacks) == 2)
    assert line.marks == []
    line.run(lambda: line.marks)
    assert line.heard[: len(first) + len(late)] == first + late
    line.run(line.quiet)


@pytest.mark.parametrize(("seed", "slowest"), [(0, 0.1), (1, 0.2), (2, 0.5)])
def test_a_bot_slower_than_real_time_loses_and_repeats_nothing(line: Line, seed: int, slowest: float) -> None:
    chance = random.Random(seed)
    said, names = b"", []
    for number in range(12):
        chunk = sound(chance.choice([20, 40, 60]))
        line.say(chunk)
        said += chunk
        if chance.random() < 0.4:
            names.append(str(number))
            line.speech.mark(names[-1])
        line.run(seconds=chance.uniform(0, slowest))
    line.run(line.quiet)
    assert line.heard == said
    assert line.marks == [(name, False) for name in names]


# -- a chunk that is there, whose event is under way --------------------------------------------------------


def soon_dry(line: Line, said: bytes) -> None:
    """Run until FreeSWITCH is about to look for more than ``said``."""
    line.run(lambda: len(line.heard) >= len(said) - 320)


def test_a_chunk_that_is_there_is_said_before_its_event_and_once(line: Line) -> None:
    first, second, third = sound(100), sound(60), sound(60)
    line.say(first)
    soon_dry(line, first)
    line.run(seconds=0.005)
    path = line.file(second)
    line.run(lambda: len(line.heard) > len(first))
    line.speech.play(path, "pcmu", 8000, "PCMU")
    line.say(third)
    line.run(line.quiet)
    assert line.player.heard.strip(b"\xff") == first + second + third
    assert len(line.playbacks) == 1


@pytest.mark.parametrize("folder", ["/tmp", "/var/calls_1.tmp.d", "/7_8.tmp.r8"])
def test_the_chunk_behind_a_chunk_whatever_the_directory(folder: str) -> None:
    following = f"{folder}/{UUID}_10.tmp.r8"
    assert speech_module._following(f"{folder}/{UUID}_9.tmp.r8") == following
    assert speech_module.number_of(following) == 10


def test_a_mark_that_comes_before_the_event_of_a_chunk_is_not_held_back_by_it(line: Line) -> None:
    first, second = sound(100), sound(400)
    line.say(first)
    path = line.file(second)
    line.run(lambda: len(line.heard) > len(first))
    line.speech.mark("first")
    line.speech.play(path, "pcmu", 8000, "PCMU")
    line.speech.mark("second")
    line.run(lambda: line.marks, 0.15)
    assert line.marks == [("first", False)]
    line.run(line.quiet)
    assert line.marks == [("first", False), ("second", False)]
    assert line.heard == first + second


def test_a_chunk_behind_a_clear_is_said_though_it_was_taken_early(line: Line) -> None:
    first, second = sound(100), sound(100)
    line.say(first)
    path = line.file(second)
    line.run(lambda: len(line.heard) > len(first))
    line.speech.clear()
    line.speech.play(path, "pcmu", 8000, "PCMU")
    line.run(line.quiet)
    assert line.heard.endswith(second)


def test_a_chunk_that_was_being_written_is_said_to_its_end(line: Line) -> None:
    first, second = sound(100), sound(100)
    line.say(first)
    path = line.file(b"")
    with Path(path).open("wb", buffering=0) as module:
        module.write(second[:333])
        line.run(lambda: len(line.heard) > len(first))
        module.write(second[333:])
    line.speech.play(path, "pcmu", 8000, "PCMU")
    line.run(line.quiet)
    assert line.heard == first + second


def test_half_a_wav_file_is_not_taken(line: Line) -> None:
    first, second = tone(700, 0.1), tone(700, 0.2)
    wavs = [wires.stream_audio(l16, "wav", 8000)["data"]["audioData"] for l16 in (first, second)]
    whole = [base64.b64decode(content) for content in wavs]
    line.speech.play(line.file(whole[0], "wav"), "wav", 0, "PCMU")
    path = line.file(whole[1][:600], "wav")
    line.run(lambda: len(line.player.heard) >= 800)
    Path(path).write_bytes(whole[1])
    line.speech.play(path, "wav", 0, "PCMU")
    line.run(line.quiet)
    assert heard(g711.decode("PCMU", line.player.heard), 700) == pytest.approx(0.3, abs=0.021)


def test_a_chunk_that_was_refused_is_not_taken_later(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = sound(300), sound(60)
    line.say(first)
    with monkeypatch.context() as patch:
        patch.setattr(speech_module, "MAX_QUEUED", 0.1)
        path = line.file(sound(100))
        with pytest.raises(QueueFull):
            line.speech.play(path, "pcmu", 8000, "PCMU")
    line.speech.mark("x")
    line.run(lambda: line.marks)
    line.say(last)
    line.speech.mark("y")
    line.run(line.quiet)
    assert line.heard == first + last
    assert line.marks == [("x", False), ("y", False)]
    Path(path).unlink()


def test_silence_that_came_too_late_is_no_utterance(line: Line) -> None:
    """This process was busy: FreeSWITCH had seen the end before we could bridge it."""

    def be_late(path: str) -> None:
        line.player.on_end = lambda path: None
        line.speech.tick()

    first = sound(100)
    line.player.on_end = be_late
    line.say(first)
    line.run(lambda: line.player.heard)
    line.run(seconds=0.02)
    gevent.sleep(0.2)
    line.run(line.quiet)
    assert line.heard == first
    assert len(line.playbacks) == 1


def test_a_mark_behind_speech_that_was_heard_does_not_wait_for_the_silence_behind_it(line: Line) -> None:
    first = sound(100)
    line.say(first)
    line.speech.mark("first")
    line.run(lambda: line.marks)
    line.speech.mark("behind")
    line.run(lambda: len(line.marks) == 2, 0.02)
    line.run(line.quiet)
    assert line.marks == [("first", False), ("behind", False)]


# -- barge-in ---------------------------------------------------------------------------------------------


def test_clear_stops_what_plays(line: Line) -> None:
    line.say(sound(1000))
    line.speech.mark("never heard")
    line.run(lambda: len(line.heard) >= 1600)
    had = len(line.heard)
    line.speech.clear()
    assert line.marks == [("never heard", True)]
    line.run(line.quiet, 0.2)
    assert len(line.heard) <= had + 320
    assert line.channel.story.count("break") == 1


def test_speech_behind_clear_is_heard_and_nothing_before_it(line: Line) -> None:
    line.say(sound(1000))
    line.run(lambda: line.heard)
    line.speech.clear()
    had = len(line.heard)
    after = sound(100)
    line.speech.mark("at once")
    line.say(after[:400])
    line.speech.mark("half")
    line.say(after[400:])
    line.speech.mark("all")
    line.run(line.quiet)
    assert line.heard[had:][-len(after) :] == after
    assert len(line.heard) <= had + len(after) + 320
    assert line.marks == [("at once", False), ("half", False), ("all", False)]


def test_clear_before_the_playback_has_begun(line: Line) -> None:
    """FreeSWITCH drops what is queued, and tells nobody."""
    line.player.delay = 0.15
    line.say(sound(200))
    line.speech.mark("dropped")
    line.run(lambda: line.playbacks)
    line.speech.clear()
    after = sound(60)
    line.say(after)
    began = time.monotonic()
    line.player.delay = 0
    line.run(line.quiet)
    assert line.heard == after
    assert line.marks == [("dropped", True)]
    assert line.channel.story.count("break") == 1
    assert time.monotonic() - began > CUT_LIMIT


def test_clear_before_it_has_begun_and_then_silence(line: Line) -> None:
    line.player.delay = 0.15
    line.say(sound(200))
    line.run(lambda: line.playbacks)
    line.speech.clear()
    line.run(line.quiet, CUT_LIMIT + 0.1)
    assert line.heard == b""


def test_clear_before_freeswitch_knows_of_it(line: Line) -> None:
    line.say(sound(200))
    line.speech.mark("dropped")
    line.speech.clear()
    assert line.marks == [("dropped", True)]
    assert line.speech.idle
    after = sound(60)
    line.say(after)
    line.run(line.quiet)
    assert line.heard == after
    assert "break" not in line.channel.story


def test_clear_when_nothing_plays_tells_freeswitch_nothing(line: Line) -> None:
    line.speech.clear()
    line.say(sound(20))
    line.run(line.quiet)
    line.speech.clear()
    line.run(seconds=0.03)
    assert "break" not in line.channel.story


def test_clear_after_clear(line: Line) -> None:
    line.say(sound(500))
    line.run(lambda: line.heard)
    line.speech.clear()
    line.say(sound(500))
    line.speech.mark("second")
    line.speech.clear()
    last = sound(40)
    line.say(last)
    line.run(line.quiet)
    assert line.heard.endswith(last)
    assert len(line.heard) < 8 * 200
    assert line.marks == [("second", True)]
    assert line.channel.story.count("break") == 1


def test_clear_of_late_speech(line: Line) -> None:
    """The utterance has ended by itself, its end is under way, and the bot clears what came late."""

    def be_late(path: str) -> None:
        line.player.on_end = lambda path: None
        line.say(sound(200))
        line.speech.mark("late")
        line.speech.clear()

    first = sound(40)
    line.player.on_end = be_late
    line.say(first)
    line.run(line.quiet)
    assert line.heard == first
    assert line.marks == [("late", True)]


# -- marks ------------------------------------------------------------------------------------------------


def test_marks_come_back_in_order_when_their_sound_was_heard(line: Line) -> None:
    for number in range(4):
        line.say(sound(100))
        line.speech.mark(str(number))
    line.speech.mark("again")
    began: list[float] = []
    line.run(lambda: line.player.heard)
    began.append(time.monotonic())
    line.run(line.quiet)
    assert line.marks == [("0", False), ("1", False), ("2", False), ("3", False), ("again", False)]
    for number in range(4):
        heard_by = began[0] + 0.1 * (number + 1)
        assert heard_by - 0.02 <= line.marked_at[number] <= heard_by + 0.15, number


def test_a_mark_with_nothing_queued_comes_back_at_once(line: Line) -> None:
    line.speech.mark("one")
    assert line.marks == [("one", False)]
    line.say(sound(20))
    line.run(line.quiet)
    line.speech.mark("two")
    assert line.marks == [("one", False), ("two", False)]


def test_a_mark_before_speech_is_not_held_back_by_it(line: Line) -> None:
    line.speech.mark("before")
    line.say(sound(300))
    assert line.marks == [("before", False)]
    line.speech.clear()
    line.run(line.quiet)


# -- the line ---------------------------------------------------------------------------------------------


def test_the_lines_law_may_change_in_mid_call(line: Line) -> None:
    first, second, third = sound(60), sound(60), sound(60)
    line.say(first, "PCMU")
    line.say(second, "PCMA")
    line.speech.mark("second")
    line.say(third, "PCMU")  # an event from before; it waits with the other's
    line.speech.mark("third")
    line.run(line.quiet)
    assert [Path(path).suffix for path in line.playbacks] == [".PCMU", ".PCMA"]
    (_, of_first), _ = line.player.begun
    played = line.player.heard
    assert without_silence(played[:of_first]) == first
    expected = g711.encode("PCMA", g711.decode("PCMU", second + third))
    assert played[of_first:].strip(b"\xd5") == expected
    assert line.marks == [("second", False), ("third", False)]


def test_late_speech_of_the_law_before_is_spoken_in_the_new_one(line: Line) -> None:
    first, late, new = sound(40), sound(40), sound(40)

    def be_late(path: str) -> None:
        line.player.on_end = lambda path: None
        line.say(late, "PCMU")
        line.say(new, "PCMA")

    line.player.on_end = be_late
    line.say(first, "PCMU")
    line.run(line.quiet)
    assert line.player.heard.rstrip(b"\xd5").endswith(g711.encode("PCMA", g711.decode("PCMU", late + new)))
    assert [Path(path).suffix for path in line.playbacks] == [".PCMU", ".PCMA"]


def test_higher_rates_are_heard_as_the_tone_they_were(line: Line) -> None:
    speech = tone(700, 0.3, 24000)
    for at in range(0, len(speech), 4801):  # not even whole samples
        line.speech.play(line.file(speech[at : at + 4801], "r24"), "raw", 24000, "PCMU")
    line.run(line.quiet)
    assert tone_power(g711.decode("PCMU", line.player.heard.lstrip(b"\xff"))[400:4000], 700) > 0.99


# -- faults -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("response", ["FILE NOT FOUND", "PLAYBACK ERROR"])
def test_a_playback_that_fails_is_logged_and_forgotten(line: Line, response: str) -> None:
    line.player.response = response
    with structlog.testing.capture_logs() as lines:
        line.say(sound(40))
        line.speech.mark("unheard")
        line.run(line.quiet)
    assert said_of(lines) == ["speech_not_played"]
    assert line.marks == [("unheard", False)]
    line.player.response = ""
    after = sound(40)
    line.say(after)
    line.run(line.quiet)
    assert line.heard == after


def test_an_end_that_is_never_told(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_module, "OVERDUE", 0.1)
    line.player.mute = True
    line.say(sound(40))
    line.speech.mark("x")
    with structlog.testing.capture_logs() as lines:
        line.run(line.quiet, 1)
    assert said_of(lines) == ["speech_end_missed"]
    assert line.marks == [("x", False)]
    line.player.mute = False
    after = sound(40)
    line.say(after)
    line.run(line.quiet)
    assert line.heard.endswith(after)


def test_another_applications_completion_ends_nothing(line: Line) -> None:
    line.say(sound(100))
    line.channel.complete("playback", "another")
    line.channel.complete("set", "")
    line.run(seconds=0.05)
    assert not line.speech.idle
    line.run(line.quiet)


def test_a_queue_has_an_end(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_module, "MAX_QUEUED", 1.0)
    first = sound(1500)
    line.say(first)
    path = line.file(sound(20))
    with pytest.raises(QueueFull, match="more than 1 s of speech"):
        line.speech.play(path, "pcmu", 8000, "PCMU")
    Path(path).unlink()
    line.run(lambda: len(line.heard) > 8 * 700)
    line.say(sound(20))
    line.speech.clear()
    line.run(line.quiet)


def test_what_waits_for_another_law_counts_in_the_queue(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_module, "MAX_QUEUED", 1.0)
    line.say(sound(300), "PCMU")
    for _ in range(3):
        line.say(sound(300), "PCMA")
    path = line.file(sound(20))
    with pytest.raises(QueueFull):
        line.speech.play(path, "pcmu", 8000, "PCMA")
    Path(path).unlink()
    line.speech.clear()
    line.run(line.quiet)


def test_a_disk_that_is_full_takes_nothing_half(line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sound(100)
    line.say(first)
    line.speech.mark("first")
    path = line.file(sound(100))
    real = os.write

    def full(file: int, content: bytes) -> int:
        if len(content) <= 400:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, content[:-400])

    with monkeypatch.context() as patch:
        patch.setattr(speech_module.os, "write", full)
        with pytest.raises(OSError, match="No space"):
            line.speech.play(path, "pcmu", 8000, "PCMU")
    Path(path).unlink()
    line.run(line.quiet)
    assert line.heard == first
    assert line.marks == [("first", False)]


def test_leaving_gives_the_playback_and_its_marks_away(line: Line) -> None:
    assert isinstance(line.speech, Speech)
    assert line.speech.leave() == (None, [])
    chunk = sound(100)
    line.say(chunk)
    line.speech.mark("a")
    line.speech.mark("b")
    left, marks = line.speech.leave()
    assert marks == ["a", "b"]
    assert left is not None
    line.speech = PathSpeech(line.session, line.marked, left, marks)
    line.run(lambda: line.heard == chunk)
    line.run(line.quiet)
    assert line.marks == [("a", False), ("b", False)]


# -- by path ----------------------------------------------------------------------------------------------


def far_say(far: Line, content: bytes, kind: str = "r8") -> str:
    path = far.file(content, kind)
    far.speech.play(path, "raw", 8000, "PCMU")
    return path


def test_by_path_in_order_with_marks(far: Line) -> None:
    far.speech.mark("nothing yet")
    paths = []
    for number in range(3):
        paths.append(far_say(far, sound(40)))
        far.speech.mark(str(number))
    assert far.marks == [("nothing yet", False)]
    far.run(far.quiet)
    assert far.playbacks == paths
    assert far.marks[1:] == [("0", False), ("1", False), ("2", False)]
    assert far.speech.due() is None


def test_by_path_clear(far: Line) -> None:
    for number in range(3):
        far_say(far, sound(200))
        far.speech.mark(str(number))
    far.run(lambda: far.heard)
    far.speech.clear()
    assert far.marks == [("0", True), ("1", True), ("2", True)]
    assert far.speech.idle
    after = sound(40)
    far_say(far, after)
    far.speech.mark("after")
    far.run(far.quiet)
    assert far.heard.endswith(after)
    assert len(far.heard) < 8 * 200
    assert far.marks[3:] == [("after", False)]
    far.speech.clear()
    assert far.channel.story.count("break") == 1


def test_by_path_the_next_controller_knows_how_far_it_came(far: Line) -> None:
    def noted() -> tuple[str | None, str | None]:
        variables = far.channel.variables
        return variables.get("eslbot_speech"), variables.get("eslbot_speech_done")

    for _ in range(5):
        far_say(far, sound(100))
    far.run(lambda: noted() == ("path", "1"))  # the one that plays and the next
    far.run(lambda: noted() == ("path", "3"))
    for _ in range(3):
        far_say(far, sound(100))
    far.speech.clear()
    far.run(lambda: noted() == ("path", "7"))  # what is dropped is nobody's to say
    far.speech.forget_stream()
    far.run(lambda: not noted()[1])  # the module counts anew


def test_by_path_freeswitchs_queue_is_not_overrun(far: Line) -> None:
    far.player.delay = 60  # nothing begins
    for number in range(MAX_AHEAD + 10):
        far_say(far, b"\0" * 160)
        far.speech.mark(str(number))
    far.run(lambda: len(far.playbacks) >= MAX_AHEAD // 2)
    far.run(seconds=0.05)
    assert len(far.playbacks) <= MAX_AHEAD
    assert far.marks == []


def test_by_path_what_only_we_could_play_is_refused(far: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnusableAudio, match="send raw or wav"):
        far.speech.play("/t/x_0.tmp.pcmu", "pcmu", 8000, "PCMU")
    monkeypatch.setattr("eslbot.bot.path_speech.MAX_QUEUED", 0)
    with pytest.raises(QueueFull):
        far_say(far, sound(20))


def test_by_path_a_file_that_is_not_there_is_logged_once(far: Line) -> None:
    with structlog.testing.capture_logs() as lines:
        for number in range(3):
            far.speech.play(f"/nowhere/x_{number}.tmp.r8", "raw", 8000, "PCMU")
            far.speech.mark(str(number))
        far.run(far.quiet)
    assert said_of(lines) == ["speech_not_played"]
    assert far.marks == [("0", False), ("1", False), ("2", False)]


# -- in a call --------------------------------------------------------------------------------------------


class Talk:
    """A call whose bot talks, with a FreeSWITCH that plays."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house, self.folder = house, folder
        house.temp_dir = str(folder)
        self.channel = house.talking()
        self.player = Player(self.channel)
        self._number = 0

    def say(self, content: bytes, kind: str = "pcmu", rate: int = 8000, on_disk: bool = True) -> str:
        path = self.folder / f"{UUID}_{self._number}.tmp.{kind}"
        self._number += 1
        if on_disk:
            path.write_bytes(content)
        name = kind if kind in ("pcmu", "pcma", "wav", "mp3") else "raw"
        self.channel.custom("play", {"audioDataType": name, "sampleRate": rate, "file": str(path)})
        return str(path)

    def told(self, *kinds: str) -> list[dict[str, Any]]:
        texts = [json.loads(text) for text in self.channel.texts]
        return [text for text in texts if text["type"] in kinds]

    def asks(self, kind: str, **fields: Any) -> None:
        self.channel.says({"type": kind, **fields})

    @property
    def playbacks(self) -> list[str]:
        return [argument for application, argument in self.channel.applications if application == "playback"]

    @property
    def heard(self) -> bytes:
        return without_silence(self.player.heard)

    def outcome(self) -> str:
        self.channel.wait_stage("held")
        return str(self.house.posts()[-1]["properties"]["outcome"])

    def own_files(self) -> list[str]:
        return [path.name for path in self.folder.iterdir() if ".eslbot." in path.name]


@pytest.fixture
def talk(house: House, tmp_path: Path) -> Iterator[Callable[..., Talk]]:
    talks: list[Talk] = []

    def make(**bot: Any) -> Talk:
        house.with_bot(**bot)
        talks.append(Talk(house, tmp_path))
        return talks[-1]

    yield make
    for talk in talks:
        talk.player.close()


Make = Callable[..., Talk]


def test_the_end_waits_for_the_last_word_and_then_stops(talk: Make) -> None:
    call = talk()
    said = sound(200)
    call.say(said[:800])
    call.asks("mark", name="heard")
    call.say(said[800:])
    call.asks("end")
    call.channel.wait(lambda: call.told("stop"))
    assert call.heard == said
    assert [text["type"] for text in map(json.loads, call.channel.texts)] == ["start", "mark", "stop"]
    assert call.outcome() == "bot_ended"
    assert "break" not in call.channel.story


def test_a_close_behind_the_last_chunk_lets_it_be_heard(talk: Make) -> None:
    call = talk()
    said = sound(200)
    call.say(said)
    call.channel.custom("disconnect", {"status": "disconnected", "message": {"code": 1000, "reason": ""}})
    assert call.outcome() == "bot_closed"
    assert call.heard == said


def test_last_words_have_a_limit(talk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.bot.leg.LAST_WORDS", 0.2)
    call = talk()
    call.say(sound(3000))
    call.asks("mark", name="cut off")
    call.asks("end")
    with structlog.testing.capture_logs() as lines:
        assert call.outcome() == "bot_ended"
    assert "last_words_cut" in [entry["event"] for entry in lines]
    assert "break" in call.channel.story
    assert call.told("mark") == [{"type": "mark", "name": "cut off", "cleared": True}]


def test_clear_is_answered_behind_the_marks_it_drops(talk: Make) -> None:
    call = talk()
    call.say(sound(1000))
    call.asks("mark", name="a")
    call.asks("mark", name="b")
    call.channel.wait(lambda: call.heard)
    call.asks("clear")
    call.asks("mark", name="behind")
    call.channel.wait(lambda: call.told("cleared"))
    call.channel.wait(lambda: len(call.told("mark")) == 3)
    assert call.told("mark", "cleared") == [
        {"type": "mark", "name": "a", "cleared": True},
        {"type": "mark", "name": "b", "cleared": True},
        {"type": "cleared"},
        {"type": "mark", "name": "behind"},
    ]
    call.asks("end")
    assert call.outcome() == "bot_ended"


def test_clear_without_speech_is_answered(talk: Make) -> None:
    call = talk()
    call.asks("clear")
    call.channel.wait(lambda: call.told("cleared"))
    assert "break" not in call.channel.story


def test_unusable_audio_is_one_line_and_one_message(talk: Make) -> None:
    call = talk()
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            call.say(b"ID3", "mp3")
        call.say(b"RIFF....", "wav")
        call.say(bytes(640), "r48", 48000)
        call.asks("streamAudio", data={"audioDataType": "opus", "sampleRate": 8000, "audioData": "AAAA"})
        good = sound(40)
        call.say(good)
        call.asks("end")
        assert call.outcome() == "bot_ended"
    assert call.heard == good
    assert [entry["event"] for entry in lines].count("unusable_audio") == 1
    (error,) = call.told("error")
    assert error == {
        "type": "error",
        "code": "unusable_audio",
        "message": "audioDataType 'mp3' is not supported; send one of raw, wav, pcmu, pcma",
    }


def test_a_bot_that_only_sends_unusable_audio_is_silent(talk: Make) -> None:
    call = talk(first_audio_timeout=0.3)
    call.say(b"ID3", "mp3")
    assert call.outcome() == "bot_silent"


def test_a_full_queue_is_told_once(talk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech_module, "MAX_QUEUED", 0.2)
    call = talk()
    said = sound(500)
    call.say(said)
    for _ in range(3):
        call.say(sound(20))
    call.asks("mark", name="x")
    call.channel.wait(lambda: call.told("mark"))
    assert call.heard == said
    assert [error["code"] for error in call.told("error")] == ["queue_full"]


@pytest.mark.parametrize("fault", ["disk full", "not ours to write", "not there"])
def test_without_a_shared_directory_freeswitch_plays_alone(
    talk: Make, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    call = talk()

    def refuse(*_: Any, **__: Any) -> int:
        raise OSError(errno.ENOSPC if fault == "disk full" else errno.EACCES, fault)

    if fault != "not there":
        monkeypatch.setattr(speech_module.os, "write" if fault == "disk full" else "open", refuse)
    said = [sound(60) for _ in range(3)]
    with structlog.testing.capture_logs() as lines:
        paths = [call.say(chunk, "r8", on_disk=fault != "not there") for chunk in said]
        call.asks("mark", name="heard")
        call.asks("end")
        assert call.outcome() == "bot_ended"
    assert call.playbacks == paths
    if fault != "not there":
        assert call.heard == b"".join(said)
    assert call.told("mark") == [{"type": "mark", "name": "heard"}]
    (told,) = [entry for entry in lines if entry["event"] == "speech_by_path"]
    assert told["remedy"].startswith("let eslbot read and write temp_dir")
    assert call.own_files() == []


def test_a_disk_that_fills_up_in_mid_utterance_loses_no_word_and_no_mark(
    talk: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = talk()
    first, second = sound(200), sound(100)
    call.say(first)
    call.asks("mark", name="first")
    call.channel.wait(lambda: call.heard)

    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(speech_module.os, "write", refuse)
    call.say(second, "r8")
    call.asks("mark", name="second")
    call.asks("end")
    assert call.outcome() == "bot_ended"
    assert call.heard == first + second
    assert call.told("mark") == [{"type": "mark", "name": "first"}, {"type": "mark", "name": "second"}]


def test_a_chunk_the_module_has_deleted_is_no_reason_to_give_up_the_directory(talk: Make) -> None:
    call = talk()
    first, last = sound(60), sound(60)
    call.say(first)
    with structlog.testing.capture_logs() as lines:
        call.say(b"", on_disk=False)
        call.say(b"", on_disk=False)
        call.say(last)
        call.asks("end")
        assert call.outcome() == "bot_ended"
    assert call.heard == first + last
    assert all(path.endswith(".eslbot.PCMU") for path in call.playbacks)
    assert [entry["event"] for entry in lines].count("speech_lost") == 1


def _end(call: Talk) -> None:
    call.asks("end")


def _close(code: int) -> Callable[[Talk], None]:
    return lambda call: call.channel.custom("disconnect", {"message": {"code": code, "reason": ""}})


def _hang_up(call: Talk) -> None:
    call.channel.hang_up()
    call.channel.wait_closed()


@pytest.mark.parametrize(
    "ending",
    [_end, _close(1000), _close(1011), lambda call: call.channel.refuse_stream(), _hang_up],
    ids=["end", "close 1000", "close 1011", "broken", "hang-up"],
)
def test_no_file_of_ours_outlives_the_bots_part(
    talk: Make, ending: Callable[[Talk], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.bot.leg.LAST_WORDS", 0.2)
    call = talk()
    call.say(sound(2000))
    call.channel.wait(lambda: call.heard)
    assert len(call.own_files()) == 1
    ending(call)
    eventually(lambda: call.own_files() == [])


def test_no_file_of_ours_outlives_a_call_of_full_length(talk: Make, house: House) -> None:
    house.workspace = replace(house.workspace, max_duration=0.4)
    call = talk()
    call.say(sound(2000))
    call.asks("mark", name="cut")
    assert call.outcome() == "max_duration"
    assert call.own_files() == []
    assert call.told("mark", "stop") == [
        {"type": "mark", "name": "cut", "cleared": True},
        {"type": "stop", "reason": "max_duration"},
    ]


def test_no_file_of_ours_outlives_a_fault(talk: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    call = talk()
    call.say(sound(2000))
    call.channel.wait(lambda: call.heard)

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Speech, "mark", fail)
    call.asks("mark", name="x")
    assert call.outcome() == "internal_error"
    assert call.own_files() == []


# -- keys -------------------------------------------------------------------------------------------------


def test_keys_reach_the_bot_and_stop_nothing(talk: Make) -> None:
    call = talk()
    said = sound(200)
    call.say(said)
    call.channel.wait(lambda: call.heard)
    keys = ("5", "960"), ("*", "1600"), ("#", ""), ("D", "x"), ("0", "-1"), ("1", "٣"), ("2", "9" * 5000)
    for digit, samples in keys:
        call.channel.event("DTMF", {"DTMF-Digit": digit, "DTMF-Duration": samples, "DTMF-Source": "RTP"})
    for digit in ("", "12", "F", "w", "5\n"):
        call.channel.event("DTMF", {"DTMF-Digit": digit, "DTMF-Duration": "800"})
    call.asks("end")
    assert call.outcome() == "bot_ended"
    assert [(key["digit"], key["duration_ms"]) for key in call.told("dtmf")] == [
        ("5", 120),
        ("*", 200),
        ("#", 0),
        ("D", 0),
        ("0", 0),
        ("1", 0),
        ("2", 0),
    ]
    assert call.heard == said


# -- once more --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["broken", "1011"])
def test_a_bot_that_breaks_off_is_connected_once_more(talk: Make, how: str) -> None:
    call = talk(reconnect=True)
    said = sound(400)
    call.say(said)
    call.asks("mark", name="over the break")
    call.channel.wait(lambda: call.heard)
    with structlog.testing.capture_logs() as lines:
        call.channel.refuse_stream() if how == "broken" else _close(1011)(call)
        call.channel.wait(lambda: len(call.told("start")) == 2)
    first, second = call.told("start")
    assert second == {**first, "resumed": True}
    assert call.channel.starts[1]["headers"] == call.channel.starts[0]["headers"]
    assert said_of(lines) == ["bot_reconnecting"]
    call.channel.wait(lambda: call.told("mark"))
    assert call.heard == said, "what was said goes on"
    assert call.told("mark") == [{"type": "mark", "name": "over the break"}]
    more = sound(40)
    call.say(more)
    call.channel.wait(lambda: call.heard == said + more)
    call.channel.refuse_stream()
    assert call.outcome() == "bot_failed"
    assert len(call.channel.starts) == 2


def test_a_bot_that_is_not_there_the_second_time(talk: Make) -> None:
    call = talk(reconnect=True)
    call.say(sound(40))
    call.channel.on_start = lambda number: call.channel.refuse_stream(6, "Connection refused")
    call.channel.refuse_stream(1, "abnormal EOF")
    assert call.outcome() == "bot_failed"
    assert call.house.posts()[0]["properties"]["why"] == "abnormal EOF (code 1)"


def test_a_bot_that_never_spoke_has_its_time_anew(talk: Make) -> None:
    call = talk(reconnect=True, first_audio_timeout=0.4)
    call.channel.refuse_stream()
    call.channel.wait(lambda: len(call.told("start")) == 2)
    assert call.outcome() == "bot_silent"


@pytest.mark.parametrize("ending", [_end, _close(1000)], ids=["end", "close 1000"])
def test_a_bot_that_has_ended_is_not_connected_again(talk: Make, ending: Callable[[Talk], None]) -> None:
    call = talk(reconnect=True)
    call.say(sound(40))
    ending(call)
    call.outcome()
    assert len(call.channel.starts) == 1


def test_a_break_behind_the_end_is_no_failure(talk: Make) -> None:
    call = talk(reconnect=True)
    said = sound(200)
    call.say(said)
    call.asks("end")
    call.channel.refuse_stream()
    assert call.outcome() == "bot_ended"
    assert call.heard == said
    assert len(call.channel.starts) == 1


# -- while waiting for an agent ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sound_of", "application"),
    [
        ("silence", []),
        ("tone", [("endless_playback", HOLD_TONE)]),
        ("/srv/sounds/hold.wav", [("endless_playback", "/srv/sounds/hold.wav")]),
    ],
)
def test_the_hold_sound_begins_with_the_hand_off(
    house: House, sound_of: str, application: list[tuple[str, str]]
) -> None:
    house.workspace = replace(house.workspace, hold_sound=sound_of)
    channel = house.talking()
    channel.says({"type": "end"})
    channel.wait_stage("held")
    assert [entry for entry in channel.applications if entry[0] != "answer"] == application
    story = channel.story
    if application:
        assert story.index("stream stop") < story.index(" ".join(application[0])) < story.index("stage held")


# -- a build that plays by itself -------------------------------------------------------------------------


def test_what_the_module_does_by_itself_cannot_be_stopped_nor_known(talk: Make) -> None:
    call = talk(playback="module")
    assert call.channel.starts[0]["settings"]["STREAM_PLAYBACK"] == "true"
    with structlog.testing.capture_logs() as lines:
        for _ in range(2):
            call.say(sound(40))
            call.asks("clear")
            call.asks("mark", name="x")
        call.asks("end")
        assert call.outcome() == "bot_ended"
    assert [error["code"] for error in call.told("error")] == ["cannot_clear", "cannot_mark"]
    assert call.told("mark", "cleared") == []
    assert [entry["event"] for entry in lines if entry["event"].startswith("cannot")] == [
        "cannot_clear",
        "cannot_mark",
    ]
    assert call.playbacks == []


def test_a_bots_speech_after_its_end_is_still_heard(talk: Make) -> None:
    call = talk()
    first, second = sound(100), sound(100)
    call.say(first)
    call.asks("end")
    gevent.sleep(0.02)
    call.say(second)
    assert call.outcome() == "bot_ended"
    assert call.heard == first + second
