"""Resume states: how far a call was when its connection to FreeSWITCH broke, for its next controller.

A controller writes to the channel how far a call is. Where FreeSWITCH dies, ``sofia recover`` brings the
channel back as it was at its answer or its last re-INVITE (``switch_core_sqldb.c:
switch_core_recovery_track``), and what was written since is gone. But the controller lives: it saves all that
it has written, and the next controller on this host takes it. While no connection is lost nothing is written.

A file is locked (``flock``) as long as its writer has a notification under way: whether Ameyo accepts it is
in the file that takes its place, and until then nobody notifies again. Where the writer dies over it, so does
the lock. Times are of the monotonic clock, which all processes of a host share until it boots.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger()

#: Bytes of a file: a bot's properties are the most of it.
MAX_FILE = 512 * 1024
#: Seconds after which a file is nobody's, and between two looks for such.
NOBODYS, SWEEP = 3600.0, 60.0
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CALL_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
_VARIABLE = re.compile(r"eslbot_[a-z_]{1,40}")


@dataclass(frozen=True, slots=True)
class ResumeState:
    """How far a call was in its last controller.

    ``variables``: those that it had written to the channel. ``invited_at``, ``answered_at``, ``lost_at``:
    seconds of the monotonic clock. ``peer``: the IP address of its FreeSWITCH, which had ``recovered`` the
    call or was the first. ``under_way``: whether a notification still is.
    """

    variables: Mapping[str, str]
    invited_at: float
    answered_at: float
    lost_at: float
    peer: str = ""
    recovered: bool = False
    under_way: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """A resume state that nobody else touches meanwhile."""

    path: Path
    state: ResumeState

    def done(self) -> None:
        """Nobody needs it any more."""
        self.path.unlink(missing_ok=True)


class ResumeStates:
    """The files in ``directory``, which is made when it is needed, for this user alone."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._boot = _BOOT_ID.read_text().strip()
        self._locks: dict[str, int] = {}
        self._swept = float("-inf")

    def save(self, call_id: str, left: ResumeState) -> None:
        """Write down what is known of a call; with ``under_way`` more will come. Raises nothing.

        What cannot be written is told: the next controller goes by what FreeSWITCH knows then.
        """
        if not _CALL_ID.fullmatch(call_id):
            return
        document = {
            "boot": self._boot,
            "invited_at": left.invited_at,
            "answered_at": left.answered_at,
            "lost_at": left.lost_at,
            "peer": left.peer,
            "recovered": left.recovered,
            "variables": dict(left.variables),
        }
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            locked = self._locks.pop(call_id, None)
            try:
                self._write(call_id, json.dumps(document).encode(), lock=left.under_way)
            finally:
                if locked is not None:
                    os.close(locked)
        except OSError as error:
            log.error(
                "call_not_survived",
                directory=str(self._directory),
                error=error.strerror or str(error),
                remedy="where FreeSWITCH has died, the call goes on from its answer: see the disk",
            )

    def _write(self, call_id: str, data: bytes, *, lock: bool) -> None:
        """Put the file there as a whole, locked from the first moment on where it is to be."""
        descriptor, temporary = tempfile.mkstemp(prefix=".", dir=self._directory)  # 0600
        try:
            if lock:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            while data:
                data = data[os.write(descriptor, data) :]
            Path(temporary).replace(self._directory / call_id)
        except OSError:
            os.close(descriptor)
            Path(temporary).unlink(missing_ok=True)
            raise
        if lock:
            self._locks[call_id] = descriptor
        else:
            os.close(descriptor)

    def lost(self) -> Iterator[str]:
        """The calls of which something is left. Raises nothing."""
        try:
            self._sweep()
            yield from (entry.name for entry in os.scandir(self._directory) if _CALL_ID.fullmatch(entry.name))
        except FileNotFoundError:
            return
        except OSError as error:
            log.error("left_call_not_read", file=str(self._directory), error=error.strerror)

    @contextmanager
    def claim(self, call_id: str) -> Iterator[Claim | None]:
        """Have what was left of a call for oneself, and leave it where it is; None where somebody has it.

        Whoever gets the call meanwhile finds it ``under_way``, and it is there again for the next process
        where this one dies.
        """
        path = self._directory / call_id
        try:
            descriptor = os.open(path, _FLAGS)
        except FileNotFoundError:  # somebody was faster
            yield None
            return
        except OSError as error:
            log.error("left_call_not_read", file=str(path), error=error.strerror)
            yield None
            return
        try:
            yield self._claimed(descriptor, path)
        finally:
            os.close(descriptor)

    def _claimed(self, descriptor: int, path: Path) -> Claim | None:
        if not _lock(descriptor) or not _is_at(descriptor, path):
            return None
        try:
            left = self._read(os.read(descriptor, MAX_FILE + 1), under_way=False)
        except (OSError, ValueError, RecursionError) as error:
            log.error("left_call_not_read", file=str(path), error=str(error))
            left = None
        if left is None:  # nobody can ever do anything with it
            path.unlink(missing_ok=True)
            return None
        return Claim(path, left)

    def forget(self, call_id: str) -> None:
        """Nobody is to come for the call any more, whoever has what is left of it. Raises nothing."""
        if not _CALL_ID.fullmatch(call_id):
            return
        path = self._directory / call_id
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.error("left_call_not_deleted", file=str(path), error=error.strerror)

    def take(self, call_id: str) -> ResumeState | None:
        """What was left of a call, once; one whose notification is under way is left where it is."""
        if not _CALL_ID.fullmatch(call_id):
            return None
        path = self._directory / call_id
        try:
            data, under_way = _take(path)
            return self._read(data, under_way)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, RecursionError) as error:
            log.error("left_call_not_read", file=str(path), error=str(error))
            return None

    def _read(self, data: bytes, under_way: bool) -> ResumeState | None:
        """Raises ValueError where it is not one of ours; None for one of before the host's start."""
        if len(data) > MAX_FILE:
            raise ValueError("too long")
        document = json.loads(data)
        if not isinstance(document, dict) or not isinstance(document.get("variables"), dict):
            raise ValueError("no variables")
        if document.get("boot") != self._boot:
            return None
        variables = {
            name: value
            for name, value in document["variables"].items()
            if _VARIABLE.fullmatch(name) and isinstance(value, str)
        }
        invited_at, answered_at, lost_at = (
            _time(document, name) for name in ("invited_at", "answered_at", "lost_at")
        )
        peer = document.get("peer")
        peer = peer if isinstance(peer, str) else ""
        recovered = document.get("recovered") is True
        return ResumeState(variables, invited_at, answered_at, lost_at, peer, recovered, under_way)

    def _sweep(self) -> None:
        """Delete what nobody has come for, now and then."""
        now = time.monotonic()
        if now - self._swept < SWEEP:
            return
        self._swept = now
        for entry in os.scandir(self._directory):
            with suppress(FileNotFoundError):  # somebody was faster
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > NOBODYS:
                    Path(entry.path).unlink()


def _take(path: Path) -> tuple[bytes, bool]:
    """A file's bytes and whether its writer still has it; if not, it is deleted. Raises OSError."""
    while True:
        descriptor = os.open(path, _FLAGS)
        try:
            under_way = not _lock(descriptor)
            data = os.read(descriptor, MAX_FILE + 1)
            if under_way:
                return data, True
            if _is_at(descriptor, path):
                path.unlink()
                return data, False
            # Its writer has just put another one in its place.
        finally:
            os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether nobody has put another file there, or taken it away."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> bool:
    """Whether nobody has it locked."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _time(document: Mapping[str, Any], name: str) -> float:
    value = document.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"no {name}")
    return float(value)
