"""FreeSWITCH's core database, examined and mended by a child with its owner's rights.

FreeSWITCH writes it without a journal, so one that was killed may leave it torn, and with a torn one
FreeSWITCH does not start at all (measured). Such a one is put aside, and what can still be read of its rows
goes into a new one.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sqlite3
import stat
import time
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

CORE = "core.db"
TORN = "core.db.torn"
#: What there should be.
OWN_DIRECTORY = "freeswitch.db has to be a directory of its user's own, 0700"
#: Seconds for all that is done with the database, and for somebody else's lock on it.
PATIENCE, BUSY = 2.0, 0.5
#: More rows than FreeSWITCH can have calls.
MAX_CALLS = 1_000_000
#: Bytes of the child's answer.
MAX_ANSWER = 16 * 1024

#: FreeSWITCH would make them readable by its group. The second is the SIP profile's own.
_MADE_PRIVATE = (CORE, "sofia_reg_ameyo.db")
_NAMES = 64  # in the directory that are looked at
_COLUMNS = ("runtime_uuid", "technology", "profile_name", "hostname", "uuid", "metadata")
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Found:
    """What the child met: ``calls`` to be taken up; whether they were ``flushed``, the database ``torn``.

    ``messages``: what to tell people.
    """

    calls: int = 0
    flushed: bool = False
    torn: bool = False
    messages: tuple[str, ...] = ()

    @classmethod
    def nothing(cls, why: str) -> Self:
        """It was not looked at, or no further."""
        return cls(messages=(why,))


def examine(databases: Path, flush: bool, account: tuple[int, int] | None) -> Found:
    """What a child finds and does in ``databases``; killed after PATIENCE.

    Nothing in one that is not of ``account`` (uid and gid), or everybody's: to close it would close it to
    FreeSWITCH, and to whom it belongs.

    Raises:
        OSError: of the directory itself.
    """
    owner = databases.lstat()
    if not stat.S_ISDIR(owner.st_mode):
        return Found.nothing(f"{databases} is a link or no directory: looked at no further")
    if owner.st_mode & stat.S_ISVTX:
        return Found.nothing(f"{databases} is everybody's: looked at no further; {OWN_DIRECTORY}")
    if account is not None and owner.st_uid != account[0]:
        return Found.nothing(
            f"{databases} belongs to user {owner.st_uid}, not to FreeSWITCH's, {account[0]}: "
            f"looked at no further; {OWN_DIRECTORY}"
        )
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _child(databases, flush, owner, writing)
    os.close(writing)
    answer = _answer(child, reading)
    if answer is None:
        return Found.nothing(f"{databases / CORE} did not answer within {PATIENCE:g} s")
    try:
        return _parse(answer)
    except (ValueError, LookupError, TypeError):
        return Found.nothing(f"{databases / CORE} could not be looked at")


def _answer(child: int, reading: int) -> bytes | None:
    """What the child has written to the pipe, which is closed; None, and it is killed, if it is late."""
    answer, deadline = b"", time.monotonic() + PATIENCE
    while len(answer) <= MAX_ANSWER:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, os.WNOHANG)  # one that hangs in the kernel is not waited for
            os.close(reading)
            return None
        more = os.read(reading, MAX_ANSWER)
        if not more:
            break
        answer += more
    os.close(reading)
    os.waitpid(child, 0)
    return answer


def _parse(answer: bytes) -> Found:
    """Of a child that has read what others wrote. Raises ValueError, LookupError, TypeError."""
    document = json.loads(answer)
    calls = document["calls"]
    if type(calls) is not int or not 0 <= calls <= MAX_CALLS:
        raise ValueError("no number of calls")
    messages = tuple(str(line) for line in document["messages"])
    return Found(calls, document["flushed"] is True, document["torn"] is True, messages)


# -- in the child -------------------------------------------------------------------------------------------


def _child(databases: Path, flush: bool, owner: os.stat_result, writing: int) -> None:
    """The child's whole life: whatever happens, its process ends here."""
    status = 1
    try:
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.setgroups([])
            os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
            os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
        os.write(writing, json.dumps(asdict(_examine(databases, flush))).encode()[:MAX_ANSWER])
        status = 0
    finally:
        os._exit(status)


