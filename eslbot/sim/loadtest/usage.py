"""Processor time and memory of named groups of processes, sampled while a load runs."""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

#: Seconds between two samples.
PERIOD = 0.5

Groups = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Sample:
    """Up to ``at`` (epoch seconds): processor seconds of each process and of the machine, and memory.

    ``used`` is by group and process; ``memory`` bytes of each group now; ``busy`` and ``total`` are of all
    cores together.
    """

    at: float
    used: Mapping[str, Mapping[int, float]]
    memory: Mapping[str, int]
    busy: float
    total: float


@dataclass(frozen=True)
class Used:
    """Over a span of time.

    Attributes:
        cores: that each group used on average.
        busiest: the most that one process of the group used, on average, in cores.
        memory: the most bytes of each group.
        machine: cores that everything on this machine used, ours or not, and how many there are.
    """

    cores: Mapping[str, float]
    busiest: Mapping[str, float]
    memory: Mapping[str, int]
    machine: float
    of: int


class Usage:
    """Samples until it is left; a context manager.

    Args:
        groups: which processes there are now, asked for each sample.
    """

    def __init__(self, groups: Callable[[], Groups]) -> None:
        self._groups = groups
        self.samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="usage", daemon=True)

    def __enter__(self) -> Self:
        self.samples.append(self._sample())
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(5)

    def between(self, begin: float, end: float) -> Used | None:
        """Of the samples from ``begin`` to ``end``, epoch seconds; None where there are not two."""
        return between(self.samples, begin, end)

    def _run(self) -> None:
        while not self._stop.wait(PERIOD):
            self.samples.append(self._sample())

    def _sample(self) -> Sample:
        used: dict[str, dict[int, float]] = {}
        memory: dict[str, int] = {}
        before = self.samples[-1].used if self.samples else {}
        for group, pids in self._groups().items():
            used[group] = dict(before.get(group, {}))  # who has ended has used what he had
            memory[group] = 0
            for pid in pids:
                taken = _of_process(pid)
                if taken is not None:
                    used[group][pid], resident = taken
                    memory[group] += resident
        return Sample(time.time(), used, memory, *_of_machine())


def between(samples: Sequence[Sample], begin: float, end: float) -> Used | None:
    """The use over the samples from ``begin`` to ``end``."""
    times = [sample.at for sample in samples]
    span = samples[bisect_left(times, begin) : bisect_left(times, end)]
    if len(span) < 2:
        return None
    first, last = span[0], span[-1]
    length = last.at - first.at
    cores, busiest = {}, {}
    for group, processes in last.used.items():
        # A process that is new in this span has used all it has in it.
        each = [total - first.used.get(group, {}).get(pid, 0.0) for pid, total in processes.items()]
        cores[group] = sum(each) / length
        busiest[group] = max(each, default=0.0) / length
    memory = {group: max(sample.memory.get(group, 0) for sample in span) for group in last.memory}
    machine = os.cpu_count() or 1
    passed = last.total - first.total
    share = (last.busy - first.busy) / passed if passed else 0.0
    return Used(cores, busiest, memory, share * machine, machine)


def udp_dropped() -> int:
    """UDP packets that this machine's processes had no room for, since it was started (RFC 4113).

    Of proc(5) itself: psutil counts packets at the interfaces alone.
    """
    names, numbers = (
        line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Udp:")
    )
    return int(dict(zip(names, numbers, strict=True))["RcvbufErrors"])


def _of_process(pid: int) -> tuple[float, int] | None:
    """Processor seconds and resident bytes; None where it is gone."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            used = process.cpu_times()
            return used.user + used.system, process.memory_info().rss
    except psutil.Error:
        return None


def _of_machine() -> tuple[float, float]:
    """Processor seconds of all cores since the start: busy, and in all."""
    times = psutil.cpu_times()
    total = sum(times[:8])  # behind these come guests', which is in users' already
    return total - times.idle - times.iowait, total
