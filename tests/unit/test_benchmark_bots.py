"""What the benchmark of bots makes of a call, and of many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bots.call import Called, judge
from benchmarks.bots.report import Measured, Report
from benchmarks.bots.subjects import GOODBYE, GREETING, SAID, SUBJECTS, YES, Subject, command
from benchmarks.frame import About
from benchmarks.outcome import CannotRun
from eslbot.audio import g711
from eslbot.sim.audio import silence, tone
from eslbot.sim.loadtest.machine import Machine
from eslbot.sim.pbx import CallResult
from eslbot.sim.pbx.media import Arrival, Recording
from eslbot.sim.rtp import RtpPacket

NATIVE = next(subject for subject in SUBJECTS if subject.name == "pipecat-eslbot")
TWILIO = next(subject for subject in SUBJECTS if subject.name == "pipecat-twilio")
HEARD = {"agent_group": "support", "summary": "pressed 2, greeting heard", "outcome": "bot_ended"}
INTERRUPTED = {**HEARD, "summary": "pressed 2, greeting interrupted"}


def result(line: bytes, **changed: Any) -> CallResult:
    """A call that went by the book, in which the PBX heard ``line``."""
    recording = Recording()
    payload = g711.encode("PCMU", line)
    for number in range(len(payload) // 160):
        packet = RtpPacket(0, number, number * 160, 1, payload[number * 160 : number * 160 + 160])
        recording.add(Arrival(100 + number * 0.020, packet))
    fields: dict[str, Any] = dict.fromkeys(CallResult.__dataclass_fields__)
    fields |= {"answered": True, "ended_by": "pbx", "cause": "accepted", "recording": recording}
    return CallResult(**{**fields, **changed})


def judged(
    line: bytes,
    *properties: dict[str, Any],
    subject: Subject = NATIVE,
    speaks: bool = False,
    connections: int = 1,
    **changed: Any,
) -> Called:
    called = Called(connections=connections)
    accepted = [{"properties": told} for told in properties]
    judge(called, subject, result(line, **changed), accepted, "2", speaks=speaks)
    return called


def test_a_call_as_it_should_be() -> None:
    line = silence(0.2) + tone(GREETING, 3.0) + silence(0.3) + tone(GOODBYE, 0.4)
    called = judged(line, HEARD)
    assert called.handed_off and called.key and called.told and called.gaps == [] and called.faults == []


def test_an_interruption_as_it_should_be() -> None:
    line = tone(GREETING, 1.5) + tone(YES, 0.3) + silence(0.3) + tone(GOODBYE, 0.4)
    assert judged(line, INTERRUPTED, speaks=True).faults == []


def test_a_gap_is_measured() -> None:
    line = tone(GREETING, 1.0) + silence(0.06) + tone(GREETING, 2.0)
    (gap,) = judged(line, HEARD).gaps
    assert gap == pytest.approx(0.06, abs=0.005)


GREETED = tone(GREETING, 3.0)


@pytest.mark.parametrize(
    ("called", "said"),
    [
        (judged(GREETED, HEARD, HEARD), "not handed off"),
        (judged(GREETED), "not handed off"),
        (judged(GREETED, {**HEARD, "outcome": "bot_failed"}), "not handed off"),
        (judged(GREETED, HEARD, ended_by="switch"), "not handed off"),
        (judged(GREETED, {**HEARD, "summary": "pressed 1, greeting heard"}), "another key"),
        (judged(GREETED, INTERRUPTED), "other properties"),
        (judged(GREETED + tone(YES, 0.3), INTERRUPTED, speaks=True), "the greeting was heard"),
        (judged(tone(GREETING, 1.0), INTERRUPTED, speaks=True), "the answer for 0.00 s"),
        (judged(GREETED, HEARD, connections=2), "2 connections"),
        (judged(GREETED + tone(GOODBYE, 0.4), {"outcome": "bot_closed"}, subject=TWILIO), "another key"),
    ],
)
def test_what_is_not_as_it_should_be_is_said(called: Called, said: str) -> None:
    assert said in "\n".join(called.faults)


def test_a_bot_without_properties_tells_the_key_by_its_tone() -> None:
    line = GREETED + tone(SAID["2"], 0.4)
    called = judged(line, {"outcome": "bot_closed"}, subject=TWILIO)
    assert called.faults == [] and called.told is None


def report(*called: Called) -> Report:
    machine = Machine(2, "AMD Example", "Linux 6", "3.11", 0.1)
    measured = Measured("some-bot", "eslbot", list(called), kills=7)
    about = About("today", "python -m …", machine, {"eslbot": "0"}, left_out={"node": "no node"})
    return Report(about, 3, [measured])


def good(**changed: Any) -> Called:
    return Called(
        **{"handed_off": True, "key": True, "told": True, "presses": 1, "connections": 1, **changed}
    )


def test_the_bars_are_met() -> None:
    made = report(good(), good(barge_in=True, presses=2), good(gaps=[0.02]))
    assert [verdict.met for verdict in made.measured[0].verdicts()] == [True, True]
    text = made.text()
    assert "3 of 3 (1 pressed again)" in text and "cannot run here: node: no node" in text
    assert json.loads(made.json())["measured"][0]["kills"] == 7


@pytest.mark.parametrize(
    ("bad", "met"),
    [
        (good(handed_off=False), [False, True]),
        (good(key=False), [False, True]),
        (good(told=False), [False, True]),
        (good(barge_in=False), [False, True]),
        (good(gaps=[0.04]), [False, True]),
        (good(connections=2), [True, False]),
    ],
)
def test_each_bar_is_missed_by_name(bad: Called, met: list[bool]) -> None:
    assert [verdict.met for verdict in report(good(), bad).measured[0].verdicts()] == met


def test_nothing_measured_meets_no_bar() -> None:
    assert [verdict.met for verdict in report().measured[0].verdicts()] == [False, False]


def test_faults_are_shown_and_not_all() -> None:
    text = report(*[good(faults=["no"])] * 9).text()
    assert text.count("* some-bot: no") == 5 and "* and 4 more" in text


def test_a_bot_that_is_not_there_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESLBOT_PIPECAT", raising=False)
    with pytest.raises(CannotRun, match="prepare-outside"):
        command(NATIVE)
    with pytest.raises(CannotRun, match=r"there is no tests/e2e/outside/none\.py"):
        command(Subject("none", "eslbot", "python", NATIVE.script.with_name("none.py")))
