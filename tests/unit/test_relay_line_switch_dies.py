"""FreeSWITCH dies while a bot speaks, and comes back: what its caller hears, and what the bot is told."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eslbot.relay.line import predecessor
from tests.support.line_reader import PERIOD
from tests.unit.test_relay_playout import MESSAGE, PASSES, World, dropped


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[..., World]]:
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(World(tmp_path, **how))


@pytest.fixture
def world(worlds: Callable[..., World]) -> World:
    return worlds().started()


def files(world: World) -> int:
    return len(list(world.directory.iterdir()))


def turns(world: World) -> list[str]:
    return [turn for turn, _ in world.told.turns]


def test_what_it_had_not_read_and_what_was_said_meanwhile_is_heard(world: World) -> None:
    for name in "abc":
        world.say(8000)
        world.playout.mark(name)
    world.play(1.5)
    before = world.line.paths
    world.switch_dies()
    world.play(1)
    world.say(4000)
    world.playout.mark("d")
    world.play(1)
    assert [name for name, _ in world.told.marks] == ["a"], "nothing is heard while nobody reads"
    world.switch_is_back()
    back_at = world.clock.time
    world.play(3)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0
    assert world.told.marks == [(name, False) for name in "abcd"]
    for name, said in (("b", 16_000), ("c", 24_000), ("d", 28_000)):
        heard_at, _ = world.reader.heard[world.reader.when(said)]
        assert 0.015 <= world.told.mark_times[name] - heard_at <= 0.045
        assert heard_at > back_at
    assert turns(world) == ["began", "silent"]
    assert world.playout.idle
    assert not set(before) & set(world.line.paths) and not any(path.exists() for path in before)
    assert files(world) == 3
    first, said_at = world.speech.next, world.clock.time
    world.say(800)
    world.play(0.5)
    assert world.reader.heard[world.reader.when(first)][0] - said_at <= PERIOD + 0.002


def test_a_stream_that_merely_broke_changes_nothing(world: World) -> None:
    world.say(16_000)
    world.play(0.5)
    before = world.line.paths
    for switch in ("core-1", ""):
        assert not world.playout.attach(switch)
    world.play(2)
    assert world.line.paths == before
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0


def test_one_whose_core_uuid_was_not_told_before_has_not_restarted(worlds: Callable[..., World]) -> None:
    world = worlds()
    world.line.close(remove=True)
    world.switch = 0
    world.relays.clear()
    world.succeed()
    world.line._slot.switch = ""
    world.started()
    before = world.line.paths
    assert not world.playout.attach("core-1")
    assert world.line.paths == before
    assert world.playout.attach("core-2")
    assert world.line.paths != before


def test_one_that_dies_before_it_has_the_line_has_heard_nothing(worlds: Callable[..., World]) -> None:
    world = worlds()
    world.say(4000)
    world.playout.mark("hello")
    assert world.playout.attach("core-2")
    world.say(4000)
    world.started()
    world.play(2)
    assert world.reader.speech() == world.speech.said
    assert world.told.marks == [("hello", False)]


@pytest.mark.parametrize("up", [0.0, 0.003, 0.1, 0.7])
def test_two_deaths_within_a_second(world: World, up: float) -> None:
    world.say(24_000)
    world.playout.mark("all")
    world.play(1)
    world.switch_dies()
    world.play(0.1)
    world.switch_is_back()
    world.play(up)
    world.switch_dies()
    world.play(0.2)
    world.switch_is_back(0.013)
    world.play(4)
    assert world.reader.speech() == world.speech.said
    assert world.told.marks == [("all", False)]
    assert turns(world) == ["began", "silent"]
    assert files(world) == 3


def test_deaths_without_end_leave_nothing_behind(world: World) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(8):
        world.say(4000)
        world.play(0.2)
        world.switch_dies()
        world.play(0.1)
        world.switch_is_back()
    world.play(4)
    assert world.reader.speech() == world.speech.said
    assert files(world) == 3
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert len(world.reads._counts) == 2


def test_at_the_first_rings_end_marks_are_where_they_were(worlds: Callable[..., World]) -> None:
    """Without a second ring it is a pause, of which a mark's place has to know."""
    world = worlds(ring=3, second=False).started()
    world.say(4000)
    world.play(0.3)
    world.switch_dies()
    world.play(0.5)
    world.switch_is_back()
    for name in range(25):
        world.say(1000)
        world.playout.mark(str(name))
    world.play(10)
    assert world.reader.speech() == world.speech.said
    for name in range(25):
        heard_at, _ = world.reader.heard[world.reader.when(4000 + 1000 * (name + 1))]
        assert 0.015 <= world.told.mark_times[str(name)] - heard_at <= 0.045


