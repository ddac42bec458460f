"""A conversation in order: what is known late, what comes late, and what is not told at all."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from eslbot.audio import FRAME_SECONDS
from eslbot.relay.turn_taking.conversation import (
    DOWNLINK,
    MAX_LATENESS,
    SETTLE_TIME,
    UPLINK,
    Arrivals,
    Conversation,
)
from eslbot.turns import MAX_TURNS, By, Kind, Turn
from tests.support.voices import Samples, frames, silence, speech


@dataclass
class Call:
    """A caller whose packets come to FreeSWITCH every 20 ms, to us UPLINK later; ``now`` is a packet's."""

    now: float = 100.0
    late: float = 0.0
    turns: list[Turn] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    level: float = 0.0

    def __post_init__(self) -> None:
        self.relay = Conversation(self._told, lambda: self.level)

    def _told(self, turn: Turn, number: int) -> None:
        self.turns.append(turn)
        self.numbers.append(number)

    def says(self, *pieces: Samples, missing: bool = False) -> None:
        """The caller."""
        for frame in frames(*pieces):
            self.relay.caller_frame(frame, self.now + UPLINK + self.late, missing=missing)
            self.now += FRAME_SECONDS

    def wait(self, seconds: float) -> None:
        self.says(silence(seconds))

    @property
    def last_packet(self) -> float:
        """When the packet that came last has come."""
        return self.now - FRAME_SECONDS


def answered(call: Call, wait: float = 0.5) -> float:
    """The caller asks, and the bot answers behind ``wait`` seconds; the latency that is right."""
    call.says(speech(1, 1))
    stopped = call.last_packet
    call.wait(wait)
    heard = call.now
    call.relay.bot_audible(heard, heard - 0.1)
    call.wait(1)
    call.relay.bot_inaudible(call.now, cut=False)
    call.wait(1)
    return heard - stopped


def test_an_answer() -> None:
    call = Call()
    call.wait(1)
    seconds = answered(call)
    (turn,) = call.turns
    assert turn.kind is Kind.ANSWER
    assert turn.seconds == pytest.approx(seconds, abs=0.021)
    assert turn.bot == pytest.approx(seconds - 0.1, abs=0.021)
    assert call.numbers == [1]


def test_an_answer_that_is_faster_than_the_pause_that_shows_it() -> None:
    call = Call()
    call.wait(1)
    seconds = answered(call, 0.06)
    assert [turn.seconds for turn in call.turns] == [pytest.approx(seconds, abs=0.021)]


def test_a_barge_in() -> None:
    call = Call()
    call.wait(1)
    call.relay.bot_audible(call.now, call.now)
    call.wait(1)
    began = call.now
    call.says(speech(0.5, 1))
    call.relay.cleared(call.now + 0.005)
    silent = call.now + 0.015
    call.relay.bot_inaudible(silent - DOWNLINK, cut=True)
    call.says(speech(0.5, 2))
    call.wait(2)
    (turn,) = call.turns
    assert (turn.kind, turn.at) == (Kind.BARGE_IN, pytest.approx(silent))
    assert turn.seconds == pytest.approx(silent - began, abs=0.021)
    assert turn.bot == pytest.approx(silent - began - 0.01, abs=0.021)


def test_who_speaks_over_whom() -> None:
    call = Call()
    call.wait(1)
    call.says(speech(1, 1))
    call.relay.bot_audible(call.now, call.now)
    call.says(speech(1, 2))
    call.wait(1)
    call.relay.bot_inaudible(call.now, cut=False)
    call.wait(1)
    (turn,) = call.turns
    assert (turn.kind, turn.by) == (Kind.OVERLAP, By.BOT)
    assert turn.seconds == pytest.approx(1, abs=0.05)


