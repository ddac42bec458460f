"""A Kamailio of this machine, in the foreground, on a configuration of a test's own."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from eslbot.sim.processes import end_process

#: Seconds. A start takes about 0.3, and at the edge 2 more: it asks its switches.
START_LIMIT = 20.0
LOOK = 0.02

MISSING = next(
    (name for name in ("kamailio", "kamcmd") if shutil.which(name, path="/usr/sbin:/usr/bin") is None), None
)
WHY_MISSING = "Kamailio is not installed (apt-get install kamailio, or scripts/prepare test --sipp)"


class KamailioProcess:
    """A context manager, or :meth:`start` and :meth:`stop`, and again; :meth:`render` writes what it reads.

    ``configuration`` is its kamailio.cfg; what it says goes to ``kamailio.log`` in ``folder``.
    """

    def __init__(self, folder: Path, configuration: Path) -> None:
        self.folder, self.configuration = folder, configuration
        self.log_file = folder / "kamailio.log"
        self.process: subprocess.Popen[bytes] | None = None

    def render(self) -> None:
        """Write the configuration."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it does its work; it is asked until it does."""
        raise NotImplementedError

    def start(self) -> None:
        """Render, run, and wait until it is ready."""
        self.render()
        # Not in the folder: the path of a socket must be short.
        self._run = TemporaryDirectory(prefix="eslbot-kamailio-")
        command = ["/usr/sbin/kamailio", "-f", str(self.configuration), "-DD", "-E"]
        command += ["-Y", self._run.name, "-P", f"{self._run.name}/pid", "-m", "32", "-M", "4"]
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_LIMIT
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"Kamailio did not come up:\n{self.log()[-3000:]}")
            time.sleep(LOOK)

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            end_process(self.process)
            self.process = None
            self._run.cleanup()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def command(self, *words: str) -> str:
        """What kamcmd says; empty where Kamailio is not there."""
        socket = f"unixs:{self._run.name}/kamailio_ctl"
        told = subprocess.run(
            ["/usr/sbin/kamcmd", "-s", socket, *words], capture_output=True, text=True, timeout=10
        )
        return told.stdout

    def log(self) -> str:
        """What it has said."""
        return self.log_file.read_text(errors="replace")
