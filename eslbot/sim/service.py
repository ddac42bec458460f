"""``eslbot serve`` as its users run it, in a process of its own, and whatever can befall it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from eslbot.sim.processes import children, descendants, is_alive, relays, serves, tells

#: Seconds to come up; to go down.
START_LIMIT, STOP_LIMIT = 20.0, 15.0
#: Seconds between two looks at a process: there is no event to wait for.
_LOOK = 0.01


class LabError(Exception):
    """A part of a laboratory did not do what it was told; the text holds the end of its log."""


class EslbotService:
    """One ``eslbot serve``; :attr:`process` is its arbiter, None while it is not to run.

    Args:
        config: its configuration file, written by whoever made this.
        listen, health, web: the addresses in it.
        workers: the number in it.
        environment: of the process, on top of our own.
        within: a command that runs the one behind it, in the same process (``exec``).
    """

    def __init__(
        self,
        config: Path,
        log_file: Path,
        listen: tuple[str, int],
        health: tuple[str, int],
        web: tuple[str, int],
        workers: int,
        environment: Mapping[str, str],
        within: Sequence[str] = (),
    ) -> None:
        self.config, self.log_file = config, log_file
        self.listen, self.health, self.web, self.workers = listen, health, web, workers
        self.process: subprocess.Popen[bytes] | None = None
        self._environment = environment
        self._within = within
        self._log = Log(log_file)

    # -- life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Run it and wait until it serves; the switch may not be there yet. Raises :class:`LabError`."""
        environment = {**os.environ, **self._environment}
        # A service's own directory of figures is not another's, and one that is killed leaves it behind.
        environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        environment["TMPDIR"] = str(self.config.parent)
        serve = [sys.executable, "-m", "eslbot", "serve", "--config", str(self.config), "--log", "json"]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._within, *serve],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )
        deadline = time.monotonic() + START_LIMIT
        # First what it answers: reading the kernel's list of sockets takes CPU that it needs itself now.
        while not (self._is_ready() and self.serving()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"eslbot serve did not come up:\n{self.log_end()}")
            time.sleep(_LOOK)

    def stop(self) -> None:
        """TERM, and KILL of all where that does not help in time."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self.kill()
        self.process = None

    def kill(self) -> list[int]:
        """KILL of the arbiter, all workers and relays at once, as when the power goes. Returns their ids."""
        if self.process is None:
            return []
        pids = [self.process.pid, *descendants(self.process.pid)]
        for pid in pids:
            send(pid, signal.SIGKILL)
        self.process.wait(STOP_LIMIT)
        wait_gone(pids, STOP_LIMIT)
        self.process = None
        return pids

    # -- its workers --------------------------------------------------------------------------------------

    def worker_pids(self) -> list[int]:
        """The workers that exist now, in the order of their start; some may not serve yet."""
        return [pid for pid in self.children() if not tells(pid) and not relays(pid)]

    def children(self) -> list[int]:
        """What the arbiter has started and is still there: workers, the page process, the relays' parent."""
        return [] if self.process is None else children(self.process.pid)

    def serving(self) -> list[int]:
        """The workers that wait for connections of the switch now."""
        return [pid for pid in self.worker_pids() if serves(pid, self.listen)]

    # -- what it says -------------------------------------------------------------------------------------

    def http(self, path: str) -> tuple[int, str]:
        """Status and body of a page of the page process's. Raises OSError where it does not answer."""
        return _get(self.web, path)

    def probe(self, path: str) -> tuple[int, str]:
        """The same of a worker's health port: whichever takes the connection. Raises OSError."""
        return _get(self.health, path)

    def log_lines(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        return self._log.lines()

    def _is_ready(self) -> bool:
        try:
            return self.probe("/healthz")[0] == 200 and self.http("/healthz")[0] == 200
        except OSError:
            return False

    def log_end(self) -> str:
        """The last of its log."""
        return self.log_file.read_text(errors="replace")[-3000:]


def _get(address: tuple[str, int], path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def send(pid: int, number: signal.Signals) -> bool:
    """Send a signal; whether there was somebody to take it."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def wait_gone(pids: list[int], timeout: float) -> bool:
    """Wait until none of the processes runs any more; whether that was so within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK)
    return True


def wait_listening(address: tuple[str, int], timeout: float) -> None:
    """Wait until somebody accepts connections there. Raises :class:`LabError`."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection(address, timeout=1.0).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise LabError(f"nobody listens at {address[0]}:{address[1]}: {error}") from error
            time.sleep(_LOOK)
        else:
            return


class Log:
    """The JSON lines that were written to a file so far; one that was cut off by a kill is left out.

    Tests ask again and again until a line is there, so each line is read once: a whole lab's log is long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def lines(self) -> list[dict[str, Any]]:
        """All of them, in the order of the file; a line counts once it has its end."""
        with self._lock:
            if self._path.exists():
                with self._path.open("rb") as file:
                    file.seek(self._read)
                    whole, end, _ = file.read().rpartition(b"\n")
                self._read += len(whole) + len(end)
                for line in whole.split(b"\n"):
                    if line.startswith(b"{"):
                        with suppress(ValueError):
                            self._lines.append(json.loads(line.decode(errors="replace")))
            return list(self._lines)