def test_what_is_cleared_while_it_is_away_is_not_heard(world: World) -> None:
    world.say(24_000)
    world.playout.mark("a")
    world.play(1)
    heard = len(world.reader.speech())
    world.switch_dies()
    world.play(0.5)
    world.playout.clear()
    assert world.told.marks == [("a", True)] and turns(world) == ["began", "cut"]
    world.say(800)
    world.playout.mark("b")
    world.play(0.5)
    world.switch_is_back()
    world.play(1)
    assert world.reader.speech() == world.speech.said[:heard] + world.speech.said[24_000:]
    assert world.told.marks[1:] == [("b", False)]


def test_what_is_cleared_before_it_reads_again_is_not_heard(world: World) -> None:
    world.say(24_000)
    world.play(1)
    heard = len(world.reader.speech())
    world.switch_dies()
    world.play(0.5)
    world.switch += 1
    world.playout.attach(f"core-{world.switch}")
    world.play(0.1)
    world.playout.clear()
    world.displace_again()
    world.say(800)
    world.play(62)
    assert world.reader.speech() == world.speech.said[:heard] + world.speech.said[24_000:]


def test_speech_that_waited_for_its_margin_does_not_wait_again(world: World) -> None:
    world.delay._learnt = 0.3
    world.say(1600)
    world.switch_dies()
    world.play(1)
    world.switch_is_back()
    back_at = world.clock.time
    world.play(1)
    assert world.reader.heard[world.reader.when(1)][0] - back_at <= PERIOD
    assert world.reader.speech() == world.speech.said


def test_a_full_line_and_what_waits_behind_it(worlds: Callable[..., World]) -> None:
    world = worlds(ring=3).started()
    for name in range(10):
        world.say(8000)
        world.playout.mark(str(name))
    world.play(2.83)
    for _ in range(3):
        world.switch_dies()
        world.play(2)
        world.switch_is_back()
        world.play(1.7)
    world.play(10)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0
    assert world.told.marks == [(str(name), False) for name in range(10)]


def test_a_caller_that_was_on_hold_is_until_it_is_told_otherwise(world: World) -> None:
    for name in "abcd":
        world.say(4000)
        world.playout.mark(name)
    world.play(0.6)
    world.playout.hold(True)
    world.play(0.2)
    world.switch_dies()
    world.play(1)
    world.switch_is_back()
    world.play(0.4)
    world.playout.hold(False)
    world.play(2)
    assert world.told.marks == [("a", False), ("b", True), ("c", True), ("d", False)]


def test_what_an_earlier_relay_has_left_is_heard_as_well(world: World) -> None:
    world.say(24_000)
    world.play(1)
    world.killed(0.3)
    world.say(4000)
    world.playout.mark("new")
    world.play(0.31)
    assert len(world.line.predecessor_paths) == 2
    world.switch_dies()
    world.play(2)
    world.switch_is_back()
    world.play(4)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0
    assert world.told.marks == [("new", False)]
    assert turns(world) == ["began", "silent"]
    assert files(world) == 3