def _examine(databases: Path, flush: bool) -> Found:
    messages: list[str] = []
    os.umask(0o077)
    os.chdir(databases)
    try:
        messages += _close_to_others(databases)
        for name in _MADE_PRIVATE:
            with suppress(FileExistsError):
                os.close(os.open(name, _NEW_FILE, 0o600))
        core = os.lstat(CORE)
        if not stat.S_ISREG(core.st_mode):
            messages.append(f"{databases / CORE} is no file: looked at no further; take it away")
            return Found(messages=tuple(messages))
        if not _is_mine(core):
            return Found(messages=tuple(messages))
        try:
            calls, flushed = _rows(flush)
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in (
                sqlite3.SQLITE_CORRUPT,
                sqlite3.SQLITE_NOTADB,
            ):
                raise
            calls = _put_aside(save=not flush)
            saved = "" if flush else f", and {calls} calls of it were saved"
            messages.append(f"{databases / CORE} was torn; it is {TORN} now{saved}")
            return Found(calls, flush, True, tuple(messages))
    except (OSError, sqlite3.Error) as error:
        messages.append(f"{databases / CORE}: {getattr(error, 'strerror', None) or error}")
        return Found(messages=tuple(messages))
    return Found(calls, flushed, messages=tuple(messages))


def _is_mine(status: os.stat_result) -> bool:
    return os.geteuid() in (status.st_uid, 0)


def _close_to_others(databases: Path) -> list[str]:
    """Directory and databases for their owner only; says what was not, and what is somebody else's."""
    messages = []
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if (mode := stat.S_IMODE(os.fstat(here).st_mode)) & 0o077:
            os.fchmod(here, 0o700)
            messages.append(f"{databases} was open to others (mode {mode:o}); it is 0700 now")
    finally:
        os.close(here)
    for path in islice(Path().glob("*.db*"), _NAMES):
        status = path.lstat()
        if not _is_mine(status):
            messages.append(
                f"{databases / path} belongs to user {status.st_uid}, its directory to {os.geteuid()}: "
                "looked at no further; take it away, or chown it"
            )
        elif stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.fchmod(file, 0o600)
            finally:
                os.close(file)
    return messages


def _open(name: str) -> sqlite3.Connection:
    database = sqlite3.connect(f"file:{name}?mode=rw", uri=True, timeout=BUSY, isolation_level=None)
    database.execute("pragma trusted_schema=off")
    return database


def _rows(flush: bool) -> tuple[int, bool]:
    """How many calls there are, and whether they were deleted. Raises sqlite3.Error."""
    with closing(_open(CORE)) as core:
        (verdict,) = core.execute("pragma quick_check(1)").fetchone()
        if verdict != "ok":
            raise _corrupt(verdict)
        kind = core.execute("select type from sqlite_master where name='recovery'").fetchone()
        if kind is None:  # FreeSWITCH has never used it
            return 0, False
        if kind != ("table",):
            raise sqlite3.DataError(f"`recovery` in it is a {kind[0]}: it is not FreeSWITCH's")
        (calls,) = core.execute("select count(*) from recovery").fetchone()
        if calls and flush:
            core.execute("delete from recovery")  # switch_core_sqldb.c: switch_core_recovery_flush
            return calls, True
        return calls, False


def _corrupt(verdict: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(verdict)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _put_aside(save: bool) -> int:
    """Have a new database, to ``save`` with the rows that can be read; how many.

    Raises OSError and sqlite3.Error.
    """
    rows: list[tuple[Any, ...]] = []
    Path(CORE).rename(TORN)
    columns = ", ".join(_COLUMNS)
    if save:
        with suppress(sqlite3.Error), closing(_open(TORN)) as torn:
            for row in torn.execute(f"select {columns} from recovery not indexed"):
                rows.append(row)  # what was read before it breaks counts
    os.close(os.open(CORE, _NEW_FILE, 0o600))
    if rows:
        with closing(_open(CORE)) as core:
            core.execute(f"create table recovery ({columns})")
            core.executemany(f"insert into recovery values ({', '.join('?' * len(_COLUMNS))})", rows)
    return len(rows)
