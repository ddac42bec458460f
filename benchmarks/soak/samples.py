"""Memory, descriptors, threads of every process, line files and calls, sampled into a CSV file."""

from __future__ import annotations

import csv
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

#: Seconds between two samples in a run of hours; a short run has at least so many.
PERIOD, LEAST = 5.0, 120
COLUMNS = ("seconds", "what", "pid", "rss_kb", "descriptors", "threads", "count")
#: What is sampled besides processes; of the last one, a row is a window of the RTP clock, in ms.
LINES, CALLS, CLOCK = "line files", "calls up", "rtp clock"


@dataclass(frozen=True, slots=True)
class Row:
    """Of a process: memory, descriptors and threads; of anything else ``count``."""

    seconds: float
    what: str
    pid: int
    rss_kb: float | None = None
    descriptors: float | None = None
    threads: float | None = None
    count: float | None = None


class Samples:
    """Samples until it is left; a context manager.

    Args:
        path: the CSV file.
        processes: which there are now, by what they are.
        counts: everything else that is counted now.
    """

    def __init__(
        self,
        path: Path,
        processes: Callable[[], Mapping[str, Sequence[int]]],
        counts: Callable[[], Mapping[str, float]],
        period: float = PERIOD,
    ) -> None:
        self.path, self._processes, self._counts, self._period = path, processes, counts, period
        self.begun = time.time()
        self._lock = threading.Lock()
        self._sampled = threading.Semaphore(0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)

    def __enter__(self) -> Self:
        self._file = self.path.open("w", newline="")
        self._writer = csv.writer(self._file)
        self._writer.writerow(COLUMNS)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(10)
        with self._lock:
            self._file.close()

    def wait(self, samples: int) -> None:
        """Wait for so many more."""
        for _ in range(samples):
            self._sampled.acquire()

    def windows(self, number: int, told: Sequence[tuple[float, float]]) -> None:
        """The RTP clock of a call: epoch seconds and seconds of transit."""
        with self._lock:
            for at, transit in told:
                self._write(Row(at - self.begun, CLOCK, number, count=transit * 1000))
            self._file.flush()

    def _run(self) -> None:
        while not self._stop.wait(self._period):
            self._sample()
            self._sampled.release()

    def _sample(self) -> None:
        at = time.time() - self.begun
        rows = [Row(at, what, 0, count=count) for what, count in self._counts().items()]
        for what, pids in self._processes().items():
            rows += [row for pid in pids if (row := of_process(at, what, pid)) is not None]
        with self._lock:
            for row in rows:
                self._write(row)
            self._file.flush()

    def _write(self, row: Row) -> None:
        values = (row.rss_kb, row.descriptors, row.threads, row.count)
        told = ["" if value is None else f"{value:.9g}" for value in values]
        self._writer.writerow([f"{row.seconds:.1f}", row.what, row.pid, *told])


def of_process(at: float, what: str, pid: int) -> Row | None:
    """A row of a process; None where it is gone."""
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        with process.oneshot():
            if memory := process.memory_info().rss:  # one that nobody has reaped yet has none
                return Row(at, what, pid, memory / 1024, process.num_fds(), process.num_threads())
    return None


def read(path: Path) -> list[Row]:
    """The rows of a CSV file; a line that was cut off is left out."""
    rows = []
    with path.open(newline="") as file:
        for line in csv.DictReader(file):
            with suppress(ValueError, TypeError):
                numbers = [float(line[name]) if line[name] else None for name in COLUMNS[3:]]
                rows.append(Row(float(line["seconds"]), line["what"], int(line["pid"]), *numbers))
    return rows


def series(rows: Sequence[Row], what: str, column: str) -> dict[int, list[tuple[float, float]]]:
    """By process, the points of one column."""
    found: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        value = getattr(row, column)
        if row.what == what and value is not None:
            found.setdefault(row.pid, []).append((row.seconds, value))
    return found
