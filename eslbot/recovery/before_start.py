"""Before a start of FreeSWITCH: count it, and end a loop of crashes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from pwd import getpwnam

from eslbot.recovery.core_database import OWN_DIRECTORY, Found, examine
from eslbot.recovery.state import KEPT, Recoveries, RecoveryFileError, read, require_private, write

#: So many starts after a crash within so many seconds, and the last of them begins without calls.
CRASHES, WITHIN = 3, 60.0


def before_start(
    databases: Path,
    file: Path,
    *,
    user: str = "",
    clock: Callable[[], float] | None = None,
    problems: Sequence[str] = (),
) -> list[str]:
    """Count this start, drop the calls where it is one crash too many, and note that in ``file``.

    Args:
        databases: FreeSWITCH's. file: as :mod:`eslbot.recovery.state` has it.
        user: whose ``databases`` are, where root asks; made for that one where they are missing.
        clock: seconds since boot.
        problems: what is known to be wrong already.

    Returns:
        What to tell people. Raises nothing that comes from outside: FreeSWITCH has to start.
    """
    messages = list(problems)
    now = clock() if clock is not None else time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        known = read(file)
    except RecoveryFileError as error:
        messages.append(f"{error}; it is begun anew")
        known = Recoveries()
    boot = _boot()
    if known.boot != boot:  # the file is on a disk; its times are of another clock
        known = Recoveries()
    crashes = [start for start in known.starts if now - WITHIN < start <= now]
    found = _examine(databases, user, flush=len(crashes) + 1 >= CRASHES)
    messages += found.messages
    after = replace(known, boot=boot, starts=tuple(crashes[-KEPT:]), problem="; ".join(messages)[:500])
    after, news = _counted(after, found, crashes, now)
    messages += news
    try:
        write(file, after)
    except OSError as error:
        messages.append(f"{file}: {error.strerror or error}; nobody is told of this start")
    return messages


def _counted(
    known: Recoveries, found: Found, crashes: Sequence[float], now: float
) -> tuple[Recoveries, list[str]]:
    """``known`` with this start in it, and what to tell people of it."""
    messages, after = list[str](), known
    if found.calls or found.torn:
        least = "at least " if found.torn else ""
        messages.append(f"FreeSWITCH died with {least}{found.calls} calls up")
        after = replace(
            after,
            restarts=known.restarts + 1,
            calls=known.calls + found.calls,
            last_restart=time.time(),
            starts=(*crashes, now)[-KEPT:],
        )
    if found.flushed:
        messages.append(
            f"it is the crash number {len(crashes) + 1} within {WITHIN:g} s, so it starts without them: "
            "their rows in the core database are deleted"
        )
        after = replace(
            after, flushes=known.flushes + 1, dropped=known.dropped + found.calls, last_flush=time.time()
        )
    return after, messages


def _examine(databases: Path, user: str, *, flush: bool) -> Found:
    """The core database, or why it cannot be looked at."""
    try:
        account = _account(user)
        if account is not None:
            _make_directory(databases, *account)
        return examine(databases, flush, account)
    except FileNotFoundError:
        return Found.nothing(f"{databases} is not there; {OWN_DIRECTORY}")
    except OSError as error:
        return Found.nothing(f"{databases}: {error.strerror or error}")
    except KeyError:
        return Found.nothing(f"there is no user {user} (--user), so {databases} is not looked at")


def _boot() -> str:
    """Which boot of the kernel this is; its clock begins anew with the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _account(user: str) -> tuple[int, int] | None:
    """The ids of user and group, where root asks for one. Raises KeyError where there is no such user."""
    if not user or os.geteuid() != 0:
        return None
    account = getpwnam(user)
    return account.pw_uid, account.pw_gid


def _make_directory(databases: Path, uid: int, gid: int) -> None:
    """Where it is missing, and nobody but root can change what is around it. Raises OSError."""
    if databases.exists():
        return
    parent = os.open(databases.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        require_private(parent, databases.parent)
        os.mkdir(databases.name, 0o700, dir_fd=parent)
        os.chown(databases.name, uid, gid, dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)
