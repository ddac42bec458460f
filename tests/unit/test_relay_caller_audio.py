"""The caller's frames: which fillers are silence, and what tells short packets and lateness."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import pytest

from eslbot.relay.call import MAX_LATENESS
from eslbot.relay.caller_audio import CallerAudio

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
        self.waiting = b""  # in FreeSWITCH: less than a frame

    def comes(self, *frames: bytes) -> None:
        for frame in frames:
            self.heard += self.caller.frames(frame)

    def every(self, seconds: float, frames: Iterable[bytes], jitter: Iterable[float] = ()) -> None:
        """One frame each ``seconds``, late by ``jitter``."""
        offsets = list(jitter) or [0.0]
        begin = self.now
        for number, frame in enumerate(frames):
            self.now = begin + number * seconds + offsets[number % len(offsets)]
            self.comes(frame)
        self.now = begin + (number + 1) * seconds

    def packets(self, milliseconds: int, seconds: float, jitter: Iterable[float] = ()) -> None:
        """Packets of this length, one each so many milliseconds, as FreeSWITCH's ticks of 20 ms read them."""
        offsets = list(jitter) or [0.0]
        begin = self.now
        arrivals = deque(
            number * milliseconds / 1000 + offsets[number % len(offsets)]
            for number in range(round(seconds * 1000 / milliseconds))
        )
        for tick in range(round(seconds / 0.02)):
            self.now = begin + tick * 0.02
            if arrivals and arrivals[0] <= tick * 0.02 + 1e-9:
                arrivals.popleft()
                self.waiting += VOICE[:2] * (8 * milliseconds)
            else:
                self.waiting += FILLER
            while len(self.waiting) >= FRAME:
                self.comes(self.waiting[:FRAME])
                self.waiting = self.waiting[FRAME:]
        self.now = begin + seconds

    @property
    def seconds(self) -> float:
        return sum(map(len, self.heard)) / 16000

    @property
    def silence(self) -> float:
        """Seconds of what was heard."""
        audio = b"".join(self.heard)
        return sum(audio[n : n + 2] == b"\0\0" for n in range(0, len(audio), 2)) / 8000


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


@pytest.mark.parametrize("jitter", [[], [0.0, 0.012, 0.003]])
@pytest.mark.parametrize("packet", [30, 40, 60])
def test_fillers_beside_long_packets_are_nothing(packet: int, jitter: list[float]) -> None:
    """At 30 ms they begin in the middle of frames. The first ones may look like silence."""
    line = Line()
    line.packets(packet, 6.0, jitter)
    assert {len(frame) for frame in line.heard} == {FRAME}
    assert line.silence <= 0.06
    assert line.seconds - line.silence >= 5.9
    line.heard.clear()
    line.packets(packet, 6.0, jitter)
    assert line.silence == 0
    assert line.seconds >= 5.9
    assert not line.caller.short_packets
    assert line.caller.late < MAX_LATENESS


@pytest.mark.parametrize("packet", [30, 40, 60])
def test_a_pbx_with_long_packets_that_is_silent_is_silence(packet: int) -> None:
    line = Line()
    line.packets(packet, 3.0)
    line.heard.clear()
    line.every(0.02, [FILLER] * 250)
    assert 4.99 <= line.silence <= 5.04, "and what was nothing behind the last packet"
    begun = line.silence
    line.packets(packet, 3.0)
    assert line.seconds - line.silence >= 2.94
    assert line.silence <= begun + 0.02
    assert line.caller.late < 0.01


@pytest.mark.parametrize("packet", [30, 40, 60])
def test_a_stall_of_freeswitch_is_seen_beside_long_packets(packet: int) -> None:
    line = Line()
    line.packets(packet, 6.0)
    line.heard.clear()
    line.now += 0.2
    line.packets(packet, 1.5)
    assert line.caller.late == pytest.approx(0.2, abs=0.02)
    assert line.silence == 0, "it would hide the stall, in the middle of words"


