"""What is ``timed`` and fails beside others is measured again, alone; nothing else is run twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support import again

pytest_plugins = ["pytester"]
pytestmark = pytest.mark.slow

CONFTEST = """
from tests.support import again

def pytest_configure(config):
    again.LIMIT = {limit}
    again.Again.install(config)
"""
INI = """
[pytest]
markers =
    timed
    alone
"""
#: Each says in a file that it has run, and whether in a worker. ``busy`` fails beside others only.
TESTS = """
import os
from pathlib import Path
import pytest

BESIDE_OTHERS = "PYTEST_XDIST_WORKER" in os.environ

def runs(name):
    with Path(RUNS).open("a") as file:
        print(name, "beside" if BESIDE_OTHERS else "alone", file=file)

"""
BUSY = """
@pytest.mark.timed
def test_busy():
    runs("busy")
    late = 12 if BESIDE_OTHERS else 3
    assert late <= 5
"""
SLOW = """
@pytest.mark.timed
def test_slow():
    runs("slow")
    assert 12 <= 5, "late"
"""
WRONG = """
def test_wrong():
    runs("wrong")
    assert not BESIDE_OTHERS
"""
GOOD = """
@pytest.mark.timed
def test_good():
    runs("good")
"""
ALONE = """
@pytest.mark.alone
@pytest.mark.timed
def test_alone():
    runs("alone")
    assert not BESIDE_OTHERS
"""
BROKEN = """
@pytest.fixture
def laboratory():
    runs("broken")
    assert not BESIDE_OTHERS

@pytest.mark.timed
def test_broken(laboratory):
    pass
"""
SKIPPED = """
@pytest.mark.timed
def test_skipped():
    runs("skipped")
    if not BESIDE_OTHERS:
        pytest.skip("nothing was measured")
    assert 12 <= 5
"""

Run = Callable[..., tuple[pytest.RunResult, list[str]]]


@pytest.fixture
def run(pytester: pytest.Pytester, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs tests in a worker, or with options of its own; returns what was said, and what ran where."""
    monkeypatch.setenv("PYTHONPATH", str(request.config.rootpath))
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)

    def run(*tests: str, options: tuple[str, ...] = ("-n1",), limit: int = again.LIMIT) -> Any:
        runs = pytester.path / "runs"
        pytester.makeconftest(CONFTEST.format(limit=limit))
        pytester.makeini(INI)
        pytester.makepyfile(f"RUNS = {str(runs)!r}\n{TESTS}{''.join(tests)}")
        result = pytester.runpytest_subprocess("-p", "no:random_order", *options)
        return result, sorted(runs.read_text().splitlines())

    return run


def test_what_passes_alone_is_no_failure_and_is_told_loudly(run: Run) -> None:
    result, runs = run(BUSY, GOOD)
    assert result.ret == pytest.ExitCode.OK
    assert runs == ["busy alone", "busy beside", "good beside"]
    result.stdout.fnmatch_lines(
        [
            "*measuring again, alone: *::test_busy*",
            "*timed tests that failed beside others*",
            "PASSED alone: *::test_busy; beside others: *assert 12 <= 5",
            "*1 passed, 1 measured again*",
        ]
    )


def test_what_fails_alone_too_and_what_is_not_measured_again_fails_the_run(run: Run) -> None:
    """What is not timed is not, nor what was alone, nor what did not start. A skip measures nothing."""
    result, runs = run(BUSY, SLOW, SKIPPED, WRONG, ALONE, BROKEN)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    beside = [f"{name} beside" for name in ("alone", "broken", "busy", "skipped", "slow", "wrong")]
    assert runs == sorted([*beside, "busy alone", "skipped alone", "slow alone"])
    result.stdout.fnmatch_lines(
        [
            "PASSED alone: *::test_busy; *",
            "FAILED alone: *::test_slow (failed); beside others: *late",
            "FAILED alone: *::test_skipped (skipped); *",
        ]
    )
    result.stdout.fnmatch_lines(["*4 failed, 1 error, 1 measured again*"])


def test_at_most_so_many_are(run: Run) -> None:
    assert again.LIMIT == 8
    result, runs = run(BUSY, BUSY.replace("busy", "busier"), limit=1)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert [ran for ran in runs if ran.endswith(" alone")] == ["busy alone"]
    result.stdout.fnmatch_lines(
        ["FAILED, not measured again: *::test_busier", "*1 failed, 1 measured again*"]
    )


def test_a_run_that_was_broken_off_is_not_saved(run: Run) -> None:
    result, runs = run(BUSY, options=("-n1", "-x"))
    assert result.ret not in {pytest.ExitCode.OK, pytest.ExitCode.INTERNAL_ERROR}
    assert runs == ["busy beside"]


def test_without_workers_nothing_is_run_again(run: Run) -> None:
    result, runs = run(SLOW, options=())
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert runs == ["slow alone"]
