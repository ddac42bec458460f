"""Rows: the files in ``PROMETHEUS_MULTIPROC_DIR`` that a process's metrics are kept in.

prometheus_client names them by the process, and a service that lives for a year has thousands of workers in
its life. Here a process claims a *row*, the first that no living process has, and goes on where the one
before it in that row has ended: three lives are one file. A claim is a lock (``flock``) on a file beside the
row's, so it ends with the process, however that ends.

Gauges tell what is now, so they go with the process: whoever claims the row, or reads the files, removes what
a dead one has left of them.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import structlog
from prometheus_client.mmap_dict import MmapedDict

from eslbot.runtime.file_locks import held

log = structlog.get_logger()

#: Processes of one service at one time; a HUP doubles the workers and the relays for a while.
MAX_ROWS = 1024

#: prometheus_client's names: ``counter_7.db``, ``gauge_livesum_7.db``.
_FILE = re.compile(r"(?P<kind>counter|gauge_[a-z]+|histogram|summary)_(?P<row>\d{1,4})\.db")


#: What reading a file raises that is torn, or that has been made this moment and is empty.
UNREADABLE = (RuntimeError, ValueError, struct.error, FileNotFoundError)


class _Claim:
    """Of this process: its row, and the descriptor that holds the row's lock."""

    row: str | None = None
    lock: int | None = None


def claimed() -> str:
    """The row of this process, which is claimed when it is asked for first.

    Raises OSError where the directory cannot be written, or no row is free.
    """
    if _Claim.row is None:
        _Claim.row, _Claim.lock = _claim(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
    return _Claim.row


def _let_go() -> None:
    """In a forked process: the row is its parent's, and stays so."""
    if _Claim.lock is not None:
        os.close(_Claim.lock)
    _Claim.row = _Claim.lock = None


os.register_at_fork(after_in_child=_let_go)


def _claim(directory: Path) -> tuple[str, int]:
    for number in range(MAX_ROWS):
        lock = _lock(directory, number)
        if lock is not None:
            _begin(directory, number)
            return str(number), lock
    raise OSError(f"{directory}: all {MAX_ROWS} rows of metrics are taken; is it one service's alone?")


def _lock(directory: Path, number: int) -> int | None:
    """A descriptor that holds the row; None where a living process has it. Raises OSError."""
    return held(directory / f"row_{number}.lock")


def _begin(directory: Path, number: int) -> None:
    """Take over what the life before has left: its counters, if they can be read, and none of its gauges."""
    for path, kind, row in _files(directory):
        if row != number:
            continue
        if kind.startswith("gauge"):
            path.unlink(missing_ok=True)
        elif path.stat().st_size and not is_readable(path):
            log.error("metrics_unreadable", file=path.name, remedy="its counters restart at 0")
            path.replace(path.with_suffix(".unreadable"))


def of_the_living(directory: Path) -> list[Path]:
    """All files that count now. The gauges of dead processes are removed. Raises OSError."""
    found = list(_files(directory))
    vacant: dict[int, bool] = {}
    counting = []
    for path, kind, row in found:
        if kind.startswith("gauge"):
            if row not in vacant:
                vacant[row] = _vacate(directory, row)
            if vacant[row]:
                continue
        counting.append(path)
    return counting


def _vacate(directory: Path, number: int) -> bool:
    """Remove the gauges of a row that no living process has; whether it was one."""
    lock = _lock(directory, number)
    if lock is None:
        return False
    try:
        for path, kind, row in _files(directory):
            if row == number and kind.startswith("gauge"):
                path.unlink(missing_ok=True)
    finally:
        os.close(lock)
    return True


def is_readable(path: Path) -> bool:
    """Whether prometheus_client can read the file: a machine that lost its power may leave half of one."""
    try:
        for _ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]
            pass
    except UNREADABLE:
        return False
    return True


def _files(directory: Path) -> Iterator[tuple[Path, str, int]]:
    for path in directory.iterdir():
        if found := _FILE.fullmatch(path.name):
            yield path, found["kind"], int(found["row"])
