"""What is done before each start of FreeSWITCH (``eslbot recovery``), and what is known of its restarts.

FreeSWITCH keeps a row for each answered call in its core database (``track-calls``). A clean end leaves none;
so rows that are there before a start say that the one before died with calls, and the one that starts takes
them up (``sofia recover``). Should it be one of these calls that kills it, it would do so for ever: at the
third such start within a minute the rows are deleted, as `sofia recover flush` does it.

FreeSWITCH writes its database without a journal, so one that was killed may leave it torn, and with a torn
one FreeSWITCH does not start at all (measured). Such a one is put aside, and what can still be read of the
rows goes into a new one.

The command is root's and the database is FreeSWITCH's: a child with the rights of the directory's owner opens
it, and is killed when it takes too long. Nothing that it meets keeps FreeSWITCH from starting. What came of
it goes into a small file without any customer in it, for metrics, page and ``eslbot doctor``: :func:`read`.
Times that decide anything are of the host's clock since its boot, which nobody sets.

Callers hear nothing while it is loaded, so it imports little, and FreeSWITCH's unit runs it as
``python -m eslbot.recovery``, past the rest of the command line.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sqlite3
import stat
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from pwd import getpwnam
from typing import Any

#: Where FreeSWITCH has its databases (its ``-db``), and where word is left: both on a tmpfs.
DATABASES = "/run/freeswitch-db"
FILE = "/run/eslbot/freeswitch.json"
#: No other file is ever written over, whatever the configuration says.
SUFFIX = ".json"

#: So many starts after a crash within so many seconds, and the last of them begins without calls.
CRASHES, WITHIN = 3, 60.0
#: Seconds for all that is done with the database, and for somebody else's lock on it.
PATIENCE, BUSY = 2.0, 0.5
#: Starts that are kept.
KEPT = 20
MAX_FILE, MAX_CONFIG = 16 * 1024, 4 * 1024 * 1024
#: More rows than FreeSWITCH can have calls.
MAX_CALLS = 1_000_000
#: No count is larger: what Prometheus can add up.
_MOST = 2**53
#: Seconds: nobody's clock shows more, and all of them have a date.
_LATEST = 2**36

CORE = "core.db"
#: FreeSWITCH would make them readable by its group. The second is the SIP profile's own.
_OURS = (CORE, "sofia_reg_ameyo.db")
TORN = "core.db.torn"
_NAMES = 64  # in the directory that are looked at
_OWN = "freeswitch.db has to be a directory of its user's own, 0700"
_ROW = ("runtime_uuid", "technology", "profile_name", "hostname", "uuid", "metadata")


#: Of a file that cannot be read.
REMEDY = "look at it and take it away; it is made anew at FreeSWITCH's next start"


class RecoveryFileError(ValueError):
    """The file cannot be read, or is not one of ours; the text says why."""


@dataclass(frozen=True, slots=True)
class Recoveries:
    """What is known of FreeSWITCH's restarts since this host's boot.

    ``restarts``: starts behind a crash with calls up; ``calls``: how many calls there were to be taken up,
    ``dropped``: those of them that were not, in ``flushes``. ``last_restart`` and ``last_flush`` are seconds
    since the epoch, for people. ``starts``: the last restarts, in seconds since ``boot``. ``problem``: what
    was wrong at the last start, if anything.
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
        return _understood(text)
    except (ValueError, RecursionError) as error:
        raise RecoveryFileError(f"{path} is not what eslbot writes: {error}") from error


def _understood(text: bytes) -> Recoveries:
    if len(text) > MAX_FILE:
        raise ValueError(f"it has more than {MAX_FILE} bytes")
    said = json.loads(text)
    if not isinstance(said, dict):
        raise ValueError("it is no JSON object")
    starts = said.get("starts")
    if not isinstance(starts, list) or len(starts) > KEPT:
        raise ValueError(f"starts should be a list of at most {KEPT} times")
    return Recoveries(
        restarts=_count(said, "restarts"),
        flushes=_count(said, "flushes"),
        calls=_count(said, "calls"),
        dropped=_count(said, "dropped"),
        last_restart=_moment(said.get("last_restart")),
        last_flush=_moment(said.get("last_flush")),
        boot=_text(said, "boot"),
        starts=tuple(_time(when) for when in starts),
        problem=_text(said, "problem"),
    )


def _count(said: dict[str, Any], name: str) -> int:
    value = said.get(name)
    if type(value) is not int or not 0 <= value <= _MOST:
        raise ValueError(f"{name} should be a whole number")
    return value


def _text(said: dict[str, Any], name: str) -> str:
    value = said.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} should be a text")
    return value


def _moment(value: object) -> float | None:
    return None if value is None else _time(value)


