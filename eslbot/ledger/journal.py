"""The journal of a worker: a file of its own, one line a fact, only ever appended to.

Appending a fact never waits and never fails: a thread of the system's writes, so a disk that hangs holds up
no call. The thread writes four times a second of its own accord: waking it for each fact, or being woken by
it, costs a call a hundred times as much as appending. What is not written yet is lost with the process: a
quarter of a second of facts where the disk is well.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections import deque
from pathlib import Path
from typing import Any, Protocol

import gevent
import structlog
from gevent.monkey import get_original

from eslbot.ledger.facts import What
from eslbot.telemetry import metrics, redaction

log = structlog.get_logger()

#: Seconds between two writes.
WRITE_INTERVAL = 0.25
#: Seconds from a failed write to the next one.
RETRY_INTERVAL = 1.0
#: Facts that may wait to be written: some 10 MB.
MAX_WAITING = 50_000
#: Facts of one write.
MAX_LINES = 5_000
#: Seconds between two looks whether all is written.
FLUSH_POLL_INTERVAL = 0.02
#: Bytes of a file after which the next one is begun: what was read can be deleted by the file only.
MAX_FILE_BYTES = 16 * 1024 * 1024
#: Characters of any one text: a bot's reason, an Ameyo's answer.
MAX_TEXT = 500

#: Ids and fixed words: they are short, and without them a call's record would be lost. So nothing is redacted
#: in them.
_NOT_REDACTED = frozenset(
    (
        *("call", "at", "what", "workspace_id", "workspace", "did", "crt_object_id", "caller", "called"),
        *("source", "sip_call_id", "outcome", "verdict", "disposition", "cause", "stage"),
        *("host", "version", "pid"),
    )
)

_encode = json.JSONEncoder(separators=(",", ":")).encode


class FactSink(Protocol):
    """Where facts go."""

    def append(self, call: str, what: What, facts: dict[str, Any], ago: float = 0.0) -> None:
        """Add the fact that ``what`` happened to ``call``, ``ago`` seconds ago."""

    def flush(self, seconds: float) -> None:
        """Wait until everything is written, for at most ``seconds``."""


class Journal:
    """Writes facts to the journal of this process, in ``folder``; make it after the fork."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Both ends of a deque may be used from two threads without a lock.
        self._waiting: deque[bytes] = deque()
        self._error: str | None = None
        self._error_logged = False
        self._idle = True
        self._file: int | None = None
        self._size = 0
        self._within_line = False  # the rest of that line must go to the same file
        # gevent's own threads tell the event loop of what they have done, which is what must not be.
        get_original("_thread", "start_new_thread")(self._write_forever, ())

    def append(self, call: str, what: What, facts: dict[str, Any], ago: float = 0.0) -> None:
        """Add the fact that ``what`` happened to ``call``, ``ago`` seconds ago."""
        if self._error is not None and not self._error_logged:
            log.error(
                "journal_not_written",
                folder=str(self._folder),
                error=self._error,
                remedy="check space and permissions of [ledger] journal",
            )
        self._error_logged = self._error is not None
        if len(self._waiting) >= MAX_WAITING:
            metrics.LEDGER_FACTS_LOST.inc()
            return
        at = round(time.time() - ago, 3)
        self._waiting.append(_line({"call": call, "at": at, "what": what, **facts}))

    def flush(self, seconds: float) -> None:
        """Wait until everything is written, for at most ``seconds``."""
        deadline = time.monotonic() + seconds
        while (self._waiting or not self._idle) and time.monotonic() < deadline:
            gevent.sleep(FLUSH_POLL_INTERVAL)

    # -- in the thread ------------------------------------------------------------------------------------

    def _write_forever(self) -> None:
        sleep = get_original("time", "sleep")
        left = b""
        while True:
            sleep(WRITE_INTERVAL if self._error is None else RETRY_INTERVAL)
            self._idle = False  # before anything is taken
            lines = [left]
            while self._waiting and len(lines) < MAX_LINES:
                lines.append(self._waiting.popleft())
            left, self._error = self._append(b"".join(lines))
            self._idle = not left

    def _append(self, data: bytes) -> tuple[bytes, str | None]:
        """Write ``data``; returns what of it is not written, and why. The next write goes on from there."""
        try:
            if self._file is None or (self._size > MAX_FILE_BYTES and not self._within_line):
                self._begin()
            assert self._file is not None
            while data:
                written = os.write(self._file, data)
                self._size += written
                self._within_line = not data[:written].endswith(b"\n")
                data = data[written:]
        except OSError as error:
            return data, f"{error.strerror} ({self._folder})"
        return b"", None

    def _begin(self) -> None:
        """Begin the next file. Its lock tells the ledger writer that a worker still writes it."""
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
    """One line. Texts come from bots and Ameyos, so they are bounded and their secrets redacted."""
    for key, value in fact.items():
        if key not in _NOT_REDACTED:
            fact[key] = _redacted(value)
    return _encode(fact).encode() + b"\n"


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redaction.beginning(value, MAX_TEXT)
    if isinstance(value, dict):
        return {name: _redacted(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(one) for one in value]
    return value
