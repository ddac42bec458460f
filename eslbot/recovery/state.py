"""What is known of FreeSWITCH's restarts, in a small file that everybody may read."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from eslbot.runtime.files import replacing

#: Starts that are kept.
KEPT = 20
MAX_FILE = 16 * 1024
#: Of a file that cannot be read.
REMEDY = "look at it and take it away; it is made anew at FreeSWITCH's next start"

#: No count is larger: what Prometheus can add up.
_MOST = 2**53
#: Seconds: nobody's clock shows more, and all of them have a date.
_LATEST = 2**36


class RecoveryFileError(ValueError):
    """The file cannot be read, or is not one of ours; the text says why."""


@dataclass(frozen=True, slots=True)
class Recoveries:
    """What is known of FreeSWITCH's restarts since this host's boot.

    Attributes:
        restarts: starts behind a crash with calls up.
        flushes: starts at which those calls were dropped, to end a loop of crashes.
        calls: how many calls there were to be taken up.
        dropped: those of them that were not.
        last_restart, last_flush: seconds since the epoch, for people.
        boot: which boot of the kernel; ``starts`` are by its clock.
        starts: the last restarts, in seconds since the boot: a clock that nobody sets.
        problem: what was wrong at the last start, if anything.
    """

    restarts: int = 0
    flushes: int = 0
    calls: int = 0
    dropped: int = 0
    last_restart: float | None = None
    last_flush: float | None = None
    boot: str = ""
    starts: tuple[float, ...] = ()
    problem: str = ""


def read(path: Path) -> Recoveries:
    """What the file says; all zeroes where there is none. Raises :class:`RecoveryFileError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Recoveries()
    except OSError as error:
        raise RecoveryFileError(f"{path}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RecoveryFileError(f"{path} is no file")
        text = os.read(descriptor, MAX_FILE + 1)
    finally:
        os.close(descriptor)
    try:
        return _parse(text)
    except (ValueError, RecursionError) as error:
        raise RecoveryFileError(f"{path} is not what eslbot writes: {error}") from error


def write(file: Path, recoveries: Recoveries) -> None:
    """The file as a whole, for everybody to read. Raises OSError."""
    with suppress(FileExistsError):
        file.parent.mkdir()
        file.parent.chmod(0o755)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        require_private(folder, file.parent)
        with replacing(folder, file.name) as written:
            written.write(json.dumps(asdict(recoveries)).encode() + b"\n")
            os.fchmod(written.fileno(), 0o644)
    finally:
        os.close(folder)


def require_private(folder: int, path: Path) -> None:
    """Raises OSError where somebody else than this user could change what is in an open directory."""
    status = os.fstat(folder)
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(1, f"{path} is not this user's alone, so nothing is written there")


def _parse(text: bytes) -> Recoveries:
    if len(text) > MAX_FILE:
        raise ValueError(f"it has more than {MAX_FILE} bytes")
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    starts = document.get("starts")
    if not isinstance(starts, list) or len(starts) > KEPT:
        raise ValueError(f"starts should be a list of at most {KEPT} times")
    counts = {name: _count(document, name) for name in ("restarts", "flushes", "calls", "dropped")}
    return Recoveries(
        **counts,
        last_restart=_time_or_none(document.get("last_restart")),
        last_flush=_time_or_none(document.get("last_flush")),
        boot=_text(document, "boot"),
        starts=tuple(_time(start) for start in starts),
        problem=_text(document, "problem"),
    )


def _count(document: dict[str, Any], name: str) -> int:
    value = document.get(name)
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError(f"{name} should be a whole number")
    return value


def _text(document: dict[str, Any], name: str) -> str:
    value = document.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} should be a text")
    return value


def _time_or_none(value: object) -> float | None:
    return None if value is None else _time(value)


def _time(value: object) -> float:
    """Seconds, of a year that people can be told."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise ValueError("a time should be a number of seconds")
    return float(value)
