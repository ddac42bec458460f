"""Where the caller's frames and the line's ticks stand in a recording."""

from __future__ import annotations

import random

import numpy as np
import pytest

from eslbot.recording.alignment import SIDE_TIMEOUT, SideAligner
from eslbot.recording.recorder import is_recorded

TICK = 0.02
#: FreeSWITCH's first tick, somewhere.
BEGIN = 1234.5678


def frame(number: int) -> bytes:
    """Samples that say which frame they are of; none of them silent."""
    return np.full(160, number + 1, "<i2").tobytes()


class Switch:
    """Both sides as FreeSWITCH has them: in tick `n` frame `n` of each; the caller's late by `delays`."""

    def __init__(
        self, delays: dict[int, float] | None = None, left_out: tuple[int, float] = (-1, 0.0)
    ) -> None:
        self.sides = SideAligner(TICK)
        self.caller, self.line = bytearray(), bytearray()
        self.delays = delays or {}
        #: Behind which tick it stands still, and for how many seconds.
        self.left_out = left_out

    def at(self, tick: int) -> float:
        behind, seconds = self.left_out
        return BEGIN + tick * TICK + (seconds if tick > behind >= 0 else 0.0)

    def run(self, first: int, last: int, *, caller: bool = True, line: bool = True) -> None:
        frames = []
        if caller:
            frames = [(self.at(n) + 0.0005 + self.delays.get(n, 0.0), frame(n)) for n in range(first, last)]
        latest = 0.0
        for at, one in frames:
            latest = max(latest, at)  # they come in their order
            self.sides.caller(one, latest)
        if line:
            behind = self.left_out[0]
            for begin, end in (
                ((first, behind + 1), (behind + 1, last)) if first <= behind < last else ((first, last),)
            ):
                self.sides.line(b"".join(frame(n) for n in range(begin, end)), self.at(begin))
        self.take()

    def take(self, *, everything: bool = False) -> None:
        caller, line = self.sides.take(everything=everything)
        assert len(caller) == len(line)
        self.caller += caller
        self.line += line

    def ended(self) -> tuple[np.ndarray, np.ndarray]:
        self.take(everything=True)
        return np.frombuffer(bytes(self.caller), "<i2"), np.frombuffer(bytes(self.line), "<i2")


def offsets(caller: np.ndarray, line: np.ndarray) -> dict[int, int]:
    """By frame, by how many samples the caller's stands before the line's, of those that are in both."""
    found = {}
    for number in set(caller[caller != 0]) & set(line[line != 0]):
        found[int(number) - 1] = int(np.argmax(line == number)) - int(np.argmax(caller == number))
    return found


def whole(side: np.ndarray, frames: int) -> None:
    """Every frame is there, once, in its order, unbroken."""
    spoken = side[side != 0]
    assert spoken.tolist() == np.repeat(np.arange(1, frames + 1), 160).tolist()


def test_frames_of_one_tick_stand_half_a_tick_apart() -> None:
    switch = Switch()
    for begin in range(0, 500, 50):
        switch.run(begin, begin + 50)
    caller, line = switch.ended()
    whole(caller, 500)
    whole(line, 500)
    assert set(offsets(caller, line).values()) == {80}
    assert len(caller) == 500 * 160 + 80


@pytest.mark.parametrize("caller_first", [True, False])
@pytest.mark.parametrize("seconds", [0.1, 0.5, 3.0])
def test_one_side_begins_later(caller_first: bool, seconds: float) -> None:
    switch = Switch()
    late = round(seconds / TICK)
    for begin in range(0, 400, 50):
        ticks = range(begin, begin + 50)
        first = max(begin, min(late, begin + 50))
        switch.run(begin, ticks.stop, caller=caller_first, line=not caller_first)
        if first < ticks.stop:  # the other side, beside it
            other = Switch()
            other.sides = switch.sides
            other.run(first, ticks.stop, caller=not caller_first, line=caller_first)
            switch.caller += other.caller
            switch.line += other.line
    caller, line = switch.ended()
    assert set(offsets(caller, line).values()) == {80}
    assert len(offsets(caller, line)) == 400 - late


def test_frames_that_come_late_are_in_their_place() -> None:
    rng = random.Random(1)
    stalls = {n: rng.expovariate(1 / 0.004) for n in range(1000)}
    # The relay was not run for 150 ms, twice: what has come meanwhile comes at once.
    for begin in (210, 770):
        stalls |= {begin + n: 0.15 - n * TICK for n in range(8)}
    switch = Switch(stalls)
    for begin in range(0, 1000, 50):
        switch.run(begin, begin + 50)
    caller, line = switch.ended()
    whole(caller, 1000)
    assert set(offsets(caller, line).values()) == {80}


@pytest.mark.parametrize("missing", [1, 5, 60, 400])
def test_what_is_missing_of_the_caller_is_silence_where_it_was(missing: int) -> None:
    switch = Switch()
    for begin in range(0, 1000, 50):
        gone = range(300, 300 + missing)
        kept = [n for n in range(begin, begin + 50) if n not in gone]
        for n in kept:
            switch.sides.caller(frame(n), switch.at(n) + 0.0005)
        switch.run(begin, begin + 50, caller=False)
    caller, line = switch.ended()
    assert set(offsets(caller, line).values()) == {80}
    assert len(offsets(caller, line)) == 1000 - missing
    whole(line, 1000)


def test_ticks_that_were_left_out_are_silence_on_both_sides() -> None:
    switch = Switch(left_out=(249, 0.28))
    for begin in range(0, 500, 50):
        switch.run(begin, begin + 50)
    caller, line = switch.ended()
    whole(caller, 500)
    whole(line, 500)
    assert set(offsets(caller, line).values()) == {80}
    assert abs(len(line) / 8000 - (10 + 0.28 + 0.01)) <= TICK


def test_a_caller_who_is_not_heard_any_more_keeps_nothing_waiting() -> None:
    switch = Switch()
    switch.run(0, 50)
    for begin in range(50, 500, 50):
        switch.run(begin, begin + 50, caller=False)
    assert len(switch.line) >= (10 - SIDE_TIMEOUT) * 16000 - 320
    caller, line = switch.ended()
    whole(line, 500)
    assert len(caller) == len(line)


def test_nothing_was_heard() -> None:
    sides = SideAligner(TICK)
    assert sides.take() == (b"", b"") == sides.take(everything=True)


def test_a_call_of_a_moment() -> None:
    switch = Switch()
    switch.run(0, 3)
    caller, line = switch.ended()
    whole(caller, 3)
    whole(line, 3)
    assert set(offsets(caller, line).values()) == {80}


def test_every_process_chooses_the_same_calls() -> None:
    ids = [f"call-{n}" for n in range(20_000)]
    assert not any(is_recorded(one, 0.0) for one in ids) and all(is_recorded(one, 1.0) for one in ids)
    tenth = {one for one in ids if is_recorded(one, 0.1)}
    assert 1800 < len(tenth) < 2200
    assert tenth < {one for one in ids if is_recorded(one, 0.2)}
    assert is_recorded("0b1a4ad5-6e7c-4d1a-8a2c-1d1b3b3b3b3b", 0.5) is False, "in every version, too"
