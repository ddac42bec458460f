"""The machine on which something is measured."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    """What the figures depend on."""

    cores: int
    cpu: str
    system: str
    python: str
    load: float

    @classmethod
    def here(cls) -> Machine:
        """This one; ``load`` is the load average of the last minute."""
        return cls(
            cores=len(os.sched_getaffinity(0)),
            cpu=_cpu_model(),
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            load=round(os.getloadavg()[0], 2),
        )

    def __str__(self) -> str:
        return f"{self.cores} cores of {self.cpu}, {self.system}, load average {self.load} at the start"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def revision() -> str:
    """The git revision of this checkout, and whether it was changed."""
    here = Path(__file__).resolve().parent
    command = ["git", "describe", "--always", "--dirty"]
    try:
        told = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False).stdout
    except OSError:  # a machine without git
        told = ""
    return told.strip() or "no git revision"
