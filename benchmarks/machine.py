"""The machine, what is measured on it, and what processes use of it."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


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
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True, check=False
    )
    return told.stdout.strip() or "no git revision"


def memory(pids: Iterable[int]) -> int:
    """Bytes of memory that these processes have made, pages shared among processes in equal parts.

    Pages of files are left out: a library's count for less as soon as a stranger uses it, too.
    """
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                total += int(line.split()[1]) * 1024
    return total


class Cpu:
    """Processor time of some processes, all threads, user and system, since it was made."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._begun = time.monotonic()
        self._used = self._seconds()

    def _seconds(self) -> float:
        ticks = 0
        for pid in self._pids:
            # Behind the name, which may hold anything, "utime" and "stime" are the 12th and 13th (proc(5)).
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS

    def cores(self) -> float:
        """How many cores they have used on average."""
        return (self._seconds() - self._used) / (time.monotonic() - self._begun)
