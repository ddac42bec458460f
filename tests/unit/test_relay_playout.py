"""What the caller hears of what a bot says: the files read as FreeSWITCH does, on a clock of ours."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eslbot.relay.line import Line
from eslbot.relay.line.read_counter import ReadCounter
from eslbot.relay.playout import MAX_MARKS, Playout, QueueFull
from eslbot.relay.playout_delay import PlayoutDelay
from tests.support.line_reader import PERIOD, Clock, Reader, Speech, play

ID = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"


class Notes:
    """What the playout tells, and when."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.marks: list[tuple[str, bool]] = []
        self.mark_times: dict[str, float] = {}
        self.turns: list[tuple[str, float]] = []
        #: When the caller has begun to hear sound, and none any more; and when that sound had come.
        self.sounded: list[tuple[str, float]] = []
        self.arrived: list[float] = []

    def mark_reached(self, name: str, cleared: bool) -> None:
        self.marks.append((name, cleared))
        self.mark_times[name] = self.clock.time

    def utterance_began(self, ago: float) -> None:
        self.turns.append(("began", self.clock.time - ago))

    def utterance_over(self, cut: bool, ago: float) -> None:
        self.turns.append(("cut" if cut else "silent", self.clock.time - ago))

    def bot_audible(self, at: float, arrived: float) -> None:
        self.sounded.append(("sounds", at))
        self.arrived.append(arrived)

    def bot_inaudible(self, at: float, cut: bool) -> None:
        self.sounded.append(("cut" if cut else "hushed", at))


class World:
    """A line, its reader and a playout."""

    def __init__(
        self,
        directory: Path,
        passes: Iterator[float] | None = None,
        ring: float = 60,
        second: bool = True,
        kept: bool = False,
    ) -> None:
        self.directory = directory
        self.kept = kept
        self.clock = Clock(passes)
        self.ring = ring
        self.delay = PlayoutDelay()
        self.speech = Speech()
        self.relays: list[tuple[Line, ReadCounter]] = []
        self.reader: Reader | None = None
        self.switch = 1
        self.succeed()
        self.second = second

    def succeed(self) -> None:
        """A relay begins, or another one where the first was killed (it has done nothing about it)."""
        self.reads = ReadCounter(self.directory, self.clock)
        self.line = Line.open(
            self.directory,
            ID,
            self.reads,
            self.clock,
            ring_seconds=self.ring,
            switch=f"core-{self.switch}",
            kept=self.kept,
        )
        self.relays.append((self.line, self.reads))
        self.told = Notes(self.clock)
        self.playout = Playout(self.line, self.delay, self.told, self.clock)

    def displace(self, phase: float = 0.007, second: int = 3) -> Reader:
        paths = self.line.paths if self.second else self.line.paths[:1]
        self.reader = Reader(self.clock, paths, phase, second)
        self.named = set(self.line.paths)
        return self.reader

    def switch_dies(self, within: float = 0.0) -> None:
        self.reader.dies_at = self.clock.time + within

    def switch_is_back(self, phase: float = 0.007) -> None:
        """It has the relay's stream again, and reads what STATE names."""
        self.switch += 1
        assert self.playout.attach(f"core-{self.switch}")
        self.displace_again(phase)

    def displace_again(self, phase: float = 0.007) -> None:
        assert self.line.opened == (False, False) and self.line.predecessor_paths == ()
        self.reader.come_back(self.line.paths if self.second else self.line.paths[:1], phase)
        self.named = set(self.line.paths)

    def forgotten(self) -> None:
        """The relay dies, and with it what it had no room for in the line."""
        in_memory = self.playout._queued // 2
        del self.speech.said[len(self.speech.said) - in_memory :]

    def killed(self, seconds: float, late: float = 0.0) -> None:
        """Nobody is there for so long, while FreeSWITCH comes to be late; then another relay has the call."""
        self.forgotten()
        self.reader.next += late
        self.clock.go(self.clock.time + seconds)
        self.succeed()

    def play(self, seconds: float) -> None:
        play(self.clock, self.tick, self.clock.time + seconds)

    def tick(self) -> float | None:
        due = self.playout.tick()
        if self.reader and self.reader.dies_at > self.clock.time:
            self.brought({*self.line.paths, *self.line.predecessor_paths})
        return due

    def brought(self, named: set[Path]) -> None:
        """What the controller does when it is told which files are the call's."""
        if self.line.paths[0] not in self.named:
            self.reader.displace(self.line.paths)
        for path in self.named - named:
            self.reader.take_off(path)
        self.named = named

    def say(self, samples: int) -> None:
        self.playout.say(self.speech(samples))
        self.playout.tick()

    def started(self) -> World:
        self.displace()
        self.play(0.5)
        return self

    def silent_ticks(self) -> int:
        """Ticks without speech between the first and the last with some."""
        audible = [any(frame) for _, frame in self.reader.heard]
        first = audible.index(True)
        last = len(audible) - audible[::-1].index(True)
        return audible[first:last].count(False)

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for line, reads in self.relays:
            line.close(remove=True)
            reads.close()
        if self.reader:
            self.reader.close()


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[..., World]]:
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(World(tmp_path, **how))


