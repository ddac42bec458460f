"""The caller's frames: which fillers are silence, and what tells short packets and lateness."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from eslbot.relay.caller import CallerAudio

FRAME = 320
VOICE = b"\x10\x00" * (FRAME // 2)
FILLER = b"\xff" * FRAME
SILENCE = bytes(FRAME)


class Line:
    """A stream on a clock of its own, beginning at an odd time."""

    def __init__(self) -> None:
        self.now = 5000.0
        self.caller = CallerAudio(lambda: self.now)
        self.heard: list[bytes] = []

    def comes(self, *frames: bytes) -> None:
        self.heard += [heard for frame in frames if (heard := self.caller.frame(frame)) is not None]

    def every(self, seconds: float, frames: Iterable[bytes], jitter: Iterable[float] = ()) -> None:
        """One frame each ``seconds``, late by ``jitter``."""
        offsets = list(jitter) or [0.0]
        begin = self.now
        for number, frame in enumerate(frames):
            self.now = begin + number * seconds + offsets[number % len(offsets)]
            self.comes(frame)
        self.now = begin + (number + 1) * seconds

    @property
    def seconds(self) -> float:
        return sum(map(len, self.heard)) / 16000


JITTERS = [[], [0.0, 0.004, 0.001, 0.007], [0.007, 0.0]]


@pytest.mark.parametrize("jitter", JITTERS)
def test_a_caller_who_speaks_is_passed_on(jitter: list[float]) -> None:
    line = Line()
    line.every(0.02, [VOICE] * 500, jitter)
    assert line.heard == [VOICE] * 500
    assert not line.caller.short_packets
    assert line.caller.late < 0.01


@pytest.mark.parametrize("jitter", JITTERS)
def test_a_pbx_that_is_silent_is_silence(jitter: list[float]) -> None:
    line = Line()
    line.every(0.02, [VOICE] * 50 + [FILLER] * 250 + [VOICE] * 50, jitter)
    assert line.heard == [VOICE] * 50 + [SILENCE] * 250 + [VOICE] * 50
    assert not line.caller.short_packets
    assert line.caller.late < 0.01


@pytest.mark.parametrize("packet", [2, 3])
def test_fillers_beside_long_packets_are_nothing(packet: int) -> None:
    """Measured at 40 ms: 75 frames a second, 50 of them real. The first looks like silence."""
    line = Line()
    for _ in range(100):
        line.comes(VOICE)
        for _ in range(packet - 1):
            line.now += 0.02
            line.comes(FILLER, VOICE)
        line.now += 0.02
    assert line.heard.count(SILENCE) <= 1
    assert line.heard.count(VOICE) == 100 * packet
    assert SILENCE not in line.heard[3:]
    assert not line.caller.short_packets


def test_a_packet_that_was_lost_is_silence() -> None:
    line = Line()
    line.every(0.02, ([VOICE] * 9 + [FILLER]) * 20)
    assert line.heard == ([VOICE] * 9 + [SILENCE]) * 20


def test_silence_is_as_long_as_the_filler() -> None:
    line = Line()
    line.comes(b"\xff" * 960)
    assert line.heard == [bytes(960)]
    line.comes(b"")
    assert line.seconds == 0.06


def test_quiet_callers_are_no_fillers() -> None:
    line = Line()
    quiet = b"\xff\xff" * 159 + b"\x08\x00"
    line.every(0.02, [VOICE] * 10 + [quiet] * 10)
    assert line.heard[-1] == quiet


@pytest.mark.parametrize(
    ("gap", "frames"),
    [(0.02 / 0.61, 1), (0.06 / 0.41, 3)],
    ids=["10 for 20, 20 for 40", "20 for 60"],
)
def test_short_packets_are_seen_within_a_second(gap: float, frames: int) -> None:
    line = Line()
    while not line.caller.short_packets:
        line.comes(*[VOICE] * frames)
        line.now += gap
        assert line.now < 5001.2
    assert line.now >= 5000.7
    line.every(0.02, [VOICE] * 100)  # the jitter buffer is at work
    assert not line.caller.short_packets


@pytest.mark.parametrize("stall", [0.1, 0.2, 0.3, 1.0])
@pytest.mark.parametrize("made_good", [True, False], ids=["ours", "FreeSWITCH's"])
@pytest.mark.parametrize("phase", range(13))
def test_a_stall_is_no_short_packet(stall: float, made_good: bool, phase: int) -> None:
    line = Line()
    line.every(0.02, [VOICE] * (50 + phase))
    line.now += stall
    if made_good:
        line.comes(*[VOICE] * round(stall / 0.02))
    for _ in range(100):
        line.every(0.02, [VOICE])
        assert not line.caller.short_packets


@pytest.mark.parametrize("length", [0.02, 0.03, 0.06])
def test_frames_of_any_length_are_real_time(length: float) -> None:
    line = Line()
    line.every(length, [VOICE[:2] * round(length * 8000)] * 100)
    assert not line.caller.short_packets
    assert line.caller.late < 0.01


def test_freeswitch_has_stalled_and_the_caller_is_late_until_a_flush() -> None:
    line = Line()
    line.every(0.02, [VOICE] * 200, [0.0, 0.004])
    line.now += 0.28
    line.every(0.02, [VOICE] * 110, [0.0, 0.004])
    assert line.caller.late == pytest.approx(0.28, abs=0.01)
    line.caller.flushed()
    assert line.caller.late == 0.0
    line.every(0.02, [VOICE] * 200)
    assert line.caller.late < 0.01
    line.now += 0.2
    line.every(0.02, [VOICE] * 110)
    assert line.caller.late == pytest.approx(0.2, abs=0.01), "and again"


def test_a_stall_of_our_own_is_not_late() -> None:
    line = Line()
    line.every(0.02, [VOICE] * 200)
    line.now += 0.5
    line.comes(*[VOICE] * 25)
    for _ in range(200):
        line.every(0.02, [VOICE])
        assert line.caller.late < 0.01


def test_after_a_flush_fillers_beside_long_packets_are_still_nothing() -> None:
    line = Line()
    line.every(0.02, [VOICE] * 100)
    line.now += 0.4
    line.every(0.02, [VOICE] * 110)
    line.caller.flushed()
    line.heard.clear()
    for _ in range(100):
        line.comes(VOICE, VOICE)
        line.now += 0.02
        line.comes(FILLER)
        line.now += 0.02
    assert line.heard.count(SILENCE) <= 1
