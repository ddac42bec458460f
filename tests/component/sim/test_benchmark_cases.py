"""The benchmark's cases say what they miss here; what they change in the dialplan is valid."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import cast
from xml.etree import ElementTree

import pytest

from benchmarks.esl.cases import EventSocketCases, _delays
from benchmarks.esl.subjects import subjects
from benchmarks.outcome import CannotRun, Data
from benchmarks.plan import QUICK
from benchmarks.switch.cases import ONLY_ANSWER, SwitchCases, with_only_answer
from eslbot.config import load
from eslbot.sim import freeswitch
from eslbot.sim.addresses import free_port
from eslbot.sim.pbx.notification import Notification


@pytest.fixture
def socket_cases(tmp_path: Path) -> EventSocketCases:
    return EventSocketCases(QUICK, tmp_path, None, (), lambda _: None)


@pytest.mark.parametrize(
    "case", [getattr(EventSocketCases, n) for n in ("throughput", "burst", "hold", "workers", "storm")]
)
def test_one_core_is_not_enough_for_the_generator(
    case: Callable[[EventSocketCases], Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    with pytest.raises(CannotRun, match="one core"):
        case(EventSocketCases(QUICK, tmp_path, None, (), lambda _: None))


def test_without_a_compiler_it_is_told_what_to_install(
    socket_cases: EventSocketCases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(CannotRun, match=r"no cc \(Debian: gcc"):
        socket_cases.paced()


@pytest.mark.parametrize("case", [SwitchCases.set_up, SwitchCases.media])
def test_without_freeswitch_its_cases_cannot_run(
    case: Callable[[SwitchCases], Data], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeswitch, "find", lambda: None)
    with pytest.raises(CannotRun, match="no FreeSWITCH"):
        case(SwitchCases(QUICK, tmp_path, lambda _: None))


def test_the_dialplan_that_only_answers_stands_before_ours() -> None:
    dialplan = (files("eslbot.freeswitch_conf") / "dialplan" / "ameyo.xml").read_text()
    first = ElementTree.fromstring(with_only_answer(dialplan)).find("context/extension")
    assert first is not None
    assert first.get("name") == ONLY_ANSWER
    assert [action.get("application") for action in first.iter("action")] == ["answer", "park"]
    with pytest.raises(RuntimeError, match="arrival"):
        with_only_answer("<include/>")


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler here")
def test_eslbot_is_measured_with_a_configuration_that_it_takes(tmp_path: Path) -> None:
    found = subjects(tmp_path, free_port(), free_port(), free_port(), None)
    assert [subject.name for subject in found] == [
        *("eslbot", "eslbot.esl alone", "bare gevent", "greenswitch", "C")
    ]
    assert load(tmp_path / "eslbot-1.toml").server.workers == 1


@dataclass
class Came:
    crt_object_id: str
    at: float
    accepted: bool = True


def delays(ends: dict[str, float], *came: Came) -> list[float]:
    return _delays(ends, cast(list[Notification], list(came)))


def test_a_notification_belongs_to_the_end_before_it() -> None:
    warm_up = Came("a", 9.0)
    found = delays({"a": 10.0, "b": 10.0}, warm_up, Came("b", 10.5), Came("a", 10.25), Came("c", 11.0))
    assert found == pytest.approx([250.0, 500.0])


@pytest.mark.parametrize("came", [[], [Came("a", 10.1), Came("a", 10.2)], [Came("a", 10.1, accepted=False)]])
def test_a_call_that_was_not_accepted_exactly_once_is_no_figure(came: list[Came]) -> None:
    with pytest.raises(RuntimeError, match="exactly once"):
        delays({"a": 10.0}, *came)
