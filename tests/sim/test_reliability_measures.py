"""The reliability benchmark finds a gap where there is one, and nowhere else."""

from __future__ import annotations

import pytest

from benchmarks.reliability.measures import spoken
from eslbot import g711
from eslbot.sim.audio import silence, tone
from eslbot.sim.pbx.media import Arrival
from eslbot.sim.rtp import FRAME_SAMPLES, PTIME, RtpPacket


def arrivals(l16: bytes, late: dict[int, float] | None = None) -> list[Arrival]:
    """``l16`` as packets in time; from packet n on they come ``late[n]`` seconds later."""
    encoded = g711.encode("PCMU", l16)
    found, at = [], 1000.0
    for number, start in enumerate(range(0, len(encoded), FRAME_SAMPLES)):
        at += (late or {}).get(number, 0.0)
        packet = RtpPacket(0, number, number * FRAME_SAMPLES, 1, encoded[start : start + FRAME_SAMPLES])
        found.append(Arrival(at, packet))
        at += PTIME
    return found


def test_two_whole_tones_and_the_pause_between_them_have_no_gap() -> None:
    found = spoken(arrivals(tone(440, 1.0) + silence(0.5) + tone(880, 0.5)), (440, 880))
    assert found.gaps == []
    assert found.seconds == pytest.approx([1.0, 0.5])


def test_a_silence_inside_a_tone_is_a_gap() -> None:
    found = spoken(arrivals(tone(440, 1.0) + silence(0.1) + tone(440, 1.0)), (440,))
    assert [(round(gap.at, 3), round(gap.seconds, 3)) for gap in found.gaps] == [(1001.0, 0.1)]


def test_packets_that_do_not_come_are_a_gap() -> None:
    (gap,) = spoken(arrivals(tone(440, 1.0), {10: 0.2}), (440,)).gaps
    assert (gap.at, gap.seconds) == (pytest.approx(1000.2), pytest.approx(0.2))


@pytest.mark.parametrize(("seconds", "gaps"), [(0.06, 0), (0.08, 1)])
def test_what_is_heard_begins_above_60_ms(seconds: float, gaps: int) -> None:
    assert len(spoken(arrivals(tone(440, 0.4) + silence(seconds) + tone(440, 0.4)), (440,)).gaps) == gaps


def test_what_was_left_out_without_a_pause_is_missing_in_the_seconds() -> None:
    found = spoken(arrivals(tone(440, 0.7)), (440, 880))
    assert found.gaps == []
    assert found.seconds == pytest.approx([0.7, 0.0])
