"""What a line says that was heard is what FreeSWITCH has read of it, frame by frame."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eslbot.recording.recorder import CallRecording
from eslbot.relay.line import Line
from tests.support.line_reader import FRAME, PERIOD
from tests.support.recordings import about
from tests.unit.test_relay_playout import PASSES, World


@pytest.fixture
def worlds(tmp_path: Path) -> Iterator[Callable[..., World]]:
    with ExitStack() as stack:
        yield lambda **how: stack.enter_context(World(tmp_path, kept=True, **how))


def frames(linear: bytes) -> list[bytes]:
    return [linear[n : n + FRAME] for n in range(0, len(linear), FRAME)]


def told(world: World, first: int = 0) -> list[bytes]:
    """All that was heard from a tick on, in the order in which FreeSWITCH read it."""
    return frames(world.line.played(first, world.line.tick()))


def read(world: World) -> list[bytes]:
    return [frame for _, frame in world.reader.heard]


def test_speech_and_the_silence_between(worlds: Callable[..., World]) -> None:
    world = worlds().started()
    for _ in range(3):
        world.say(4321)
        world.play(1.0)
    assert told(world) == read(world)
    assert world.line.played(0, 20) == bytes(20 * FRAME), "once"


def test_it_is_asked_in_pieces(worlds: Callable[..., World]) -> None:
    world = worlds(ring=3).started()
    heard = b""
    for _ in range(25):
        world.say(6000)
        world.play(0.8)
        tick = world.line.tick()
        heard += world.line.played(len(heard) // FRAME, tick)
        assert len(world.line._history) <= 3 * 50 + 10
    assert frames(heard) == read(world)


def test_what_was_taken_back_is_silence(worlds: Callable[..., World]) -> None:
    world = worlds().started()
    world.say(16_000)
    world.play(0.7)
    world.playout.clear()
    world.play(0.3)
    world.say(800)
    world.play(0.5)
    assert told(world) == read(world)
    assert any(any(frame) for frame in read(world)[-40:])


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    steps=st.lists(
        st.one_of(st.integers(1, 4000), st.just("clear"), st.floats(0.001, 0.4)), min_size=1, max_size=25
    ),
    passes=st.lists(PASSES, min_size=1, max_size=40),
)
def test_whatever_races_there_are(steps: list[int | str | float], passes: list[float]) -> None:
    with (
        TemporaryDirectory() as directory,
        World(Path(directory), itertools.cycle(passes), kept=True) as world,
    ):
        world.started()
        for step in steps:
            match step:
                case "clear":
                    world.playout.clear()
                case float():
                    world.play(step)
                case int():
                    world.say(step)
        world.play(0.5)
        heard = told(world)
        assert heard == read(world)[: len(heard)]
        assert len(read(world)) - len(heard) <= 2 + max(passes) / PERIOD


def test_what_was_read_while_it_was_taken_back_was_heard(
    worlds: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    world = worlds().started()
    world.say(16_000)
    world.play(0.7)
    zero = Line._zero

    def late(line: Line, *args: Any, **options: Any) -> None:
        world.clock.go(world.clock.time + 0.07)
        zero(line, *args, **options)

    monkeypatch.setattr(Line, "_zero", late)
    world.playout.clear()
    monkeypatch.undo()
    world.play(0.3)
    assert told(world) == read(world)


def test_freeswitch_restarts(worlds: Callable[..., World]) -> None:
    world = worlds().started()
    world.say(16_000)
    world.play(1.0)
    world.switch_dies()
    world.play(0.5)
    world.say(4000)
    world.play(0.5)
    last = world.line.tick()
    before = frames(world.line.played(0, last))
    assert before == read(world)
    world.switch_is_back()
    assert world.line.first >= last
    world.play(3)
    assert told(world, world.line.first) == read(world)[len(before) :]
    assert world.reader.speech() == world.speech.said


@pytest.mark.parametrize("late", [0.0, 0.1])
def test_what_a_relay_before_us_has_left_is_heard_in_its_rings(
    worlds: Callable[..., World], late: float
) -> None:
    """Where FreeSWITCH is in them is known to what it was late by."""
    world = worlds().started()
    world.say(24_000)
    world.play(0.5)
    world.killed(0.7, late)
    world.play(0.0)
    begun = len(read(world))
    world.brought({*world.line.paths, *world.line.predecessor_paths})
    world.play(6.0)
    heard, was_read = _spoken(told(world, world.line.first)), _spoken(read(world)[begun:])
    lost = len(was_read) - len(heard)
    assert 0 <= lost * PERIOD <= late + 0.04 and len(heard) > 50
    assert [frame for _, frame in heard] == [frame for _, frame in was_read[lost:]]
    (off,) = {at - number for (at, _), (number, _) in zip(was_read[lost:], heard, strict=True)}
    assert abs(off) * PERIOD <= late + 0.04


def _spoken(some: list[bytes]) -> list[tuple[int, bytes]]:
    return [(number, frame) for number, frame in enumerate(some) if any(frame)]


class Kept:
    """Stands for the writer: what it is given."""

    def __init__(self) -> None:
        self.caller, self.line = bytearray(), bytearray()

    def begin_part(self, about: Any, began_at: float) -> Kept:
        return self

    failed = None

    def write(self, caller: bytes, line: bytes) -> None:
        assert len(caller) == len(line)
        self.caller += caller
        self.line += line

    def end(self) -> None:
        pass


@pytest.mark.parametrize("phase", [0.0005, 0.007, 0.0195])
@pytest.mark.parametrize("before", [0.0, 0.013, 0.2])
def test_a_tick_of_the_line_and_the_callers_frame_of_it_stand_together(
    worlds: Callable[..., World], phase: float, before: float
) -> None:
    """On the line's own clock: the caller's frames come with FreeSWITCH's ticks, some before the first."""
    world, kept = worlds(), Kept()
    recording = CallRecording(kept, about(), world.line, world.clock)  # type: ignore[arg-type]
    frames = iter(range(1, 30_000))
    sent: list[tuple[float, int]] = []

    def hear(at: float) -> None:
        number = next(frames)
        sent.append((at, number))
        recording.caller(np.full(160, number, "<i2").tobytes(), at + 0.0007)

    due = world.clock.time + phase
    while due < world.clock.time + before:
        hear(due)
        due += PERIOD
    world.clock.go(world.clock.time + before)
    reader = world.displace(due - world.clock.time)
    seen = 0
    for step in range(500):
        if step % 40 == 3:
            world.say(1600)
        world.play(0.0137)
        for at, _ in reader.heard[seen:]:
            hear(at)
        seen = len(reader.heard)
        recording.tick()
    recording.end()
    caller, line = (np.frombuffer(bytes(side), "<i2") for side in (kept.caller, kept.line))
    numbers = {round(at, 6): number for at, number in sent}
    compared = 0
    for at, frame in reader.heard:
        spoken = np.frombuffer(frame, "<i2")
        if spoken.all():
            place = int(np.argmax(line == spoken[0]))
            assert place - int(np.argmax(caller == numbers[round(at, 6)])) == 80
            compared += 1
    assert compared > 100


def test_a_line_that_is_not_kept_remembers_nothing(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        world.started().say(8000)
        world.play(0.5)
        assert world.line.played(0, world.line.tick()) == b""