def test_what_three_relays_have_left_is_heard_as_well(world: World) -> None:
    for number in range(4):
        world.say(4000)
        world.play(0.1)
        if number < 3:
            world.killed(0.1)
            world.play(0.1)
    assert len(world.line.predecessor_paths) == 6
    world.switch_dies()
    world.play(2)
    world.switch_is_back()
    world.play(4)
    heard, said = world.reader.speech(), world.speech.said
    assert heard == sorted(heard) and len(set(heard)) == len(heard), "in order and once"
    assert len(said) - len(heard) <= 3 * 160, "a frame a relay"
    assert files(world) == 3


@pytest.mark.parametrize("before", [True, False])
def test_a_relay_that_dies_while_it_is_away_leaves_it_all(world: World, before: bool) -> None:
    """``before`` the stream of the next one came, or behind that."""
    world.say(24_000)
    world.play(1)
    world.switch_dies()
    world.play(0.5)
    world.say(4000)
    world.play(0.1)
    world.switch += 1
    if not before:
        world.playout.attach(f"core-{world.switch}")
        world.play(0.03)
    world.forgotten()
    world.clock.go(world.clock.time + 1)
    world.succeed()
    world.say(1600)
    world.playout.mark("new")
    world.play(0.2)
    assert world.told.marks == []
    world.displace_again()
    world.play(4.5)
    assert world.reader.speech() == world.speech.said
    assert world.silent_ticks() == 0
    assert world.told.marks == [("new", False)]
    assert turns(world) == ["began", "silent"]
    assert files(world) == 3


def test_a_relay_that_dies_right_behind_it_is_not_heard_twice(world: World) -> None:
    """Its stream breaks, and that is all that it sees."""
    world.say(24_000)
    world.play(1.07)  # between two notes
    world.switch_dies()
    world.line.checkpoint_now()
    world.switch += 1
    world.forgotten()
    world.clock.go(world.clock.time + 1)
    world.succeed()
    world.displace_again()
    world.play(4)
    assert world.reader.speech() == world.speech.said


def test_relays_that_die_one_behind_the_other_while_it_is_away_leave_it_all(world: World) -> None:
    world.say(24_000)
    world.play(1)
    world.switch_dies()
    world.play(0.5)
    world.switch += 1
    for _ in range(6):
        world.forgotten()
        world.clock.go(world.clock.time + 1)
        world.succeed()
        world.play(0.1)
        world.say(800)  # waits in its memory for the line to be read
    world.displace_again()
    world.play(5)
    assert world.reader.speech() == world.speech.said
    assert files(world) == 3


def test_a_relay_that_dies_as_it_is_back_is_not_heard_twice(world: World) -> None:
    world.say(24_000)
    world.play(1)
    world.switch_dies()
    world.play(1)
    world.switch_is_back()
    world.play(0.02)
    assert world.line.read_by_freeswitch
    world.killed(0.2)
    world.say(800)
    world.play(5)
    assert world.reader.speech() == world.speech.said


def test_what_both_have_left_for_long_is_not_heard(world: World) -> None:
    world.say(24_000)
    world.play(1)
    heard = world.reader.speech()
    world.switch_dies()
    world.play(0.5)
    world.clock.go(world.clock.time + predecessor.MAX_AGE + 1)
    world.switch += 1
    world.succeed()
    assert world.playout.idle
    world.displace_again()
    world.play(5)
    assert world.reader.speech() == heard
    assert files(world) == 3


def test_where_events_were_dropped_nothing_is_heard_twice(world: World) -> None:
    world.say(24_000)
    world.play(0.5)
    with dropped(world):
        world.clock.go(world.clock.time + 0.4)
    world.play(0.5)
    world.switch_dies()
    world.play(2)
    world.switch_is_back()
    world.play(3)
    heard, said = world.reader.speech(), world.speech.said
    assert heard == sorted(heard) and len(set(heard)) == len(heard)
    assert len(said) - len(heard) <= 2 * 160


