"""The keeper as the arbiter sees it: a process that is started, looked after, and ended.

The arbiter uses this module, so it imports nothing that opens sockets.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from eslbot.config.model import Ledger

log = structlog.get_logger()

#: Seconds between two starts of a keeper that dies.
AGAIN = 5.0
#: Seconds it has to end.
END = 5.0
LOOK = 0.02


class KeeperProcess:
    """``eslbot ledger keep`` for one service. Nothing in here raises: no call depends on it.

    ``lifeline`` is the reading end of a pipe that ends with the arbiter. ``buried`` is called with the
    number of a process that has ended.
    """

    def __init__(self, path: Path, lifeline: int, *, json_logs: bool, buried: Callable[[int], None]) -> None:
        self._command = [sys.executable, "-m", "eslbot", "ledger", "keep", "--config", str(path)]
        self._command += ["--log", "json" if json_logs else "console"]
        self._lifeline = lifeline
        self._buried = buried
        self._process: subprocess.Popen[bytes] | None = None
        #: What the running one was started for.
        self._ledger: Ledger | None = None
        self._ended_by_us = False
        self._not_before = 0.0

    @property
    def pid(self) -> int | None:
        """The process's number, while there is one."""
        return self._process.pid if self._process is not None else None

    def tend(self, ledger: Ledger | None) -> None:
        """Have one running for ``ledger``; none where that is None. Called again and again."""
        if self._process is not None and self._has_ended(self._process):
            self._buried(self._process.pid)
            if not self._ended_by_us:
                log.error(
                    "keeper_died", pid=self._process.pid, remedy="it is started again; see its lines above"
                )
                self._not_before = time.monotonic() + AGAIN
            self._process = None
        if self._process is not None:
            if ledger != self._ledger and not self._ended_by_us:
                self._tell_to_end(self._process)
            return
        if ledger is not None and time.monotonic() >= self._not_before:
            self._start(ledger)

    def _start(self, ledger: Ledger) -> None:
        self._ledger, self._ended_by_us = ledger, False
        try:
            self._process = subprocess.Popen(self._command, stdin=self._lifeline)
        except OSError as error:  # no memory, no descriptor, no process free
            self._not_before = time.monotonic() + AGAIN
            log.error("keeper_not_started", error=str(error), remedy="it is tried again")

    def _tell_to_end(self, process: subprocess.Popen[bytes]) -> None:
        self._ended_by_us = True
        process.terminate()

    @staticmethod
    def _has_ended(process: subprocess.Popen[bytes]) -> bool:
        # gunicorn waits for every child and may have had its status: then Popen says 0.
        return process.poll() is not None

    def end(self) -> None:
        """End it, behind the workers: it reads their last facts."""
        process = self._process
        if process is None:
            return
        if not self._has_ended(process):
            self._tell_to_end(process)
            deadline = time.monotonic() + END
            while not self._has_ended(process) and time.monotonic() < deadline:
                time.sleep(LOOK)
            if not self._has_ended(process):
                log.error("keeper_killed", pid=process.pid, seconds=END, remedy="the next one goes on")
                process.kill()
                process.wait()
        self._buried(process.pid)
        self._process = None
