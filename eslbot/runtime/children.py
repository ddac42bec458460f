"""Child processes of the arbiter beside its workers: the page process and the relays.

The arbiter uses this module, so it imports nothing that opens sockets.
"""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

log = structlog.get_logger()

#: Seconds between two starts of one that dies.
AGAIN = 5.0
POLL_INTERVAL = 0.02


@dataclass(frozen=True, slots=True)
class Kind:
    """What the arbiter has to know of a process beside its workers.

    ``command`` is of ``eslbot``'s. ``change``: the signal that takes it to another configuration; after
    SIGTERM it is started again. ``end``: seconds it has to end. ``stays``: it may have work left then, and is
    left alone with it; others are killed.
    """

    name: str
    command: tuple[str, ...]
    change: signal.Signals = signal.SIGTERM
    end: float = 5.0
    stays: bool = False


PAGE = Kind("page", ("page",))
RELAY = Kind("relay", ("relay",), change=signal.SIGHUP, end=1.0, stays=True)


class ChildProcess:
    """One process of a ``kind``. Nothing in here raises: no worker depends on it.

    ``lifeline`` is the reading end of a pipe that ends with the arbiter.
    """

    def __init__(self, kind: Kind, options: Sequence[str], lifeline: int) -> None:
        self.kind = kind
        self._command = [sys.executable, "-m", "eslbot", *kind.command, *options]
        self._lifeline = lifeline
        self._process: subprocess.Popen[bytes] | None = None
        #: Those that were told to end, and stay.
        self._staying: list[subprocess.Popen[bytes]] = []
        #: What the running one was started for, or told of since.
        self._purpose: object = None
        self._ended_by_us = False
        self._started = self._not_before = 0.0

    @property
    def pid(self) -> int | None:
        """The process's number, while there is one."""
        return self._process.pid if self._process is not None else None

    def tend(self, purpose: object) -> None:
        """Have one running for ``purpose``, part of a configuration; none where that is None.

        Called again and again.
        """
        self._staying = [process for process in self._staying if not _has_ended(process)]
        if self._process is not None and purpose is not None and self._ended_by_us and self.kind.stays:
            self._staying.append(self._process)
            self._process = None
        if self._process is not None and _has_ended(self._process):
            if not self._ended_by_us:
                log.error(
                    f"{self.kind.name}_died",
                    pid=self._process.pid,
                    remedy="see its log lines above; it is started again",
                )
                self._not_before = self._started + AGAIN
            self._process = None
        if self._process is None:
            if purpose is not None and time.monotonic() >= self._not_before:
                self._start(purpose)
        elif purpose != self._purpose and not self._ended_by_us:
            self._purpose = purpose
            self._tell(self._process, self.kind.change if purpose is not None else signal.SIGTERM)

    def _start(self, purpose: object) -> None:
        self._purpose, self._ended_by_us = purpose, False
        self._started = time.monotonic()
        try:
            self._process = subprocess.Popen(self._command, stdin=self._lifeline)
        except OSError as error:  # no memory, no descriptor, no process free
            self._not_before = self._started + AGAIN
            log.error(f"{self.kind.name}_not_started", error=str(error), remedy="it is tried again")

    def _tell(self, process: subprocess.Popen[bytes], signum: signal.Signals) -> None:
        self._ended_by_us = signum != signal.SIGHUP
        process.send_signal(signum)

    def end(self, *, graceful: bool = True) -> None:
        """End it, behind the workers, whose last facts are read then. One that stays ends with its calls."""
        for staying in self._staying:
            if not graceful and not _has_ended(staying):
                staying.send_signal(signal.SIGQUIT)
        process = self._process
        if process is None:
            return
        if not _has_ended(process):
            stays = graceful and self.kind.stays
            if not (stays and self._ended_by_us):  # told again it would end its calls
                self._tell(process, signal.SIGTERM if graceful or not self.kind.stays else signal.SIGQUIT)
            deadline = time.monotonic() + self.kind.end
            while not _has_ended(process) and time.monotonic() < deadline:
                time.sleep(POLL_INTERVAL)
            if not _has_ended(process) and stays:
                log.info(f"{self.kind.name}_stays", pid=process.pid, until="its calls are over")
                return
            if not _has_ended(process):
                log.error(
                    f"{self.kind.name}_killed",
                    pid=process.pid,
                    seconds=self.kind.end,
                    remedy="the next one goes on",
                )
                process.kill()
                process.wait()
        self._process = None


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    # gunicorn waits for every child and may have had its status: then Popen says 0.
    return process.poll() is not None


def lifeline() -> int | None:
    """Standard input, where it is a pipe: its end says that who has started this process is gone."""
    try:
        descriptor = sys.stdin.fileno() if sys.stdin is not None else -1
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):
        return None