@pytest.fixture
def world(worlds: Callable[..., World]) -> World:
    return worlds()


def test_a_bot_that_is_ahead_is_heard_in_the_next_frame(world: World) -> None:
    world.started()
    for _ in range(20):
        said_at, first = world.clock.time, world.speech.next
        world.say(1600)
        world.play(0.61)
        heard_at, _ = world.reader.heard[world.reader.when(first)]
        assert heard_at - said_at <= PERIOD + 0.002
        world.clock.go(world.clock.time + 0.0037)
    assert world.reader.speech() == world.speech.said
    assert world.line.missed == 0


def test_what_is_said_before_freeswitch_has_the_line_is_all_heard(world: World) -> None:
    world.say(4000)
    world.playout.mark("hello")
    world.play(1)
    assert world.told.marks == []
    world.displace()
    world.play(2)
    assert world.reader.speech() == world.speech.said
    assert world.told.marks == [("hello", False)]
    assert [turn for turn, _ in world.told.turns] == ["began", "silent"]


def test_a_paced_bot_has_no_gaps_once_its_jitter_is_known(world: World) -> None:
    world.started()
    rng = random.Random(5)
    for utterance in range(6):
        heard = len(world.reader.heard)
        start = world.clock.time + 0.7 + rng.random() * 0.02
        due = 0.0
        for i in range(40):
            due = max(due, start + i * 0.1 + rng.uniform(-0.03, 0.03))
            world.play(due - world.clock.time)
            world.say(800)
        world.play(0.6)
        audible = [any(frame) for _, frame in world.reader.heard[heard:]]
        gaps = audible[audible.index(True) : len(audible) - audible[::-1].index(True)].count(False)
        assert utterance == 0 or gaps == 0
    assert world.reader.speech() == world.speech.said
    assert 0.03 < world.delay.seconds < 0.07


def test_a_late_message_goes_to_the_next_read_and_the_rest_with_it(world: World) -> None:
    world.started()
    world.say(800)
    world.play(0.15)
    late = world.speech.next
    said_at = world.clock.time
    for _ in range(5):
        world.say(800)
    world.play(1)
    heard_at, _ = world.reader.heard[world.reader.when(late)]
    assert heard_at - said_at <= PERIOD + 0.004
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() in (2, 3)


def test_messages_that_end_within_a_frame_leave_no_gap(world: World) -> None:
    world.started()
    for _ in range(100):
        world.say(99)
        world.play(0.011)
    world.play(0.5)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0


def test_speech_goes_over_the_rings_ends_without_a_gap(worlds: Callable[..., World]) -> None:
    world = worlds(ring=3).started()
    for _ in range(20):
        world.say(8000)
    world.play(22)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0


def test_where_both_rings_end_in_one_tick_no_sample_is_lost(worlds: Callable[..., World]) -> None:
    world = worlds(ring=0.6).started()  # 30 and 36 frames: soon
    for _ in range(24):
        world.say(8000)
    world.play(27)
    assert world.reader.speech() == world.speech.said
    assert 0 < world.silent_ticks() < 10


def test_without_the_second_ring_the_first_ones_end_is_a_pause(worlds: Callable[..., World]) -> None:
    world = worlds(ring=3, second=False).started()
    for _ in range(10):
        world.say(8000)
    world.playout.mark("all")
    world.play(11)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 3
    assert world.told.marks == [("all", False)]


def test_what_was_heard_is_not_heard_again(worlds: Callable[..., World]) -> None:
    world = worlds(ring=3).started()
    world.say(8000)
    world.play(10)
    assert world.reader.speech() == world.speech.said


