"""``python -m benchmarks``: pictures are written, and one case's trouble is not the others'."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("matplotlib", reason="no matplotlib here: it comes with `scripts/prepare benchmark`")

from benchmarks import __main__ as command
from benchmarks import plots
from benchmarks.esl import told as esl
from benchmarks.frame import Run
from benchmarks.outcome import CannotRun, Case, Data
from benchmarks.plan import QUICK
from tests.support.benchmark import ABOUT, DATA


@pytest.mark.parametrize("case", DATA)
def test_every_case_has_a_picture_that_is_the_same_each_time(case: str, tmp_path: Path) -> None:
    draw = getattr(plots, f"draw_{case.replace('-', '_')}")
    first, second = tmp_path / "first.svg", tmp_path / "second.svg"
    draw(DATA[case], first)
    draw(DATA[case], second)
    text = first.read_text()
    assert text.startswith("<?xml")
    assert text.count("<path") > 10
    assert text == second.read_text()


def test_every_case_of_the_command_can_be_told_and_drawn(tmp_path: Path) -> None:
    cases = command._cases(QUICK, Run(ABOUT, tmp_path, 0.0), None, ())
    assert tuple(cases) == command.CASES == tuple(DATA)
    for name, case in cases.items():
        assert case.tell(DATA[name]).text
        case.draw(DATA[name], tmp_path / f"{name}.svg")
        assert (tmp_path / f"{name}.svg").stat().st_size > 1000


def cannot() -> Data:
    raise CannotRun("no FreeSWITCH here")


def breaks() -> Data:
    raise RuntimeError("it broke")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    def run(*options: str, **measures: Callable[[], Data]) -> Result:
        def cases(*_: object) -> dict[str, Case]:
            return {
                name: Case(name, name, measures.get(name, cannot), esl.tell_burst, plots.draw_burst)
                for name in command.CASES
            }

        monkeypatch.setattr(command, "_cases", cases)
        # The command's process is its own; this one is pytest's.
        monkeypatch.setattr(signal, "signal", lambda *_: None)
        monkeypatch.setattr(sys, "setswitchinterval", lambda _: None)
        return CliRunner().invoke(command.main, ["--out", str(tmp_path / "out"), *options])

    return run


def test_a_case_that_cannot_run_fails_nothing(run: Callable[..., Result], tmp_path: Path) -> None:
    done = run(burst=lambda: DATA["burst"])
    assert done.exit_code == 0, done.output
    report = (tmp_path / "out" / "report.md").read_text()
    assert "`media`: no FreeSWITCH here" in report
    assert "400 calls in one moment" in report
    assert (tmp_path / "out" / "burst.svg").stat().st_size > 1000
    raw = json.loads((tmp_path / "out" / "raw.json").read_text())
    assert raw["cases"]["burst"]["data"] == DATA["burst"]
    assert raw["cases"]["media"]["status"] == "cannot run here"


def test_a_case_that_breaks_is_told_and_the_others_are_measured(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    done = run("--case", "media", "--case", "burst", media=breaks, burst=lambda: DATA["burst"])
    assert done.exit_code == 1
    report = (tmp_path / "out" / "report.md").read_text()
    assert "media: RuntimeError: it broke" in report
    assert "400 calls in one moment" in report


def test_a_call_that_eslbot_lost_ends_in_exit_code_1(run: Callable[..., Result]) -> None:
    own = {
        **DATA["burst"]["rounds"]["eslbot"][0],
        "lost": {"refused": 0, "reset": 1, "closed": 0, "silent": 0},
    }
    done = run("--case", "burst", burst=lambda: {**DATA["burst"], "rounds": {"eslbot": [own]}})
    assert done.exit_code == 1
    assert "**Faults:**" in done.output
