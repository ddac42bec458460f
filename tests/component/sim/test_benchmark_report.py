"""The benchmark's report: ratios round by round, bars, faults; and what it says of what could not be run."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from benchmarks.esl import told as esl
from benchmarks.outcome import Case, Outcome, Status, Told, cell, ratios
from benchmarks.report import About, document, faults, markdown
from benchmarks.switch import told as switch
from eslbot.sim.loadtest.machine import Machine
from tests.support.benchmark import ABOUT, DATA, NO_LOSS, run


def told(case: str, data: dict[str, Any] | None = None) -> Told:
    name = case.replace("-", "_")
    room = switch if case in ("set-up", "media") else esl
    found = getattr(room, f"tell_{name}")(DATA[case] if data is None else data)
    assert isinstance(found, Told)
    return found


def report(outcomes: list[Outcome], about: About = ABOUT) -> str:
    parts = {o.case: told(o.case, o.data) for o in outcomes if o.status is Status.MEASURED}
    cases = {
        name: Case(name, f"Title of {name}", dict, lambda _: Told(), lambda _, __: None) for name in DATA
    }
    return markdown(about, cases, outcomes, parts)


# -- figures ----------------------------------------------------------------------------------------------


def test_several_rounds_are_a_median_with_the_least_and_the_most() -> None:
    assert cell([3.0, 1.0, 2.0]) == "2.0 (1.0–3.0)"
    assert cell([1234.5], 0) == "1,234"
    assert cell([float("nan"), 2.0]) == "2.0"
    assert cell([]) == "–"


def test_ratios_are_of_one_round_each_and_none_of_a_round_without_calls() -> None:
    assert ratios([10.0, 30.0, 5.0], [5.0, 10.0, 0.0]) == [2.0, 3.0]
    assert ratios([10.0], [5.0, 5.0]) == [2.0]


def test_percentiles_are_of_all_rounds_calls_together() -> None:
    results = [{"answer_ms_all": [1.0, 2.0]}, {"answer_ms_all": [9.0]}, {}]
    assert esl.pooled(results, "answer_ms", 100) == 9.0
    assert esl.pooled(results, "answer_ms", 50) == 2.0


def test_shares_of_the_workers() -> None:
    assert esl.percent_shares([1.0, 3.0]) == [75.0, 25.0]
    assert esl.percent_shares([0.0, 0.0]) == [0.0, 0.0]


# -- cases ------------------------------------------------------------------------------------------------


def test_throughput_beside_others() -> None:
    found = told("throughput")
    assert [(v.measure, v.measured, v.met) for v in found.verdicts] == [
        ("calls/s beside bare gevent", "0.10 (0.10–0.10)×", False),
        ("calls/s beside greenswitch", "6.50 (6.00–7.00)×", True),
    ]
    assert "| eslbot / greenswitch" in found.text
    assert found.faults == []


def test_the_event_socket_alone_is_told_beside_the_others() -> None:
    data = copy.deepcopy(DATA["throughput"])
    data["rounds"]["eslbot.esl alone"] = [
        {**each, "calls_per_second": 400.0} for each in data["rounds"]["greenswitch"]
    ]
    found = told("throughput", data)
    assert "| eslbot / eslbot.esl alone" in found.text
    (row,) = [line for line in found.text.splitlines() if line.startswith("| eslbot.esl alone / greenswitch")]
    assert "4.00" in row
    assert "eslbot.esl alone / eslbot " not in found.text
    assert len(found.verdicts) == 2  # the bars are the whole path's


def test_a_lost_call_is_a_fault_if_it_was_eslbots() -> None:
    data = copy.deepcopy(DATA["throughput"])
    data["rounds"]["greenswitch"][0]["lost"]["silent"] = 5
    assert told("throughput", data).faults == []
    data["rounds"]["eslbot"][1]["lost"]["reset"] = 2
    assert any("'reset': 2" in fault for fault in told("throughput", data).faults)


@pytest.mark.parametrize("case", ["throughput", "paced", "burst", "hold"])
def test_who_could_not_be_measured_is_told_and_a_fault_if_it_was_eslbot(case: str) -> None:
    data = copy.deepcopy(DATA[case])
    data["failures"] = [["greenswitch", "round 1: it did not end"]]
    found = told(case, data)
    assert "greenswitch could not be measured, round 1: it did not end" in found.text
    assert found.faults == []
    data["failures"] = [["eslbot", "round 1: it did not start"]]
    assert told(case, data).faults == ["eslbot, round 1: it did not start"]


def test_latency_beside_bare_gevent() -> None:
    (verdict,) = told("paced").verdicts
    assert verdict.measured == "p50 1.50× (1.5 of 1.0 ms), p99 2.50× (5.0 of 2.0 ms)"
    assert verdict.met is False


def test_a_burst_in_which_a_call_is_lost_misses_the_bar() -> None:
    assert [v.met for v in told("burst").verdicts] == [True]
    data = copy.deepcopy(DATA["burst"])
    data["rounds"]["eslbot"][0]["lost"]["refused"] = 1
    found = told("burst", data)
    assert ([v.met for v in found.verdicts], len(found.faults)) == ([False], 1)


def test_held_calls() -> None:
    found = told("hold")
    assert [(v.measured, v.met) for v in found.verdicts] == [("31.0", False), ("0.20 %", True)]
    assert "5,000 calls" in found.text
    data = copy.deepcopy(DATA["hold"])
    data["counts"]["5000"]["eslbot"]["held"] = 4999
    assert told("hold", data).faults == ["eslbot held 4999 calls of 5000"]


def test_two_workers_are_judged_only_where_each_has_a_core() -> None:
    (verdict,) = told("workers").verdicts
    assert (verdict.met, verdict.measured.split(";")[0]) == (None, "1.75×")
    assert "2 cores" in verdict.measured
    (verdict,) = told("workers", {**DATA["workers"], "cores": 4, "apart": True}).verdicts
    assert verdict.met is False
    assert "60 % : 40 %" in told("workers").text
    assert "264 : 136" in told("workers").text


def test_the_hand_off_is_judged_by_plain_http_alone() -> None:
    (verdict,) = told("handoff").verdicts
    assert (verdict.measured, verdict.met) == ("4.0 ms of 4 (p50 2.0 ms)", True)


def test_what_eslbot_adds_to_the_set_up_is_the_difference_of_percentiles() -> None:
    (verdict,) = told("set-up").verdicts
    assert (verdict.measured, verdict.met) == ("27.0 ms (30.0 of 3.0); p50 18.0 ms", False)


def test_processor_time_beside_freeswitch_is_above_what_both_use_at_rest() -> None:
    listens, speaks, whole = told("media").verdicts
    assert listens.measured.startswith("0.0 %")
    assert listens.met is True
    assert speaks.measured.startswith("50.0 % (0.50% and 1.00%")
    assert speaks.met is False
    assert "40.0 % (40 of 100 ms a call)" in whole.measured
    assert switch.above_rest({"eslbot": 0.1}, {"eslbot": 0.2}, "eslbot") == 0.0


def test_a_storm_is_measured_while_all_wait() -> None:
    found = esl.storm_figures(DATA["storm"]["variants"]["503"])
    assert found["cpu_percent"] == pytest.approx(20.0)
    assert found["attempts_per_second"] == pytest.approx(40.0)
    assert (found["answer_p50"], found["answer_p99"]) == (1.0, 3.0)
    assert found["median_after"] == pytest.approx(0.5)
    assert found["all_after"] == pytest.approx(0.9)
    assert [v.met for v in told("storm").verdicts] == [True]


@pytest.mark.parametrize(
    "change, fault",
    [
        ({"accepted": {"once": 19, "again": 1, "never": 0}}, "1 more often"),
        ({"accepted": {"once": 19, "again": 0, "never": 1}, "all_taken_after": -1}, "1 never"),
        ({"fresh_answered": 2}, "1 of 3 new calls unanswered"),
        ({"lost": {**NO_LOSS, "closed": 1}}, "calls lost"),
    ],
)
def test_a_storm_that_breaks_a_promise_is_a_fault(change: dict[str, Any], fault: str) -> None:
    data = copy.deepcopy(DATA["storm"])
    data["variants"]["503"].update(change)
    found = told("storm", data)
    assert [v.met for v in found.verdicts] == [False]
    assert any(fault in text for text in found.faults)


# -- the report -------------------------------------------------------------------------------------------


def test_the_report_begins_with_the_bars_and_shows_every_case() -> None:
    text = report([Outcome(name, Status.MEASURED, data) for name, data in DATA.items()])
    head, _, rest = text.partition("## Title of throughput")
    assert "| calls/s beside greenswitch" in head
    assert "**missed**" in head
    assert "AMD Example" in head
    assert "greenswitch 0.0.19" in head
    for name in DATA:
        assert f"![Title of {name}]({name}.svg)" in rest
    assert "Faults" not in text
    assert "Cannot run here" not in text


def test_what_cannot_run_is_no_fault_and_what_failed_is_one() -> None:
    outcomes = [
        Outcome("media", Status.CANNOT_RUN, reason="no FreeSWITCH"),
        Outcome("storm", Status.FAILED, reason="RuntimeError: it\nbroke"),
        Outcome("burst", Status.MEASURED, DATA["burst"]),
    ]
    text = report(outcomes)
    assert "* `media`: no FreeSWITCH" in text
    assert "* storm: RuntimeError: it / broke" in text
    assert "media.svg" not in text
    assert faults(outcomes[:1], {}) == []
    assert faults(outcomes, {}) == ["storm: RuntimeError: it\nbroke"]
    assert faults(outcomes[2:], {"burst": Told(faults=["1 lost"])}) == ["burst: 1 lost"]


def test_a_busy_machine_and_a_subject_that_is_missing_are_told() -> None:
    machine = Machine(2, "AMD Example", "Linux 6", "3.11", 2.5)
    about = About("today", "scripts/benchmark", machine, {}, 1.0, {"Genesis": "not installed here"})
    text = report([], about)
    assert "not quiet" in text
    assert "* Genesis: not installed here" in text
    assert "not quiet" not in report([])


def test_all_raw_figures_are_kept() -> None:
    found = json.loads(json.dumps(document(ABOUT, [Outcome("burst", Status.MEASURED, DATA["burst"])])))
    assert found["cases"]["burst"]["data"] == DATA["burst"]
    assert found["about"]["machine"]["cores"] == 2


def test_a_series_nobody_got_to_is_a_dash() -> None:
    data = {"rate": 20.0, "failures": [], "rounds": {"eslbot": [run()], "bare gevent": [run()]}}
    assert "–" in told("paced", data).text