def test_what_was_heard_before_a_clear_is_not_heard_again(worlds: Callable[..., World]) -> None:
    world = worlds(ring=3).started()
    world.say(8000)
    world.play(0.5)
    world.playout.clear()
    heard = world.reader.speech()
    world.play(10)
    assert 0 < len(heard) < 8000 and world.reader.speech() == heard


def test_a_mark_comes_a_frame_behind_its_speech(world: World) -> None:
    world.started()
    for name in range(5):
        world.say(1234)
        world.playout.mark(str(name))
    world.play(2)
    said = 0
    for name in range(5):
        said += 1234
        heard_at, _ = world.reader.heard[world.reader.when(said)]
        assert 0.015 <= world.told.mark_times[str(name)] - heard_at <= 0.045
    assert world.told.marks == [(str(name), False) for name in range(5)]
    assert world.playout.idle


def test_a_mark_behind_nothing_comes_at_once(world: World) -> None:
    world.playout.mark("early")
    world.playout.tick()
    world.started()
    world.playout.mark("now")
    world.playout.tick()
    assert world.told.marks == [("early", False), ("now", False)]


def test_a_clear_leaves_nothing_but_the_frame_under_way(world: World) -> None:
    world.started()
    world.say(8000)
    world.playout.mark("first")
    world.say(160000 * 3)  # more than there is room for
    world.playout.mark("second")
    world.play(1.3)
    cleared_at = world.clock.time
    world.playout.clear()
    world.playout.tick()
    world.play(3)
    assert all(not any(frame) for at, frame in world.reader.heard if at > cleared_at)
    assert world.told.marks == [("first", False), ("second", True)]
    assert [turn for turn, _ in world.told.turns] == ["began", "cut"]
    assert world.playout.idle
    assert not world.playout.speaking
    heard = world.reader.speech()
    assert heard == world.speech.said[: len(heard)]
    after = world.speech.next
    said_at = world.clock.time
    world.say(320)
    world.play(1)
    heard_at, _ = world.reader.heard[world.reader.when(after)] if heard.count(after) == 0 else (said_at, b"")
    assert heard_at - said_at <= PERIOD + 0.002


def test_turns_are_told_when_they_were(world: World) -> None:
    world.started()
    world.say(1600)
    world.play(0.1)
    assert world.playout.speaking
    world.say(1600)
    world.play(1)
    first, last = (world.reader.heard[world.reader.when(sample)][0] for sample in (1, 3200))
    (began, began_at), (silent, silent_at) = world.told.turns
    assert (began, silent) == ("began", "silent")
    assert abs(began_at - first) < 0.003
    assert abs(silent_at - last - PERIOD) < 0.003


LOUD, HUSH = b"\0\x10" * 160, bytes(320)


def heard_loud(world: World) -> list[float]:
    """When FreeSWITCH has read each frame that can be heard."""
    return [at for at, frame in world.reader.heard if frame == LOUD]


