"""What processes use of the machine."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import psutil


def memory(pids: Iterable[int]) -> int:
    """Bytes of memory that these processes have made, pages shared among processes in equal parts.

    Pages of files are left out: a library's count for less as soon as a stranger uses it, too. That is of
    proc(5): psutil does not tell them apart.
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
        times = [psutil.Process(pid).cpu_times() for pid in self._pids]
        return sum(one.user + one.system for one in times)

    def cores(self) -> float:
        """How many cores they have used on average."""
        return (self._seconds() - self._used) / (time.monotonic() - self._begun)
