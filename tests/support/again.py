"""A test marked ``timed`` that failed beside others is measured again: once, alone, behind all of them.

It judges durations, and on a busy machine these say little. The run's own processes are over by then, and
each test has a new one for itself. What fails there, too, has failed; so has, at once, what is not ``timed``.
A test that is ``alone`` has been measured alone already.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from _pytest.terminal import TerminalReporter

#: So many tests are measured again at most: where more fail, something else is wrong.
LIMIT = 8
#: Seconds for one of them, with its start and its laboratory.
BOUND = 400.0
#: What those are called in the run's last line that have passed then.
CATEGORY = "measured again"
#: What the new process runs: it notes the test's outcome. The exit code says too little: of a skip it is 0.
_RUN = """
import pathlib, sys, pytest

class Outcome:
    def pytest_runtest_logreport(self, report):
        if report.when == "call" or report.outcome != "passed":
            with pathlib.Path(sys.argv[1]).open("a") as file:
                print(report.outcome, file=file)

sys.exit(pytest.main(sys.argv[2:], plugins=[Outcome()]))
"""


@dataclass(frozen=True)
class Measured:
    """A failure beside others, and what came of the same test alone: ``passed``, or why not."""

    report: pytest.TestReport
    alone: str


class Again:
    """The plugin of the process that has the workers (pytest-xdist); :meth:`install` knows which that is."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._failed: list[pytest.TestReport] = []
        self._measured: list[Measured] = []

    @classmethod
    def install(cls, config: pytest.Config) -> None:
        """From a conftest's ``pytest_configure``."""
        if config.getoption("dist", "no") != "no":  # of a worker, and of a run that has none, it is "no"
            config.pluginmanager.register(cls(config))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what is to be measured again: a laboratory that did not start, or end, is none of it."""
        marks = report.keywords
        if report.failed and report.when == "call" and "timed" in marks and "alone" not in marks:
            self._failed.append(report)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Measure when the workers are gone, and before the summary is written."""
        yield
        # Only a run that has come to its end can turn out well: not one that was interrupted, or broke down.
        if session.exitstatus != pytest.ExitCode.TESTS_FAILED:
            return
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        assert isinstance(reporter, TerminalReporter)
        for report in self._failed[:LIMIT]:
            reporter.ensure_newline()
            reporter.write_sep("=", f"measuring again, alone: {report.nodeid}", bold=True)
            measured = Measured(report, self._alone(report.nodeid))
            self._measured.append(measured)
            if measured.alone == "passed":
                reporter.stats["failed"].remove(report)
                reporter.stats.setdefault(CATEGORY, []).append(report)
                session.testsfailed -= 1
        if session.testsfailed == 0:
            session.exitstatus = pytest.ExitCode.OK

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        """Which they were, what they had failed with, and what came out."""
        if not self._failed:
            return
        terminalreporter.write_sep("=", "timed tests that failed beside others", yellow=True, bold=True)
        for measured in self._measured:
            good = measured.alone == "passed"
            terminalreporter.write_line(
                f"{'PASSED' if good else 'FAILED'} alone: {measured.report.nodeid}"
                f"{'' if good else f' ({measured.alone})'}; beside others: {_reason(measured.report)}",
                green=good,
                red=not good,
            )
        for report in self._failed[len(self._measured) :]:
            terminalreporter.write_line(f"FAILED, not measured again: {report.nodeid}", red=True)

    def _alone(self, test: str) -> str:
        """Run one test in a process of its own; ``passed``, or why it has not."""
        with TemporaryDirectory(prefix="eslbot-again-") as folder:
            outcomes = Path(folder) / "outcomes"
            command = [sys.executable, "-c", _RUN, str(outcomes), "-n0", "-p", "no:cacheprovider"]
            command += ["--rootdir", str(self._config.rootpath), test]
            sys.stdout.flush()
            try:
                subprocess.run(command, cwd=self._config.rootpath, timeout=BOUND)
            except subprocess.TimeoutExpired:
                return f"not over within {BOUND:g} s"
            found = outcomes.read_text().split() if outcomes.exists() else ["did not run"]
        return next((outcome for outcome in found if outcome != "passed"), "passed")


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr).partition("\n")[0][:200]