@pytest.mark.parametrize("length", [160, 480, 640, 960, 1000])
def test_bots_get_frames_of_20_ms_whatever_the_modules_are(length: int) -> None:
    line = Line()
    sound = bytes(range(1, 251)) * 80
    for at in range(0, len(sound), length):
        line.comes(sound[at : at + length])
        line.now += length / 16000
        assert sum(map(len, line.heard)) == min(len(sound), at + length) // FRAME * FRAME, "at once"
    assert {len(frame) for frame in line.heard} == {FRAME}
    assert b"".join(line.heard) == sound[: len(sound) // FRAME * FRAME]


def test_a_packet_that_was_lost_is_silence() -> None:
    line = Line()
    line.every(0.02, ([VOICE] * 9 + [FILLER]) * 20)
    assert line.heard == ([VOICE] * 9 + [SILENCE]) * 20


def test_silence_is_as_long_as_the_filler() -> None:
    line = Line()
    line.comes(b"\xff" * 960)
    assert line.heard == [SILENCE] * 3
    line.comes(b"")
    assert line.seconds == 0.06


def test_half_a_filler_is_silence_where_the_caller_is_behind() -> None:
    line = Line()
    line.comes(VOICE[:160] + FILLER[:160])
    assert line.heard == [VOICE[:160] + SILENCE[:160]]


def test_quiet_callers_are_no_fillers() -> None:
    line = Line()
    quiet = (b"\xff\xff" * 79 + b"\x08\x00") * 2
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


PBX_JITTER = [0.0, 0.03, -0.03, 0.01, -0.02, 0.025]


@pytest.mark.parametrize("jitter", [[0.0, 0.004], [0.0, 0.015, 0.002]])
@pytest.mark.parametrize("stall", [0.04, 0.1, 0.28])
@pytest.mark.parametrize("phase", range(0, 40, 3))
def test_freeswitch_has_stalled_and_the_caller_is_late_until_a_flush(
    stall: float, jitter: list[float], phase: int
) -> None:
    line = Line()
    line.every(0.02, [VOICE] * (150 + phase), jitter)
    for _ in range(2):
        assert line.caller.late < 0.005
        line.now += stall
        stalled = line.now
        while line.caller.late <= MAX_LATENESS:
            line.every(0.02, [VOICE] * 2, jitter)
            assert line.now < stalled + 1.3, "within about a second"
        assert line.caller.late == pytest.approx(stall, abs=0.002)
        line.caller.settle()
        assert line.caller.late == 0.0
        line.now += 0.04  # what the flush costs
        for _ in range(100):
            line.every(0.02, [VOICE] * 2, jitter)
            assert line.caller.late < 0.005


def test_one_tick_is_no_lateness() -> None:
    """A flush costs two frames."""
    line = Line()
    line.every(0.02, [VOICE] * 150)
    line.now += 0.02
    line.every(0.02, [VOICE] * 150)
    assert 0.015 < line.caller.late < MAX_LATENESS


def test_a_pbx_that_jitters_is_not_late() -> None:
    """FreeSWITCH hands on one frame a tick all the same: a filler where none was there in time."""
    line = Line()
    for _ in range(400):
        line.packets(20, 0.12, PBX_JITTER)
        assert line.caller.late < 0.005


def test_what_a_call_costs_that_is_set_up_is_not_late() -> None:
    """Each displace flushes, and so costs ticks."""
    line = Line()
    line.every(0.02, [VOICE] * 5)
    line.now += 0.08
    for _ in range(200):
        line.every(0.02, [VOICE])
        assert line.caller.late < 0.005


def test_packets_that_become_short_are_not_late() -> None:
    line = Line()
    line.every(0.02, [VOICE] * 200)
    while not line.caller.short_packets:
        line.every(0.02 / 0.61, [VOICE])
        assert line.caller.late < MAX_LATENESS
    line.every(0.02, [VOICE] * 50)  # the jitter buffer is at work
    for _ in range(200):
        line.every(0.02, [VOICE])
        assert line.caller.late < 0.005
    line.now += 0.1
    line.every(0.02, [VOICE] * 70)
    assert line.caller.late == pytest.approx(0.1, abs=0.005), "a stall is still seen"


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
    line.packets(40, 4.0)
    line.now += 0.4
    line.packets(40, 1.0)
    line.caller.settle()
    line.heard.clear()
    line.packets(40, 4.0)
    assert line.silence == 0
