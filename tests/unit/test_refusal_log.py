"""Which refusals are told one by one."""

from __future__ import annotations

import gevent
import pytest
import structlog

from eslbot.server import refusal_log as refusals_module
from eslbot.server.refusal_log import ALOUD, MAX_SOURCES, RefusalLog
from tests.support.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(refusals_module, "time", clock)
    return clock


def told(refusals: RefusalLog, source: str, times: int, why: str = "foreign_source") -> int:
    return sum(refusals.reports(source, why) for _ in range(times))


def test_the_first_ones_are_told_and_then_one_a_second(clock: Clock) -> None:
    refusals = RefusalLog()
    assert told(refusals, "203.0.113.10", 400) == ALOUD
    for _ in range(5):
        clock.now += 1
        assert told(refusals, "203.0.113.10", 400) == 1


def test_one_sources_flood_silences_nobody_else(clock: Clock) -> None:
    refusals = RefusalLog()
    told(refusals, "203.0.113.10", 400)
    assert told(refusals, "203.0.113.20", 3) == 3


def test_the_others_are_summed_up_by_source_and_reason(clock: Clock) -> None:
    refusals = RefusalLog()
    told(refusals, "203.0.113.10", 30)
    told(refusals, "203.0.113.10", 5, "source_rate")
    told(refusals, "203.0.113.20", 3)
    with structlog.testing.capture_logs() as lines:
        refusals.sum_up()
        refusals.sum_up()
    (line,) = lines
    assert (line["event"], line["source"], line["calls"]) == ("more_calls_refused", "203.0.113.10", 15)
    assert line["why"] == {"foreign_source": 10, "source_rate": 5}


def test_who_makes_up_sources_gets_no_memory(clock: Clock) -> None:
    refusals = RefusalLog()
    for number in range(10 * MAX_SOURCES):
        refusals.reports(f"2001:db8::{number:x}", "foreign_source")
    assert len(refusals._sources) == MAX_SOURCES + 1
    clock.now += ALOUD + 1
    refusals.sum_up()
    refusals.sum_up()
    assert refusals._sources == {}


def test_sums_come_by_themselves_and_end_when_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals_module, "SUM", 0.01)
    monkeypatch.setattr(refusals_module, "EACH", 0.001)
    refusals = RefusalLog()
    with structlog.testing.capture_logs() as lines:
        told(refusals, "203.0.113.99", 400)
        with gevent.Timeout(5):
            while refusals._summing:
                gevent.sleep(0.002)
    # Those of other tests sum up when their time has come, which may be now.
    assert [line["event"] for line in lines if line["source"] == "203.0.113.99"] == ["more_calls_refused"]
    assert refusals.reports("203.0.113.99", "foreign_source")
    assert refusals._summing
