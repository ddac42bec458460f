"""``eslbot sim switch`` in a process of its own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from eslbot.sim.processes import end_process
from eslbot.sim.service import START_LIMIT, STOP_LIMIT, LabError


class StandInSwitch:
    """The stand-in switch as a process; its events are counted here. Use it in a ``with`` statement.

    Args:
        options: of the command.
        log: where its standard error goes.
    """

    def __init__(self, options: Sequence[str], log: Path) -> None:
        self.live = 0
        self.events: list[dict[str, Any]] = []
        self._command = [sys.executable, "-m", "eslbot", "sim", "switch", *options]
        self._log = log
        self._ready = threading.Event()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_process(self._process)
        self._reader.join(STOP_LIMIT)

    def start(self) -> None:
        """Run it and wait until it takes calls. Raises LabError."""
        self._run()
        try:
            self.wait_until_ready()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def crash(self, signum: int = signal.SIGKILL) -> None:
        """:meth:`kill` it, and start it again at once on what it left.

        Returns when the new process is started, :meth:`wait_until_ready` when that takes calls.
        """
        self.kill(signum)
        self._run()

    def kill(self, signum: int = signal.SIGKILL) -> None:
        """Have it die of ``signum``. Raises LabError where it does not."""
        self._process.send_signal(signum)
        try:
            self._process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"the stand-in switch outlives {signal.Signals(signum).name}") from error
        self._reader.join(STOP_LIMIT)
        self.live = 0

    def wait_until_ready(self) -> None:
        """Wait until it takes calls. Raises LabError."""
        if not self._ready.wait(START_LIMIT):
            raise LabError(f"the stand-in switch did not come up:\n{self._log.read_text()[-3000:]}")

    def _run(self) -> None:
        self._ready.clear()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log
            )
        self._reader = threading.Thread(target=self._read, name="stand-in switch", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if not line.endswith(b"\n"):
                    continue  # cut short by a kill
                event = json.loads(line)
                self.events.append(event)
                match event["event"]:
                    case "ready":
                        self._ready.set()
                    case "invite" | "recovered":
                        self.live += 1
                    case "hangup":
                        self.live -= 1