@pytest.mark.parametrize("chunk", [1, 5, 50])
def test_sound_is_told_when_it_was_heard_whatever_silence_is_around_it(world: World, chunk: int) -> None:
    """Two sounds of 0.4 s, 0.1 s of silence within the first, 0.5 s between them, and silence around all."""
    world.started()
    frames = [HUSH] * 30 + [LOUD] * 10 + [HUSH] * 5 + [LOUD] * 5 + [HUSH] * 25 + [LOUD] * 20 + [HUSH] * 30
    came = world.clock.time
    for at in range(0, len(frames), chunk):
        world.playout.say(b"".join(frames[at : at + chunk]))
        world.playout.tick()
        world.play(0.02 * chunk)
    world.play(1)
    loud = heard_loud(world)
    assert len(loud) == 35
    assert [word for word, _ in world.told.sounded] == ["sounds", "hushed"] * 2
    for (_, told), right in zip(
        world.told.sounded, (loud[0], loud[14] + PERIOD, loud[15], loud[-1] + PERIOD), strict=True
    ):
        assert told == pytest.approx(right, abs=0.003)
    first, second = world.told.arrived
    assert first == pytest.approx(came + 0.02 * (30 // chunk * chunk), abs=0.003)
    assert second == pytest.approx(came + 0.02 * (75 // chunk * chunk), abs=0.003)


def test_sound_that_is_cut_ends_with_the_frame_under_way(world: World) -> None:
    world.started()
    world.playout.say(LOUD * 200 + HUSH * 100 + LOUD * 20)
    world.play(1)
    world.playout.clear()
    cleared = world.clock.time
    world.play(1)
    (_, began), (word, ended) = world.told.sounded
    assert word == "cut"
    assert began == pytest.approx(heard_loud(world)[0], abs=0.003)
    assert ended == pytest.approx(heard_loud(world)[-1] + PERIOD, abs=0.003)
    assert cleared - 0.003 <= ended <= cleared + PERIOD + 0.003


def test_a_clear_in_silence_cuts_nothing(world: World) -> None:
    world.started()
    world.playout.say(LOUD * 10)
    world.play(0.22)
    world.playout.clear()
    world.play(1)
    assert [word for word, _ in world.told.sounded] == ["sounds", "hushed"]
    world.playout.say(HUSH * 100)
    world.play(0.5)
    world.playout.clear()
    world.play(1)
    assert len(world.told.sounded) == 2


@pytest.mark.parametrize("chunk", [1, 100])
def test_how_loud_the_bot_was_lately_is_known_without_a_read_of_ours(world: World, chunk: int) -> None:
    """A read of the line's files would count as FreeSWITCH's."""
    world.started()
    assert world.playout.loudest() == 0.0
    begun, read = world.line.tick(), len(world.reader.heard)
    for _ in range(50 // chunk or 1):
        world.playout.say(LOUD * chunk)
        assert world.playout.loudest() in (0.0, 4096.0)
        world.play(0.02 * chunk)
    world.play(0.1)
    assert world.playout.loudest() == 4096.0
    assert world.line.tick() - begun == len(world.reader.heard) - read
    world.play(0.2)
    assert world.playout.loudest() == 4096.0
    world.play(0.4)
    assert world.playout.loudest() == 0.0
    assert len(heard_loud(world)) == max(50, chunk)


def test_what_was_cleared_was_not_loud(world: World) -> None:
    world.started()
    world.playout.say(HUSH * 10 + LOUD * 100)
    world.play(0.1)
    world.playout.clear()
    world.play(0.3)
    assert world.playout.loudest() == 0.0


def test_a_finished_bot_is_silent_when_it_was_heard(world: World) -> None:
    world.started()
    world.say(1600)
    world.playout.finish()
    world.play(0.27)
    assert [turn for turn, _ in world.told.turns] == ["began", "silent"]
    assert world.playout.idle


def test_marks_of_what_went_by_on_hold_come_back_cleared(world: World) -> None:
    world.started()
    for name in "abcd":
        world.say(4000)
        world.playout.mark(name)
    world.play(0.6)
    world.playout.hold(True)
    world.play(0.6)
    world.playout.hold(False)
    world.play(2)
    assert world.told.marks == [("a", False), ("b", True), ("c", True), ("d", False)]
    world.playout.hold(True)
    world.play(1)
    world.playout.hold(False)
    world.say(1600)
    world.playout.mark("e")
    world.play(1)
    assert world.told.marks[-1] == ("e", False)


def test_a_mark_costs_the_same_however_many_wait(world: World) -> None:
    world.started()
    world.say(80000)
    for name in range(MAX_MARKS):
        world.playout.mark(str(name))
    with pytest.raises(QueueFull):
        world.playout.mark("one more")
    world.play(11)
    assert world.told.marks == [(str(name), False) for name in range(MAX_MARKS)]


def test_more_than_ten_minutes_of_speech_are_refused(world: World) -> None:
    world.started()
    minute = bytes(960_000)
    for _ in range(10):
        world.playout.say(minute)
    with pytest.raises(QueueFull):
        world.playout.say(minute)
    world.playout.clear()
    world.say(160)
    world.play(0.1)
    assert world.reader.speech() == world.speech.said


def test_speech_beyond_the_rings_room_follows_from_memory(worlds: Callable[..., World]) -> None:
    world = worlds(ring=6).started()
    world.say(8000 * 25)
    world.playout.mark("end")
    world.play(26)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0
    assert world.told.marks == [("end", False)]


def test_a_stall_of_freeswitch_loses_and_repeats_nothing(world: World) -> None:
    world.started()
    world.say(8000)
    world.play(0.3)
    world.reader.next += 0.5
    world.play(0.2)
    world.say(8000)
    world.play(3)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0
    for _ in range(10):
        first, said_at = world.speech.next, world.clock.time
        world.say(800)
        world.play(0.4131)
        assert world.reader.heard[world.reader.when(first)][0] - said_at <= PERIOD + 0.002


def test_a_takeover_of_the_controller_is_one_read_later(world: World) -> None:
    world.started()
    world.say(16000)
    world.play(0.5)
    world.reader.next += PERIOD
    world.play(3)
    assert world.reader.speech() == world.speech.said
    first, said_at = world.speech.next, world.clock.time
    world.say(800)
    world.play(0.4)
    assert world.reader.heard[world.reader.when(first)][0] - said_at <= PERIOD + 0.002


def test_a_relay_that_was_stopped_goes_on(world: World) -> None:
    world.started()
    world.say(40000)
    world.playout.mark("all")
    world.play(0.5)
    world.clock.go(world.clock.time + 7)  # nothing ran
    world.play(0.1)
    world.say(8000)
    world.play(2)
    assert world.reader.speech() == world.speech.said
    assert world.told.marks == [("all", False)]


def test_the_next_relay_lets_speech_play_on_and_speaks_behind_it(world: World) -> None:
    world.started()
    world.say(24000)
    world.play(1)
    world.killed(0.65)
    assert len(world.line.predecessor_paths) == 2
    world.play(0.05)
    assert world.playout.speaking
    world.say(4000)
    world.playout.mark("new")
    world.play(3.5)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() * PERIOD < 0.65 + 0.25 + 0.06, (
        "where FreeSWITCH was not late, that is waited for"
    )
    assert world.told.marks == [("new", False)]
    assert [turn for turn, _ in world.told.turns] == ["began", "silent"]
    assert world.line.predecessor_paths == ()
    assert {path.suffix for path in world.directory.iterdir()} == {".r8", ".line"}
    assert len(list(world.directory.iterdir())) == 3
    world.say(8000)  # and neither of them is heard a second time
    world.play(125)
    assert world.reader.speech() == world.speech.said


@pytest.mark.parametrize("late", [0.0, 0.4, 2.3])
def test_where_freeswitch_was_slow_meanwhile_nothing_is_lost_or_late(world: World, late: float) -> None:
    """62 frames in 3.5 s were measured, without a controller."""
    world.started()
    world.say(40000)
    world.play(1)
    world.killed(3.5, late)
    world.say(4000)
    world.play(8)
    assert world.reader.speech() == world.speech.said
    for _ in range(10):
        first, said_at = world.speech.next, world.clock.time
        world.say(800)
        world.play(0.4131)
        assert world.reader.heard[world.reader.when(first)][0] - said_at <= PERIOD + 0.002
    assert world.reader.speech() == world.speech.said


def test_where_nothing_is_left_the_next_relay_speaks_at_once(world: World) -> None:
    world.started()
    world.say(1600)
    world.play(1)
    old = world.line.paths
    world.killed(3.5, 2.3)
    assert world.line.predecessor_paths == () and not any(path.exists() for path in old)
    assert world.playout.idle and not world.playout.speaking
    world.play(0.1)
    first, said_at = world.speech.next, world.clock.time
    world.say(800)
    world.play(0.5)
    assert world.reader.heard[world.reader.when(first)][0] - said_at <= PERIOD + 0.002
    assert world.reader.speech() == world.speech.said


def test_behind_a_long_time_without_anybody_the_pause_is_bounded(world: World) -> None:
    world.started()
    world.say(160_000)
    world.play(1)
    world.killed(19.5)
    world.play(0.1)
    said_at = world.clock.time
    world.say(800)
    world.play(6)
    assert 4.5 < next(at for at, frame in world.reader.heard if at > said_at and any(frame)) - said_at < 5.1
    assert world.reader.speech() == world.speech.said


def test_a_full_ring_is_heard_once(world: World) -> None:
    world.started()
    world.say(80 * 8000)
    world.play(3)
    world.killed(3.5, 2.3)
    world.play(75)
    assert world.reader.speech() == world.speech.said
    assert len(world.speech.said) > 50 * 8000
    assert world.line.predecessor_paths == ()


def test_relays_that_die_one_behind_the_other_lose_nothing(world: World) -> None:
    world.started()
    for number in range(4):
        world.say(4000)
        world.play(0.1)
        if number < 3:
            world.killed(0.1, 0.04)
            assert len(world.line.predecessor_paths) == 2 * (number + 1)
            world.play(0.1)
    world.playout.mark("all")
    world.play(4)
    assert world.reader.speech() == world.speech.said
    assert world.told.marks == [("all", False)]
    assert world.line.predecessor_paths == ()


def test_of_more_relays_than_may_be_heard_the_oldest_is_not(world: World) -> None:
    world.started()
    for _ in range(5):
        world.say(8000)
        world.play(0.1)
        world.killed(0.1)
    assert len(world.line.predecessor_paths) == 6
    assert len(list(world.directory.iterdir())) == 9


def test_a_relay_that_dies_before_freeswitch_has_its_line_is_nothing_to_be_heard(world: World) -> None:
    world.started()
    world.say(8000)
    world.play(0.1)
    world.killed(0.1)
    unheard = world.line.paths
    world.killed(0.1)
    assert len(world.line.predecessor_paths) == 2 and not any(path.exists() for path in unheard)
    world.say(800)
    world.play(2)
    assert world.reader.speech() == world.speech.said


def test_speech_is_in_time_where_the_controller_is_not(world: World) -> None:
    """The new lines come onto the channel when what is left was heard long ago."""
    world.started()
    world.say(8000)
    world.play(0.5)
    world.killed(0.1)
    world.say(800)
    looks = []
    play(world.clock, lambda: looks.append(1) or world.playout.tick(), world.clock.time + 3)
    assert len(looks) < 3 / 0.009
    world.play(2)
    assert world.reader.speech() == world.speech.said


def test_a_second_ring_that_is_begun_much_later_speaks_at_the_firsts_end(
    worlds: Callable[..., World],
) -> None:
    """The controller that began the first one died; the next one begins it."""
    world = worlds(ring=3, second=False).started()
    assert world.line.opened == (True, False)
    for _ in range(3):
        world.say(8000)
    world.play(1)
    world.reader.open(world.line.paths[1])
    world.play(0.3)
    assert world.line.opened == (True, True)
    for _ in range(6):
        world.say(8000)
    world.play(9)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0


def test_the_next_relay_knows_who_speaks_at_the_rings_end(worlds: Callable[..., World]) -> None:
    world = worlds(ring=3).started()  # nothing was said yet
    world.killed(0.1)
    world.play(0.3)
    for _ in range(8):
        world.say(8000)
    world.play(9)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0


def test_the_next_relay_can_clear_what_the_one_before_has_written(world: World) -> None:
    world.started()
    world.say(24000)
    world.play(1)
    world.killed(0.3)
    cleared_at = world.clock.time
    world.playout.clear()
    assert world.line.predecessor_paths == ()
    world.play(3)
    assert all(not any(frame) for at, frame in world.reader.heard if at > cleared_at)
    assert world.playout.idle


def test_a_relay_whose_line_was_taken_writes_nothing(world: World) -> None:
    world.started()
    old = world.playout
    world.play(0.1)
    world.succeed()
    old.say(b"\x01\x01" * 8000)
    old.clear()
    assert old.tick() is None
    world.say(800)
    world.play(1)
    assert world.reader.speech() == world.speech.said


@contextmanager
def dropped(world: World) -> Iterator[None]:
    """What FreeSWITCH does in here is not told: the kernel's queue is full."""
    other = world.directory / "other"
    other.write_bytes(b"x")
    count = world.reads.watch(other, 0)
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    with other.open("rb", buffering=0) as file:
        for _ in range(limit // 2 + 10):
            os.pread(file.fileno(), 1, 0)
    yield
    world.reads.drain()
    assert count.losses == 1
    world.reads.forget(count)
    other.unlink()


def test_the_line_goes_on_where_events_were_dropped(worlds: Callable[..., World]) -> None:
    world = worlds(ring=3).started()
    world.say(8000)
    world.play(0.3)
    with dropped(world):
        world.clock.go(world.clock.time + 0.4)
    world.play(1)
    for _ in range(12):
        first, said_at = world.speech.next, world.clock.time
        world.say(4000)
        world.play(0.9137)
        assert world.reader.heard[world.reader.when(first)][0] - said_at <= 2 * PERIOD + 0.01
    assert world.reader.speech() == world.speech.said


def test_freeswitch_that_has_come_to_be_late_is_not_overtaken_where_events_were_dropped(world: World) -> None:
    world.started()
    for _ in range(200):  # take-overs
        world.reader.next += PERIOD
        world.play(0.1)
    with dropped(world):
        world.clock.go(world.clock.time + 0.4)
    for _ in range(6):
        first, said_at = world.speech.next, world.clock.time
        world.say(4000)
        world.play(0.9137)
        assert world.reader.heard[world.reader.when(first)][0] - said_at <= 3 * PERIOD
    assert world.reader.speech() == world.speech.said


@pytest.mark.parametrize("stall", [0.5, 3.0, 9.0])
def test_where_freeswitch_stalled_while_events_were_dropped_nothing_is_lost(
    world: World, stall: float
) -> None:
    """Nobody can tell that it did: speech is later by so much."""
    world.started()
    with dropped(world):
        world.reader.next += stall
        world.clock.go(world.clock.time + stall + 1.4)
    for _ in range(8):
        first, said_at = world.speech.next, world.clock.time
        world.say(4000)
        world.play(stall + 0.9137)
        heard_at = world.reader.heard[world.reader.when(first)][0]
        assert heard_at - said_at <= stall + 3 * PERIOD
    assert world.reader.speech() == world.speech.said
    world.say(40_000)
    world.play(stall + 1)
    world.playout.clear()
    cleared_at = world.clock.time
    world.play(70)
    assert not any(any(frame) for at, frame in world.reader.heard if at > cleared_at + PERIOD)


@pytest.mark.parametrize("ring", [3, 60])
@pytest.mark.parametrize("begun", [0.0, 0.03])
def test_a_line_whose_begin_was_dropped_is_heard(
    worlds: Callable[..., World], ring: float, begun: float
) -> None:
    """The open, or the reads behind it."""
    world = worlds(ring=ring)
    world.say(4000)
    world.play(0.3)
    if begun:
        world.displace()
        world.clock.go(world.clock.time + begun)
        world.reads.drain()
    with dropped(world):
        if not begun:
            world.displace()
        world.clock.go(world.clock.time + 1.4)
    for _ in range(8):
        world.play(0.9137)
        world.say(4000)
    world.play(5)
    assert world.line.read_by_freeswitch
    assert world.reader.speech() == world.speech.said


def test_what_was_dropped_before_the_begin_of_a_line_is_nothing(world: World) -> None:
    world.play(0.3)
    with dropped(world):
        world.clock.go(world.clock.time + 5)
    world.play(0.3)
    world.started()
    first, said_at = world.speech.next, world.clock.time
    world.say(4000)
    world.play(1)
    assert world.reader.heard[world.reader.when(first)][0] - said_at <= PERIOD + 0.002


@pytest.mark.parametrize("samples", [160, 100 * 8000])
def test_freeswitch_that_stands_still_is_looked_at_now_and_then(world: World, samples: int) -> None:
    world.started()
    world.reader.next += 600
    world.say(samples)
    world.playout.mark("all")
    looks: list[int] = []
    play(world.clock, lambda: looks.append(1) or world.tick(), world.clock.time + 10)
    assert len(looks) < 10 / 0.009


def test_a_full_disk_is_counted_and_no_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.started()
    room = [3200]
    write = os.pwrite

    def pwrite(fd: int, data: bytes, at: int) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        size = write(fd, data[: room[0]], at)
        room[0] -= size
        return size

    monkeypatch.setattr(os, "pwrite", pwrite)
    world.say(8000)
    world.playout.mark("lost")
    world.play(1)
    assert world.reader.speech() == world.speech.said[:1600]
    assert world.told.marks == [("lost", False)]
    assert (world.playout.lost, world.playout.full) == (pytest.approx(0.8), 1)
    room[0] = 1 << 20
    heard, said = 1600, len(world.speech.said)
    world.say(800)
    world.play(1)
    assert world.reader.speech()[heard:] == world.speech.said[said:]


PASSES = st.one_of(st.floats(0, 0.00005), st.floats(0, 0.00005), st.floats(0, 0.002), st.floats(0, 0.045))
MESSAGE = st.tuples(st.floats(0, 0.5), st.integers(1, 4000))


@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(MESSAGE, min_size=1, max_size=12),
    passes=st.lists(PASSES, min_size=1, max_size=40),
    phase=st.floats(0.0001, 0.02),
    second=st.integers(1, 4),
)
def test_what_is_heard_is_what_was_said(
    messages: list[tuple[float, int]], passes: list[float], phase: float, second: int
) -> None:
    """However it comes, and wherever this process is kept from running: each sample once and in order."""
    with TemporaryDirectory() as directory, World(Path(directory), ring=3.0) as world:
        world.displace(phase, second)
        world.clock.passes = itertools.cycle(passes)
        for pause, samples in messages:
            world.play(pause)
            world.say(samples)
        world.clock.passes = None
        world.play(len(world.speech.said) / 8000 + 6)
        heard, said = world.reader.speech(), world.speech.said
        if (
            world.line.missed
        ):  # counted: FreeSWITCH came while a frame was written, and again while it was taken back
            assert sorted(heard) == heard
            assert len(said) - len(heard) == world.line.missed
        else:
            assert heard == said
        assert world.playout.idle


@settings(max_examples=40, deadline=None)
@given(
    messages=st.lists(MESSAGE, min_size=2, max_size=12),
    passes=st.lists(st.floats(0, 0.00005), min_size=1, max_size=40),
    phase=st.floats(0.0001, 0.02),
    gap=st.floats(0, 3),
    late=st.floats(0, 0.9),
    killed=st.integers(0, 11),
)
def test_a_relay_that_is_killed_loses_what_was_in_its_memory_and_nothing_else(
    messages: list[tuple[float, int]],
    passes: list[float],
    phase: float,
    gap: float,
    late: float,
    killed: int,
) -> None:
    with TemporaryDirectory() as directory, World(Path(directory), ring=30.0) as world:
        world.displace(phase)
        world.play(0.3)
        world.clock.passes = itertools.cycle(passes)
        for number, (pause, samples) in enumerate(messages):
            if number == killed % len(messages):
                world.killed(gap, gap * late)
            world.play(pause)
            world.say(samples)
        world.play(len(world.speech.said) / 8000 + 6)
        assert world.reader.speech() == world.speech.said
        assert world.playout.idle


@settings(max_examples=40, deadline=None)
@given(
    messages=st.lists(MESSAGE, min_size=2, max_size=12),
    phase=st.floats(0.0001, 0.02),
    second=st.integers(1, 4),
    cleared=st.sets(st.integers(0, 11), min_size=1, max_size=4),
)
def test_behind_a_clear_nothing_is_heard_of_what_was_said_before(
    messages: list[tuple[float, int]], phase: float, second: int, cleared: set[int]
) -> None:
    """Wherever the rings' ends are; and the rest of it is heard, once."""
    with TemporaryDirectory() as directory, World(Path(directory), ring=1.5) as world:
        world.displace(phase, second)
        world.play(0.3)
        heard: list[int] = []  # what has to be
        before = 0
        for number, (pause, samples) in enumerate(messages):
            world.say(samples)
            world.play(pause)
            if number in cleared:
                world.playout.clear()
                read = len(world.reader.speech())
                heard += world.speech.said[before : before + read - len(heard)]
                before = len(world.speech.said)
        world.play(len(world.speech.said) / 8000 + 3)
        assert world.reader.speech() == heard + world.speech.said[before:]
        assert world.playout.idle


@settings(max_examples=30, deadline=None)
@given(
    chunks=st.lists(st.integers(1, 2000), min_size=2, max_size=40),
    phase=st.floats(0.0001, 0.02),
    ahead=st.floats(0.03, 0.5),
)
def test_a_bot_that_is_in_time_is_heard_without_a_gap(chunks: list[int], phase: float, ahead: float) -> None:
    with TemporaryDirectory() as directory, World(Path(directory), ring=3.0) as world:
        world.displace(phase)
        world.play(0.3)
        due = world.clock.time - ahead
        for samples in chunks:
            world.play(max(0.0, due - world.clock.time))
            world.say(samples)
            due += samples / 8000
        world.play(sum(chunks) / 8000 + 1)
        assert world.reader.speech() == world.speech.said
        assert world.silent_ticks() == 0


def test_a_whole_answer_in_many_messages_is_written_in_few_pieces(
    worlds: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds().started()
    write, written = world.line.write, []

    def noted(tick: int, linear: bytes, standing: int = 0) -> tuple[int, int]:
        written.append(len(linear))
        return write(tick, linear, standing)

    monkeypatch.setattr(world.line, "write", noted)
    for _ in range(200):
        world.playout.say(world.speech(160))
    assert len(written) < 20 and world.playout._queued > 3 * 16_000  # what is heard next stands already
    world.playout.tick()
    assert sum(written) == 200 * 320 and world.playout._queued == 0
    world.play(4.5)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0