def _time(value: object) -> float:
    """Seconds, of a year that people can be told."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise ValueError("a time should be a number of seconds")
    return float(value)


# -- before a start ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What the child met: ``calls`` to be taken up; whether they were ``flushed``, the database ``torn``."""

    calls: int = 0
    flushed: bool = False
    torn: bool = False
    told: tuple[str, ...] = ()


def before_start(
    databases: Path,
    file: Path,
    *,
    user: str = "",
    clock: Callable[[], float] | None = None,
    problems: Sequence[str] = (),
) -> list[str]:
    """Count this start, flush where it is one too many, leave word in ``file``; what to tell people.

    ``user``: whose ``databases`` are, where root asks; made for that one where they are missing. ``clock``:
    seconds since boot. ``problems``: what is known to be wrong already. Raises nothing that comes from
    outside: FreeSWITCH has to start.
    """
    told = list(problems)
    now = clock() if clock is not None else time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        known = read(file)
    except RecoveryFileError as error:
        told.append(f"{error}; it is begun anew")
        known = Recoveries()
    boot = _boot()
    if known.boot != boot:  # the file is on a disk; its times are of another clock
        known = Recoveries()
    lately = [when for when in known.starts if now - WITHIN < when <= now]
    flush = len(lately) + 1 >= CRASHES
    try:
        account = _account(user)
        if account is not None:
            _make(databases, *account)
        found = _by_its_owner(databases, flush, account)
    except FileNotFoundError:
        found = Found(told=(f"{databases} is not there; {_OWN}",))
    except OSError as error:
        found = Found(told=(f"{databases}: {error.strerror or error}",))
    except KeyError:
        found = Found(told=(f"there is no user {user} (--user), so {databases} is not looked at",))
    told += found.told
    after = replace(known, boot=boot, starts=tuple(lately[-KEPT:]), problem="; ".join(told)[:500])
    if found.calls or found.torn:
        least = "at least " if found.torn else ""
        told.append(f"FreeSWITCH died with {least}{found.calls} calls up")
        after = replace(
            after,
            restarts=known.restarts + 1,
            calls=known.calls + found.calls,
            last_restart=time.time(),
            starts=(*lately, now)[-KEPT:],
        )
    if found.flushed:
        told.append(
            f"it is the crash number {len(lately) + 1} within {WITHIN:g} s, so it starts without them: "
            "their rows in the core database are deleted"
        )
        after = replace(
            after, flushes=known.flushes + 1, dropped=known.dropped + found.calls, last_flush=time.time()
        )
    try:
        _write(file, after)
    except OSError as error:
        told.append(f"{file}: {error.strerror or error}; nobody is told of this start")
    return told


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


def _make(databases: Path, uid: int, gid: int) -> None:
    """Have the directory, where nobody but root can change what is around it. Raises OSError."""
    if databases.exists():
        return
    around = os.open(databases.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _of_mine_alone(around, databases.parent)
        os.mkdir(databases.name, 0o700, dir_fd=around)
        os.chown(databases.name, uid, gid, dir_fd=around, follow_symlinks=False)
    finally:
        os.close(around)


def _of_mine_alone(folder: int, path: Path) -> None:
    """Raises OSError where somebody else could change what is in it."""
    about = os.fstat(folder)
    if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(1, f"{path} is not this user's alone, so nothing is written there")


def _by_its_owner(databases: Path, flush: bool, account: tuple[int, int] | None) -> Found:
    """What a child finds and does in ``databases``; killed after PATIENCE. Raises OSError.

    Nothing in one that is not of ``account``, or everybody's: to close it would close it to FreeSWITCH, and
    to whom it belongs.
    """
    whose = databases.lstat()
    if not stat.S_ISDIR(whose.st_mode):
        return Found(told=(f"{databases} is a link or no directory: looked at no further",))
    if whose.st_mode & stat.S_ISVTX:
        return Found(told=(f"{databases} is everybody's: looked at no further; {_OWN}",))
    if account is not None and whose.st_uid != account[0]:
        said = f"{databases} belongs to user {whose.st_uid}, not to FreeSWITCH's, {account[0]}"
        return Found(told=(f"{said}: looked at no further; {_OWN}",))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:  # whatever happens, this process ends here
            if os.geteuid() == 0 and whose.st_uid != 0:
                os.setgroups([])
                os.setresgid(whose.st_gid, whose.st_gid, whose.st_gid)
                os.setresuid(whose.st_uid, whose.st_uid, whose.st_uid)
            os.write(writing, json.dumps(asdict(_look(databases, flush))).encode()[:MAX_FILE])
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    answer, deadline = b"", time.monotonic() + PATIENCE
    while len(answer) <= MAX_FILE:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, os.WNOHANG)  # one that hangs in the kernel is not waited for
            os.close(reading)
            return Found(told=(f"{databases / CORE} did not answer within {PATIENCE:g} s",))
        more = os.read(reading, MAX_FILE)
        if not more:
            break
        answer += more
    os.close(reading)
    os.waitpid(child, 0)
    try:
        return _answered(answer)
    except (ValueError, LookupError, TypeError):
        return Found(told=(f"{databases / CORE} could not be looked at",))


