"""What a worker writes down for the ledger: a file of its own, a line a fact, appended and never changed.

Noting never waits and never fails. A thread writes, so that a disk that hangs hangs no call; what cannot be
written yet is kept, up to a bound, and what is kept is lost with the process: where the disk is well, half a
second of what the bot and the caller do, and 50 ms of what nobody would tell again.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, Protocol

import gevent
import structlog
from gevent.event import Event as Flag
from gevent.threadpool import ThreadPool

from eslbot import metrics
from eslbot.ledger.facts import What

log = structlog.get_logger()

#: Seconds in which facts gather to be written at once, since that takes a thread; and in which those do that
#: the next controller could not tell again by what is on the channel.
GATHER, SOON = 0.5, 0.05
_PROMPT = frozenset({What.REFUSED, What.ATTEMPT_BEGAN, What.ATTEMPT, What.LEFT, What.ENDED})
#: Seconds after a failure until writing is tried again.
RETRY = 1.0
#: Facts that may wait to be written: some 10 MB of them.
MAX_WAITING = 50_000
#: Bytes of a file after which the next one is begun, so that what has been read can be deleted.
MAX_FILE = 16 * 1024 * 1024
#: Characters of any one text: a bot's reason, an Ameyo's answer.
MAX_TEXT = 500


class Notebook(Protocol):
    """Where facts go."""

    def note(self, call: str, what: What, facts: dict[str, Any], ago: float = 0.0) -> None:
        """``what`` has happened to ``call``, ``ago`` seconds ago."""

    def flush(self, seconds: float) -> None:
        """Wait until everything is written, for at most ``seconds``."""


class NoJournal:
    """Without ``[ledger]`` nothing is noted."""

    def note(self, call: str, what: What, facts: dict[str, Any], ago: float = 0.0) -> None:
        """Nothing."""

    def flush(self, seconds: float) -> None:
        """Nothing."""


class Journal:
    """The journal of this process, in ``folder``; to be made after the fork."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: list[bytes] = []
        self._some = Flag()
        self._soon = Flag()
        self._done = Flag()
        self._done.set()
        self._thread = ThreadPool(1)
        self._file: int | None = None
        self._size = 0
        self._half = False  # a line whose rest must go to the same file
        self._failing = False
        gevent.spawn(self._write)

    def note(self, call: str, what: What, facts: dict[str, Any], ago: float = 0.0) -> None:
        """``what`` has happened to ``call``, ``ago`` seconds ago."""
        if len(self._waiting) >= MAX_WAITING:
            metrics.LEDGER_FACTS_LOST.inc()
            return
        at = round(time.time() - ago, 3)
        self._waiting.append(_line({"call": call, "at": at, "what": what, **facts}))
        self._some.set()
        self._done.clear()
        if what in _PROMPT:
            self._soon.set()

    def flush(self, seconds: float) -> None:
        """Wait until everything is written, for at most ``seconds``."""
        self._soon.set()
        self._done.wait(timeout=seconds)

    def _write(self) -> None:
        while True:
            self._some.wait()
            if self._soon.wait(timeout=GATHER):
                gevent.sleep(SOON)
            self._some.clear()
            self._soon.clear()
            lines, self._waiting = self._waiting, []
            left, error = self._thread.apply(self._append, (b"".join(lines),))
            if error is None:
                self._failing = False
                if not self._waiting:
                    self._done.set()
                continue
            if not self._failing:
                self._failing = True
                log.error("journal_not_written", folder=str(self._folder), error=error, remedy="see [ledger]")
            self._waiting[:0] = left.splitlines(keepends=True)
            self._some.set()
            self._soon.set()
            gevent.sleep(RETRY)

    # -- in the thread ------------------------------------------------------------------------------------

    def _append(self, data: bytes) -> tuple[bytes, str | None]:
        """Write ``data``; what of it is not written, and why. Half a line is gone on with the next time."""
        try:
            if self._file is None or (self._size > MAX_FILE and not self._half):
                self._begin()
            assert self._file is not None
            while data:
                written = os.write(self._file, data)
                self._size += written
                self._half = not data[:written].endswith(b"\n")
                data = data[written:]
        except OSError as error:
            return data, f"{error.strerror} ({self._folder})"
        return b"", None

    def _begin(self) -> None:
        """The next file. Its lock tells the keeper that somebody still writes it."""
        before, host = self._file, socket.gethostname()
        path = self._folder / f"{host}-{os.getpid()}-{time.time_ns() // 1_000_000}.jsonl"
        self._folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            head = _line(
                {"what": "journal", "version": 1, "host": host, "pid": os.getpid(), "at": time.time()}
            )
            if os.write(file, head) != len(head):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        self._file, self._size = file, len(head)
        if before is not None:
            os.close(before)


def _line(fact: dict[str, Any]) -> bytes:
    """One line; texts are bounded, since they come from bots and Ameyos."""
    for key, value in fact.items():
        if isinstance(value, str) and len(value) > MAX_TEXT:
            fact[key] = value[:MAX_TEXT]
    return json.dumps(fact, separators=(",", ":")).encode() + b"\n"