def full(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    write, left = os.pwrite, [room]

    def pwrite(fd: int, data: bytes, at: int) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        size = write(fd, data[: left[0]], at)
        left[0] -= size
        return size

    monkeypatch.setattr(os, "pwrite", pwrite)


def test_what_the_disk_has_no_room_for_is_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.say(8000)
    world.playout.mark("lost")
    world.play(0.5)
    heard = len(world.reader.speech())
    world.switch_dies()
    world.play(1)
    full(monkeypatch, 3200)
    world.switch_is_back()
    monkeypatch.undo()
    world.play(2)
    assert world.reader.speech() == world.speech.said[: heard + 1600]
    assert world.line.lost == pytest.approx((8000 - heard - 1600) / 8000)
    assert world.told.marks == [("lost", False)]
    assert world.playout.idle


@pytest.mark.parametrize("ring", [0, 1])
def test_where_no_rings_can_be_made_those_before_stay(
    world: World, monkeypatch: pytest.MonkeyPatch, ring: int
) -> None:
    world.say(8000)
    world.play(0.5)
    before, descriptors = world.line.paths, len(list(Path("/proc/self/fd").iterdir()))
    watch, calls = world.reads.watch, itertools.count()

    def fails(path: Path, samples: int) -> object:
        if next(calls) == ring:
            raise OSError(errno.ENOSPC, "No space left on device")
        return watch(path, samples)

    monkeypatch.setattr(world.reads, "watch", fails)
    with pytest.raises(OSError, match="No space"):
        world.playout.attach("core-2")
    assert world.line.paths == before and all(path.exists() for path in before)
    assert files(world) == 3 and len(list(Path("/proc/self/fd").iterdir())) == descriptors
    world.play(1)
    assert world.reader.speech() == world.speech.said


def test_rings_that_cannot_be_read_any_more_are_an_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.say(8000)
    world.play(0.5)
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    world.switch_dies()

    def fails(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pread", fails)
        with pytest.raises(OSError, match="Input/output"):
            world.playout.attach("core-2")
    assert files(world) == 3
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_a_relay_whose_line_was_taken_lays_nothing(world: World) -> None:
    world.say(8000)
    world.play(0.5)
    old, old_line = world.playout, world.line
    world.succeed()
    names = sorted(world.directory.iterdir())
    old.attach("core-2")
    assert old_line.taken and old.tick() is None
    assert sorted(world.directory.iterdir()) == names
    world.play(2)
    assert world.reader.speech() == world.speech.said


AWAY = st.tuples(
    st.floats(0, 0.6),  # up, until it dies
    st.floats(0, 2.5),  # until its stream comes
    st.floats(0, 0.3),  # until it has the line
    st.floats(0.0001, 0.02),  # its phase
)


class Heard:
    """Marks, each with what had been heard when it was told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.said: dict[str, int] = {}
        marked = world.told.mark_reached

        def noted(name: str, cleared: bool) -> None:
            marked(name, cleared)
            assert world.line.missed or len(world.reader.speech()) >= self.said[name], "too early"

        world.told.mark_reached = noted  # type: ignore[method-assign]

    def mark(self) -> None:
        name = str(len(self.said))
        self.said[name] = len(self.world.speech.said)
        self.world.playout.mark(name)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    messages=st.lists(MESSAGE, min_size=1, max_size=12),
    passes=st.lists(PASSES, min_size=1, max_size=40),
    phase=st.floats(0.0001, 0.02),
    second=st.integers(1, 4),
    ring=st.sampled_from([1.5, 3.0, 60.0]),
    deaths=st.dictionaries(st.integers(0, 11), AWAY, min_size=1, max_size=4),
)
def test_whenever_it_dies_each_sample_is_heard_once_and_in_order(
    messages: list[tuple[float, int]],
    passes: list[float],
    phase: float,
    second: int,
    ring: float,
    deaths: dict[int, tuple[float, float, float, float]],
) -> None:
    with TemporaryDirectory() as directory, World(Path(directory), ring=ring) as world:
        world.displace(phase, second)
        heard = Heard(world)
        world.clock.passes = itertools.cycle(passes)
        pending: list[tuple[float, Callable[[], None]]] = []

        def play(seconds: float) -> None:
            until = world.clock.time + seconds
            while pending and pending[0][0] <= until:
                due, what = pending.pop(0)
                world.play(due - world.clock.time)
                what()
            world.play(until - world.clock.time)

        def stream_up() -> None:
            world.switch += 1
            assert world.playout.attach(f"core-{world.switch}")

        for number, (pause, samples) in enumerate(messages):
            if number in deaths and not pending:
                up, away, unread, at = deaths[number]
                world.switch_dies(up)
                stream = world.clock.time + up + away
                pending = [(stream, stream_up), (stream + unread, lambda at=at: world.displace_again(at))]
            play(pause)
            world.say(samples)
            heard.mark()
        world.clock.passes = None
        play(4)
        world.play(len(world.speech.said) / 8000 + 6)
        got, said = world.reader.speech(), world.speech.said
        if world.line.missed:
            assert sorted(got) == got
            assert len(said) - len(got) == world.line.missed
        else:
            assert got == said
        assert world.told.marks == [(name, False) for name in heard.said]
        told = turns(world)
        assert told == ["began", "silent"] * (len(told) // 2)
        assert world.playout.idle and not world.playout.speaking
        assert files(world) == 3 and world.line.lost == 0


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    messages=st.lists(MESSAGE, min_size=2, max_size=10),
    phase=st.floats(0.0001, 0.02),
    deaths=st.lists(AWAY, min_size=1, max_size=3),
    noticed=st.floats(0.3, 1.0),
    laid=st.booleans(),
)
def test_where_the_relay_dies_while_it_is_away_only_its_memory_is_lost(
    messages: list[tuple[float, int]],
    phase: float,
    deaths: list[tuple[float, float, float, float]],
    noticed: float,
    laid: bool,
) -> None:
    with TemporaryDirectory() as directory, World(Path(directory), ring=30.0) as world:
        world.displace(phase)
        world.play(0.3)
        for number, (pause, samples) in enumerate(messages):
            world.say(samples)
            world.play(pause)
            if number < len(deaths):
                up, away, unread, at = deaths[number]
                world.switch_dies(up)
                world.play(up + noticed)
                world.switch += 1
                if laid:
                    world.playout.attach(f"core-{world.switch}")
                world.forgotten()
                world.clock.go(world.clock.time + away)
                world.succeed()
                world.play(unread)
                world.displace_again(at)
        world.play(len(world.speech.said) / 8000 + 6)
        assert world.reader.speech() == world.speech.said
        assert world.playout.idle and files(world) == 3


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(
    messages=st.lists(MESSAGE, min_size=3, max_size=10),
    phase=st.floats(0.0001, 0.02),
    gap=st.floats(0, 1.5),
    death=AWAY,
)
def test_what_a_dead_relay_left_is_heard_once_to_a_frame(
    messages: list[tuple[float, int]],
    phase: float,
    gap: float,
    death: tuple[float, float, float, float],
) -> None:
    """Where FreeSWITCH was in time while no relay was there."""
    with TemporaryDirectory() as directory, World(Path(directory), ring=30.0) as world:
        world.displace(phase)
        world.play(0.3)
        up, away, unread, at = death
        for number, (pause, samples) in enumerate(messages):
            world.say(samples)
            world.play(pause)
            if number == 0:
                world.killed(gap)
                world.play(0.05)
            if number == 1:
                world.switch_dies(up)
                world.play(up + away)
                world.switch += 1
                world.playout.attach(f"core-{world.switch}")
                world.play(unread)
                world.displace_again(at)
        world.play(len(world.speech.said) / 8000 + 12)
        heard, said = world.reader.speech(), world.speech.said
        twice = len(heard) - len(set(heard))
        assert twice <= 160 and len(set(said)) - len(set(heard)) <= 160
        assert world.playout.idle
