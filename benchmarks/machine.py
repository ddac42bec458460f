"""The machine, what is measured on it, and what processes use of it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


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