def test_who_is_late_now_and_then_measures_right_all_the_same() -> None:
    """Our own turn comes late by some milliseconds, another one each time."""
    call = Call()
    call.wait(1)
    said = list(frames(speech(1, 1), silence(0.4)))
    for number, frame in enumerate(said):
        call.relay.caller_frame(frame, call.now + UPLINK + (number * 7 % 25) / 1000, missing=False)
        call.now += FRAME_SECONDS
    stopped = call.now - FRAME_SECONDS - 0.4
    call.relay.bot_audible(call.now, call.now)
    call.wait(1)
    assert [turn.seconds for turn in call.turns] == [pytest.approx(call.turns[0].at - stopped, abs=0.021)]


def test_packets_that_are_too_late_are_not_measured_by() -> None:
    call = Call()
    call.wait(1)
    call.says(speech(0.8, 1))
    call.late = MAX_LATENESS + 0.01
    call.says(speech(0.3, 2))
    call.relay.bot_audible(call.now + 0.3, call.now)
    call.wait(1)
    assert call.turns == []
    call.relay.bot_inaudible(call.now, cut=False)
    call.wait(1)
    seconds = answered(call)  # they are as late as ever by now, which is no lateness any more
    assert [turn.seconds for turn in call.turns] == [pytest.approx(seconds - call.late, abs=0.021)]


@pytest.mark.parametrize("breaks", ["broken", "new_stream", "hold"])
def test_what_breaks_leaves_nothing_to_measure(breaks: str) -> None:
    call = Call()
    call.wait(1)
    call.says(speech(1, 1))
    call.wait(0.3)
    if breaks == "hold":
        call.relay.hold(True, call.now)
        call.says(speech(1, 2))
        call.wait(0.5)
        call.relay.hold(False, call.now)
    else:
        getattr(call.relay, breaks)(call.now)
    call.relay.bot_audible(call.now + 0.1, call.now)
    call.wait(1)
    call.relay.bot_inaudible(call.now, cut=False)
    call.wait(1)
    assert call.turns == []
    answered(call)
    assert [turn.kind for turn in call.turns] == [Kind.ANSWER]


def test_a_word_whose_packets_are_missing_has_no_answer() -> None:
    call = Call()
    call.wait(1)
    call.says(speech(1, 1))
    call.says(silence(0.5), missing=True)
    call.relay.bot_audible(call.now, call.now)
    call.wait(1)
    assert call.turns == []


def test_what_is_told_too_late_is_not_put_in_before_what_is_settled() -> None:
    call = Call()
    call.wait(1)
    call.says(speech(1, 1))
    call.wait(2)
    call.relay.bot_audible(
        call.now - SETTLE_TIME - 1, call.now - 1.5
    )  # the loop stood still: nobody knows what was when
    call.relay.bot_inaudible(call.now - SETTLE_TIME, cut=False)
    call.wait(2)
    assert len(call.turns) <= 1
    assert all(turn.seconds >= 0 for turn in call.turns)
    assert answered(call) == pytest.approx(call.turns[-1].seconds, abs=0.021)


def test_so_many_are_told_and_no_more() -> None:
    call = Call()
    question = list(frames(speech(0.3, 1), silence(0.9)))
    for _ in range(MAX_TURNS + 3):
        for number, frame in enumerate(question):
            call.relay.caller_frame(frame, call.now + UPLINK, missing=False)
            if number == 25:
                call.relay.bot_audible(call.now, call.now)
            if number == 30:
                call.relay.bot_inaudible(call.now, cut=False)
            call.now += FRAME_SECONDS
    assert len(call.turns) == MAX_TURNS
    assert call.numbers == list(range(1, MAX_TURNS + 1))


def test_arrivals_know_by_how_much_a_frame_is_late() -> None:
    arrivals = Arrivals()
    lateness = [
        arrivals.lateness(number * FRAME_SECONDS + (0.015 if number == 20 else 0.0)) for number in range(80)
    ]
    assert lateness[20] == pytest.approx(0.015)
    assert sum(lateness) == pytest.approx(0.015)
    # Ticks that FreeSWITCH has left out: late for up to a second, and then that is when they come.
    after = [arrivals.lateness(1.8 + number * FRAME_SECONDS) for number in range(80)]
    assert after[0] == pytest.approx(0.2)
    assert after[-1] == pytest.approx(0)
