"""The reliability benchmark finds a gap where there is one, and nowhere else, and tells what it found."""

from __future__ import annotations

import json

import pytest

from benchmarks.frame import About
from benchmarks.reliability.measures import Gap, spoken
from benchmarks.reliability.report import Report
from benchmarks.reliability.results import Away, Deploys, Kill, Storm, TakeOvers
from eslbot.audio import g711
from eslbot.sim.audio import silence, tone
from eslbot.sim.loadtest.machine import Machine
from eslbot.sim.pbx.media import Arrival
from eslbot.sim.rtp import FRAME_SAMPLES, PTIME, RtpPacket
from tests.support.audit import Fault, Leftovers, Placed, Post, account


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


CALL = Placed("crt-1", "t", answered=True, status=200, ended_by="pbx", cause="accepted", answered_at=1.0)
ABOUT = About("today", "the command", Machine(2, "cpu", "Linux", "3.11", 0.1), {"eslbot": "0"})
POST = Post(9.0, 9.1, accepted=True, status=200, crt_object_id="crt-1", tenant="t")
CLEAN = account([CALL], [POST], [Fault("HUP", 2.0, 3.0, "reload", frozenset({"crt-1"}))], Leftovers())
LOST = account([CALL], [], [], Leftovers())


def report(answered: float = 0.012, *, lost: bool = False) -> Report:
    """Of a run in which every call was handed off, or none."""
    judged = LOST if lost else CLEAN
    gap = [("crt-1", Gap(2.5, 0.1, 440))] if lost else []
    kill = Kill(1.0, 0.003, 0.010, 0.011, answered, bot_stays=not lost)
    return Report(
        ABOUT,
        3,
        4,
        speaking=TakeOvers(1, True, [kill], handed_off=not lost, account=judged),
        parked=TakeOvers(1, False, [kill], lost=[int(lost)], account=judged),
        away=Away(5.0, 1, 1, [0.1], judged),
        storm=Storm(3, judged),
        deploys=[Deploys(name, 6.0, [2.0], gap, [], judged) for name in ("calm", "hup", "rolling")],
    )


def test_bars_are_met_by_a_run_without_a_fault_and_by_no_other() -> None:
    assert [verdict.met for verdict in report().verdicts()] == [True] * 8
    # Nothing was notified twice, because nothing was notified.
    assert [verdict.met for verdict in report(0.5, lost=True).verdicts()] == [False] * 7 + [True]


def test_a_case_that_was_not_run_is_not_met() -> None:
    empty = Report(ABOUT, 3, 4)
    assert [verdict.met for verdict in empty.verdicts()] == [None] * 8
    assert "not measured" in empty.text()


def test_it_is_told_as_text_and_as_json() -> None:
    found = report(0.5, lost=True)
    text = found.text()
    assert "crt-1: lost" in text
    assert "100 ms inside 440 Hz, 0.50 s behind a deploy" in text
    assert "GUILTY crt-1: answered and never accepted" in text
    document = json.loads(found.json())
    assert document["speaking"]["kills"][0]["answered"] == 0.5
    assert document["verdicts"][0]["met"] is False
    assert json.loads(report().json())["storm"]["account"]["faults"][0]["calls"] == ["crt-1"]
