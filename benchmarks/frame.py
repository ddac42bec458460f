"""What every measure has: a clock and a folder, a bound, how its report begins, and the ways it ends.

A measure exits 0 when it was measured, whatever the figures, 1 when it could not be, and 2 when an option is
wrong.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from _thread import interrupt_main
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import eslbot
from benchmarks.outcome import CannotRun
from eslbot.sim.freeswitch import FreeSwitchError
from eslbot.sim.loadtest.machine import Machine, revision
from eslbot.sim.pbx import SippMissing, VoicesError
from eslbot.sim.service import LabError

#: Why a measure cannot run: what it needs is not here, or did not come up.
ABSENT = (CannotRun, LabError, FreeSwitchError, SippMissing, VoicesError, OSError)


@dataclass
class About:
    """Where and when, and with what.

    Attributes:
        machine: as it was at the beginning.
        versions: of what was measured, by name.
        seconds: how long it took.
        left_out: what was not measured, and why.
        switch: which was called, for people.
        load: the load average at the end; None while it is not over.
    """

    date: str
    command: str
    machine: Machine
    versions: Mapping[str, str]
    seconds: float = 0.0
    left_out: Mapping[str, str] = field(default_factory=dict)
    switch: str = ""
    load: float | None = None

    def head(self, title: str, *settings: str) -> str:
        """How its report begins, in Markdown."""
        end = "" if self.load is None else f", {self.load} at the end"
        versions = {"Python": self.machine.python, **self.versions}
        lines = [
            f"# {title}, measured on {self.date}\n",
            *([f"* {self.switch}"] if self.switch else []),
            f"* {self.machine}{end}",
            f"* {', '.join(f'{name} {version}' for name, version in versions.items())}",
            *(f"* {setting}" for setting in settings),
            f"* `{self.command}`, {self.seconds:.0f} s\n",
        ]
        return "\n".join(lines)


@dataclass
class Run:
    """One run of a measure; ``folder`` takes what it writes on its way."""

    about: About
    folder: Path
    begun: float

    def say(self, what: str) -> None:
        """How far it is, on standard error."""
        print(f"» {time.monotonic() - self.begun:4.0f} s  {what}", file=sys.stderr, flush=True)

    def over(self) -> About:
        """It is measured: what its report begins with."""
        self.about.seconds = time.monotonic() - self.begun
        self.about.load = round(os.getloadavg()[0], 2)
        return self.about


@contextmanager
def measuring(
    command: str, *, keep: Path | None = None, limit: float | None = None, absent: int = 1
) -> Iterator[Run]:
    """Run a measure, and leave the program where it cannot be.

    Args:
        command: how people call it, without its options.
        keep: a folder that stays; without one it is a temporary one.
        limit: seconds after which it is interrupted, as by Ctrl-C.
        absent: the exit code where it cannot run.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.setswitchinterval(0.001)  # callers, bots and Ameyo are threads of this process
    watchdog = threading.Timer(limit or 0, interrupt_main)
    watchdog.daemon = True
    if limit is not None:
        watchdog.start()
    folder = keep or Path(tempfile.mkdtemp(prefix="eslbot-benchmark-"))
    folder.mkdir(parents=True, exist_ok=True)
    about = About(
        datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        shlex.join([*shlex.split(command), *sys.argv[1:]]),
        Machine.here(),
        {"eslbot": f"{eslbot.__version__} ({revision()})"},
    )
    try:
        yield Run(about, folder, time.monotonic())
    except ABSENT as error:
        print(f"the benchmark cannot run: {error}", file=sys.stderr)
        sys.exit(absent)
    except KeyboardInterrupt:
        print("interrupted, or not over in time", file=sys.stderr)
        sys.exit(1)
    finally:
        watchdog.cancel()
        if keep is None:
            shutil.rmtree(folder, ignore_errors=True)
