"""The files in which the processes of a service share their figures, and what becomes of a dead one's.

prometheus_client gives each process a file for its counters and one for its histograms. Their figures belong
to the totals for ever, but a service that lives for a year has thousands of workers in its life: so what a
dead process has counted is added to one file for all of them, ``…_dead.db``. Reading and adding exclude each
other (``flock``), else a figure would be read twice or not at all.

The arbiter uses this module, so it does not import prometheus_client with its web servers, which the worker
imports when gevent has patched the standard library; the files' format, which is simple, is read and written
here.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

log = structlog.get_logger()

#: The kinds whose figures outlive their process; the gauges of ours do not (they are all ``live…``).
LASTING = ("counter", "histogram", "summary")
#: Seconds for which a reader, or the arbiter, waits for the other; adding takes milliseconds. The arbiter has
#: workers to watch, and a reader that hangs must not stop it: it adds at the next death.
READER_WAITS, ARBITER_WAITS = 2.0, 0.05
LOOK = 0.005

_USED = struct.Struct("i4x")
_LENGTH = struct.Struct("i")
_FIGURE = struct.Struct("dd")  # the value, and when it was set, which counters do not tell

#: What a figure is, in prometheus_client's words, and its value.
Figures = dict[bytes, float]


class FiguresBusy(Exception):
    """Somebody else reads or adds for longer than he should."""


class FigureFiles:
    """The files of one service, in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._left_behind: set[int] = set()

    def bury(self, pid: int) -> None:
        """Add to the totals what a process has counted that is gone. Raises nothing; the arbiter calls it."""
        # Of those left behind some may live again: the system gives numbers out anew.
        dead = {pid, *(left for left in self._left_behind if not Path(f"/proc/{left}").exists())}
        self._left_behind |= dead
        try:
            for gauge in self._directory.glob(f"gauge_live*_{pid}.db"):
                gauge.unlink(missing_ok=True)
            with self._locked(fcntl.LOCK_EX, ARBITER_WAITS):
                for kind in LASTING:
                    self._add(kind, dead)
            self._left_behind -= dead
        except (OSError, FiguresBusy) as error:
            log.warning("figures_not_added", pids=len(dead), error=str(error), remedy="tried again later")

    def _add(self, kind: str, dead: set[int]) -> None:
        """Make one file of the dead ones'. They are removed behind that: a crash in between counts twice."""
        files = [path for pid in dead if (path := self._directory / f"{kind}_{pid}.db").exists()]
        if not files:
            return
        total = self._directory / f"{kind}_dead.db"
        sums: Figures = {}
        for path in [total, *files] if total.exists() else files:
            try:
                for key, value in entries(path.read_bytes()):
                    sums[key] = sums.get(key, 0.0) + value
            except ValueError as error:
                log.error("figures_unreadable", file=path.name, error=str(error))
        new = total.with_suffix(".new")
        new.write_bytes(packed(sums.items()))
        new.replace(total)
        for path in files:
            path.unlink()

    @contextmanager
    def reading(self) -> Iterator[list[str]]:
        """The names of all files, which stay as they are meanwhile. Raises FiguresBusy."""
        with self._locked(fcntl.LOCK_SH, READER_WAITS):
            # A process that begins has an empty file for a moment.
            yield [str(path) for path in self._directory.glob("*.db") if path.stat().st_size >= _USED.size]

    @contextmanager
    def _locked(self, how: int, seconds: float) -> Iterator[None]:
        deadline = time.monotonic() + seconds
        lock = os.open(self._directory / "figures.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(lock, how | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise FiguresBusy(f"the figures are locked for {seconds:g} s") from error
                    time.sleep(LOOK)
            yield
        finally:
            os.close(lock)


def entries(data: bytes) -> Iterator[tuple[bytes, float]]:
    """Key and value of each figure in a file. Raises ValueError where it is none of prometheus_client's."""
    try:
        used = _USED.unpack_from(data)[0]
        place = _USED.size
        while place < used:
            length = _LENGTH.unpack_from(data, place)[0]
            end = place + _LENGTH.size + length
            if length < 0 or end > used:
                raise ValueError(f"an entry at {place} ends beyond the figures")
            place = _padded(end)
            yield data[end - length : end], _FIGURE.unpack_from(data, place)[0]
            place += _FIGURE.size
    except struct.error as error:
        raise ValueError(str(error)) from error


def packed(figures: Iterable[tuple[bytes, float]]) -> bytes:
    """A file of these figures."""
    body = bytearray(_USED.size)
    for key, value in figures:
        body += _LENGTH.pack(len(key)) + key
        body += b" " * (_padded(len(body)) - len(body)) + _FIGURE.pack(value, 0.0)
    _USED.pack_into(body, 0, len(body))
    return bytes(body)


def _padded(end: int) -> int:
    """Where the figure of a key begins that ends at ``end``: at the next eight bytes, and never at once."""
    return end + 8 - end % 8
