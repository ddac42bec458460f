"""``eslbot relay`` in a process of its own, as on a FreeSWITCH host whose controllers are elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eslbot.sim.processes import children
from eslbot.sim.service import STOP_LIMIT, Log, send, wait_gone


class RelayAlone:
    """One ``eslbot relay``: a parent and its relays. Whoever starts it waits until it listens.

    Args:
        config: a configuration file whose ``relay.processes`` is 0; ``processes`` are started.
        environment: of the process, on top of our own.
    """

    def __init__(self, config: Path, log_file: Path, processes: int, environment: Mapping[str, str]) -> None:
        self.config, self.log_file = config, log_file
        self._processes, self._environment = processes, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._log = Log(log_file)

    def start(self) -> None:
        """Run it."""
        environment = {**os.environ, **self._environment, "TMPDIR": str(self.config.parent)}
        environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        command = [sys.executable, "-m", "eslbot", "relay", "--config", str(self.config), "--log", "json"]
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--processes", str(self._processes)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
            )

    def stop(self) -> None:
        """End it at once, whatever calls it has."""
        if self._process is None:
            return
        pids = [self._process.pid, *self.relay_pids()]
        self._process.send_signal(signal.SIGQUIT)
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            for pid in pids:
                send(pid, signal.SIGKILL)
            self._process.wait(STOP_LIMIT)
        wait_gone(pids, STOP_LIMIT)
        self._process = None

    def relay_pids(self) -> list[int]:
        """The relays, without their parent."""
        return children(self._process.pid) if self._process is not None else []

    def log_lines(self) -> list[dict[str, Any]]:
        """What it has logged so far."""
        return self._log.lines()