def _answered(answer: bytes) -> Found:
    """As the child said it; it has read what others wrote. Raises ValueError, LookupError, TypeError."""
    said = json.loads(answer)
    calls = said["calls"]
    if type(calls) is not int or not 0 <= calls <= MAX_CALLS:
        raise ValueError("no number of calls")
    return Found(
        calls, said["flushed"] is True, said["torn"] is True, tuple(str(line) for line in said["told"])
    )


def _look(databases: Path, flush: bool) -> Found:
    """In the child."""
    told: list[str] = []
    os.umask(0o077)
    os.chdir(databases)
    try:
        told += _closed(databases)
        for name in _OURS:
            with suppress(FileExistsError):
                os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        core = os.lstat(CORE)
        if not stat.S_ISREG(core.st_mode):
            return Found(told=(*told, f"{databases / CORE} is no file: looked at no further; take it away"))
        if not _mine(core):
            return Found(told=tuple(told))
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
            told.append(f"{databases / CORE} was torn; it is {TORN} now{saved}")
            return Found(calls, flush, True, tuple(told))
    except (OSError, sqlite3.Error) as error:
        return Found(told=(*told, f"{databases / CORE}: {getattr(error, 'strerror', None) or error}"))
    return Found(calls, flushed, told=tuple(told))


def _mine(about: os.stat_result) -> bool:
    return os.geteuid() in (about.st_uid, 0)


def _closed(databases: Path) -> list[str]:
    """Directory and databases for their owner only; says what was not, and what is somebody else's."""
    told = []
    here = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if (mode := stat.S_IMODE(os.fstat(here).st_mode)) & 0o077:
            os.fchmod(here, 0o700)
            told.append(f"{databases} was open to others (mode {mode:o}); it is 0700 now")
    finally:
        os.close(here)
    for path in islice(Path().glob("*.db*"), _NAMES):
        about = path.lstat()
        if not _mine(about):
            said = f"{databases / path} belongs to user {about.st_uid}, its directory to {os.geteuid()}"
            told.append(f"{said}: looked at no further; take it away, or chown it")
        elif stat.S_ISREG(about.st_mode) and about.st_mode & 0o077:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.fchmod(file, 0o600)
            finally:
                os.close(file)
    return told


def _open(name: str) -> sqlite3.Connection:
    core = sqlite3.connect(f"file:{name}?mode=rw", uri=True, timeout=BUSY, isolation_level=None)
    core.execute("pragma trusted_schema=off")
    return core


def _rows(flush: bool) -> tuple[int, bool]:
    """How many calls there are, and whether they were deleted. Raises sqlite3.Error."""
    with closing(_open(CORE)) as core:
        (verdict,) = core.execute("pragma quick_check(1)").fetchone()
        if verdict != "ok":
            raise _torn(verdict)
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


def _torn(verdict: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(verdict)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _put_aside(save: bool) -> int:
    """Have a new database, to ``save`` with the rows that can be read; how many.

    Raises OSError and sqlite3.Error.
    """
    rows: list[tuple[Any, ...]] = []
    Path(CORE).rename(TORN)
    columns = ", ".join(_ROW)
    if save:
        with suppress(sqlite3.Error), closing(_open(TORN)) as torn:
            for row in torn.execute(f"select {columns} from recovery not indexed"):
                rows.append(row)  # what was read before it breaks counts
    os.close(os.open(CORE, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    if rows:
        with closing(_open(CORE)) as core:
            core.execute(f"create table recovery ({columns})")
            core.executemany(f"insert into recovery values ({', '.join('?' * len(_ROW))})", rows)
    return len(rows)


def _write(file: Path, recoveries: Recoveries) -> None:
    """The file as a whole, for everybody to read. Raises OSError."""
    with suppress(FileExistsError):
        file.parent.mkdir()
        file.parent.chmod(0o755)
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    temporary = f".{file.name}.{os.urandom(8).hex()}"
    try:
        _of_mine_alone(folder, file.parent)
        new = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            with os.fdopen(new, "wb") as written:
                written.write(json.dumps(asdict(recoveries)).encode() + b"\n")
                os.fchmod(new, 0o644)
            os.replace(temporary, file.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
            raise
    finally:
        os.close(folder)


# -- the command ------------------------------------------------------------------------------------------


def places(config: Path | None) -> tuple[Path, Path, list[str]]:
    """``freeswitch.db`` and ``freeswitch.recovery_file``, and why they are not as configured.

    No more of the configuration is read, and no fault in it counts: it may be being edited.
    """
    table: Any = {}
    problems = []
    try:
        if config is not None:
            table = _table(config)
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        problems.append(f"{config}: {why}; {DATABASES} and {FILE} are taken")
    found = []
    for key, usual, end in (("db", DATABASES, ""), ("recovery_file", FILE, SUFFIX)):
        value = table.get(key, usual)
        if not (isinstance(value, str) and value.startswith("/") and value.endswith(end)) or "\0" in value:
            wanted = f"an absolute path{end and f' that ends in {end}'}"
            problems.append(f"freeswitch.{key} is {value!r:.200} instead of {wanted}; {usual} is taken")
            value = usual
        found.append(Path(value))
    return found[0], found[1], problems


def _table(config: Path) -> dict[str, Any]:
    """``[freeswitch]``. Raises OSError, and ValueError or RecursionError where it is not to be understood."""
    with config.open("rb") as file:
        text = file.read(MAX_CONFIG + 1)
    if len(text) > MAX_CONFIG:
        raise ValueError(f"it has more than {MAX_CONFIG} bytes")
    table = tomllib.loads(text.decode()).get("freeswitch", {})
    if not isinstance(table, dict):
        raise ValueError("freeswitch is no table")
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """``eslbot recovery``; the exit code."""
    parser = argparse.ArgumentParser(
        prog="eslbot recovery",
        description="Shows how often FreeSWITCH has died with calls up since this host's boot, and what "
        "became of them. With --before-start: what FreeSWITCH's unit runs before each start "
        "(deploy/freeswitch.conf).",
        epilog=f"A FreeSWITCH that died takes its calls up again. When it dies {CRASHES} times within "
        f"{WITHIN:g} s, one of them may be the cause, so it starts without them. Whatever is wrong with the "
        "database or the configuration is said, and the exit code is 0: FreeSWITCH has to start.",
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        default=os.environ.get("ESLBOT_CONFIG") or None,
        help="the TOML configuration, of which freeswitch.db and freeswitch.recovery_file are read "
        "(ESLBOT_CONFIG; default: none, and the usual places)",
    )
    parser.add_argument(
        "--before-start",
        action="store_true",
        help="count a start, close the databases to others, and delete the calls where they are in a loop of "
        "crashes. Only while FreeSWITCH does not run",
    )
    parser.add_argument(
        "--user",
        default="",
        help="with --before-start, as root: FreeSWITCH's user. freeswitch.db is made for that one where it "
        "is missing, and not looked at where it is another one's",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document, for programs")
    asked = parser.parse_args(arguments)
    return run(asked.config, before=asked.before_start, user=asked.user, as_json=asked.json)


def run(config: Path | None, *, before: bool = False, user: str = "", as_json: bool = False) -> int:
    """What the command does; the exit code."""
    databases, file, problems = places(config)
    if before:
        lines = list(before_start(databases, file, user=user, problems=problems))
        if as_json:
            print(json.dumps({"told": lines}, ensure_ascii=False), flush=True)
        for line in [] if as_json else lines:
            print(f"eslbot recovery: {line}", flush=True)
        return 0
    for problem in problems:
        told = (
            json.dumps({"warning": problem}, ensure_ascii=False) if as_json else f"eslbot recovery: {problem}"
        )
        print(told, file=sys.stderr)
    try:
        known = read(file)
    except RecoveryFileError as error:
        failed = {"error": f"{error}; {REMEDY}", "problems": [], "exit_code": 1}
        told = json.dumps(failed, ensure_ascii=False) if as_json else f"eslbot recovery: {error}; {REMEDY}"
        print(told, file=sys.stderr)
        return 1
    if as_json:
        print(json.dumps({"file": str(file), "counted": file.exists(), **asdict(known)}, ensure_ascii=False))
        return 0
    print(shown(known))
    if not file.exists():
        print(f"{file} is not there: no start of FreeSWITCH was counted since this host's boot")
    return 0


def shown(known: Recoveries) -> str:
    """For people."""
    lines = [
        f"restarts with calls up   {known.restarts}{_when(known.last_restart)}",
        f"calls there were then    {known.calls}",
        f"crash loops ended        {known.flushes}{_when(known.last_flush)}",
        f"calls dropped by that    {known.dropped}",
    ]
    return "\n".join([*lines, *([f"at the last start        {known.problem}"] if known.problem else [])])


def _when(moment: float | None) -> str:
    return "" if moment is None else time.strftime(", the last at %Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))


if __name__ == "__main__":
    raise SystemExit(main())
