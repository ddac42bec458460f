"""FreeSWITCH comes back when it dies: what it needs for that, who starts it, and how often it had to."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from eslbot.doctor.checks.profile import restart
from eslbot.doctor.findings import Finding, error, note, ok, unknown, warning
from eslbot.doctor.host import file_system
from eslbot.doctor.logs import log_of
from eslbot.doctor.site import Site
from eslbot.recovery.core_database import CORE
from eslbot.recovery.paths import DATABASES
from eslbot.recovery.state import REMEDY, RecoveryFileError, read

#: Seconds: what happened longer ago is no finding any more.
LATELY = 86_400.0
#: There, systemd runs (sd_booted(3)).
SYSTEMD = Path("/run/systemd/system")
#: Seconds for systemd's answer.
ASKING = 5.0
STARTUP = "sofia recover"

_LOST = "when FreeSWITCH dies, its calls are lost"
_PRIVATE = "every variable of each call stands there, numbers and signed identities"
_VOLATILE = frozenset({"tmpfs", "ramfs"})
_RESTARTS = frozenset({"always", "on-failure", "on-abnormal", "on-abort"})
_DROP_IN = "put deploy/freeswitch.conf in place (scripts/install), then systemctl daemon-reload"


def prepared(site: Site) -> Iterator[Finding]:
    """Its configuration, its core database, its unit, and what its host has noted of crashes."""
    yield from _configured(site)
    if not site.switch_is_here:
        elsewhere = "FreeSWITCH is another host"
        yield unknown("FreeSWITCH's core database, unit and crashes", elsewhere, "run doctor there")
        return
    yield from _database(site)
    yield from _unit(site)
    yield from _crashes(site)


def _configured(site: Site) -> Iterator[Finding]:
    if site.switch_state is None:
        yield unknown(
            "track-calls, api_on_startup", "FreeSWITCH could not be asked", "mend `event-socket` first"
        )
        return
    tracked = site.switch_state.profile_settings.get("track-calls")
    if tracked != "true":
        yield error(
            "the profile's track-calls", f"{tracked or 'not set'} instead of true", _LOST, restart(site)
        )
    startup = site.switch_state.variables.get("api_on_startup", "")
    if startup != STARTUP:
        yield error("api_on_startup", f"{startup or 'not set'} instead of {STARTUP}", _LOST, restart(site))
    if tracked == "true" and startup == STARTUP:
        yield ok("track-calls, api_on_startup", "calls are kept, and taken up at the start")


def _database(site: Site) -> Iterator[Finding]:
    wanted = site.config.freeswitch.db
    actual = site.switch_state.variables.get("db_dir", "") if site.switch_state is not None else ""
    path = Path(actual or wanted)
    looked_at = f"FreeSWITCH's databases, {path}"
    if actual and actual.rstrip("/") != wanted:
        yield warning(
            looked_at,
            f"are not where freeswitch.db says: {wanted}",
            "`eslbot recovery` looks there before each start: it would end no loop of crashes",
            f'start FreeSWITCH with -db {wanted}, or set freeswitch.db = "{actual}"',
        )
    try:
        status = path.lstat()
        # A directory that is FreeSWITCH's alone cannot be entered by doctor, unless root runs it.
        core = (path / CORE).lstat() if os.access(path, os.X_OK) else None
    except FileNotFoundError:
        yield warning(looked_at, "are not there", _LOST, f"start FreeSWITCH, with -db {wanted}")
        return
    except OSError as failed:
        yield unknown(looked_at, failed.strerror or str(failed), "run doctor as root")
        return
    if not stat.S_ISDIR(status.st_mode):
        remedy = f"give FreeSWITCH a directory: -db {wanted}"
        yield warning(looked_at, "is no directory of its own", _PRIVATE, remedy)
        return
    yield from _rights(site, path, status, core)
    kind = file_system(path)
    if kind is None:
        yield unknown(looked_at, "which file system it is on cannot be known")
    elif kind not in _VOLATILE:
        yield note(
            looked_at,
            f"are on {kind}",
            "a slow disk delays a restart that callers hear, and behind a reboot calls long over are tried",
            f'freeswitch.db = "{DATABASES}", and scripts/install',
        )
    elif not stat.S_IMODE(status.st_mode) & 0o077:
        yield ok(looked_at, f"FreeSWITCH's alone, on {kind}")


def _rights(site: Site, path: Path, status: os.stat_result, core: os.stat_result | None) -> Iterator[Finding]:
    """Whether the directory and the core database are FreeSWITCH's alone."""
    looked_at = f"FreeSWITCH's databases, {path}"
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        yield warning(looked_at, f"is open to others (mode {mode:o})", _PRIVATE, f"chmod 700 {path}")
    uid = site.freeswitch.uid if site.freeswitch is not None else None
    if uid is not None and status.st_uid != uid:
        yield warning(
            looked_at,
            f"belongs to user {status.st_uid}, and FreeSWITCH runs as {uid}",
            "it cannot keep its calls there, or somebody else can read them",
            f"chown -R {uid} {path}",
        )
    if core is not None and core.st_mode & 0o077:
        found = f"mode {stat.S_IMODE(core.st_mode):o}"
        remedy = f"chmod 600 {path / CORE}; {_DROP_IN}: it does so before each start"
        if mode & 0o077:
            yield warning(str(path / CORE), found, _PRIVATE, remedy)
        else:
            yield note(str(path / CORE), found, "its directory alone closes it to others", remedy)


def _unit(site: Site) -> Iterator[Finding]:
    looked_at = "who starts FreeSWITCH again"
    if not SYSTEMD.is_dir():
        yield note(
            looked_at,
            "no systemd runs here",
            f"{_LOST}, unless something else starts it again at once",
            "a loop of `eslbot recovery --before-start` and FreeSWITCH: docs/deploy.md",
        )
        return
    unit = site.freeswitch.unit if site.freeswitch is not None else None
    if unit is None and site.freeswitch is not None:
        yield warning(
            looked_at, "it is no service of systemd's", _LOST, "start it by its unit, freeswitch.service"
        )
        return
    unit = unit or "freeswitch.service"
    try:
        properties = _properties_of(unit)
    except (OSError, subprocess.SubprocessError) as failed:
        yield unknown(looked_at, f"systemctl show {unit}: {failed}", "run doctor as root")
        return
    if properties.get("LoadState") != "loaded":
        yield warning(looked_at, f"there is no {unit}", _LOST, _DROP_IN)
        return
    sound = True
    if properties.get("Restart") not in _RESTARTS:
        sound = False
        found = f"nobody: Restart={properties.get('Restart', 'no')} in {unit}"
        yield error(looked_at, found, _LOST, f"systemctl edit {unit}: [Service] Restart=always")
    elif (pause := properties.get("RestartUSec", "")) not in ("0", ""):
        sound = False
        why = "callers hear nothing for that much longer"
        yield warning(
            looked_at, f"{unit}, after {pause}", why, f"systemctl edit {unit}: [Service] RestartSec=0"
        )
    if "eslbot.recovery" not in properties.get("ExecStartPre", "") + properties.get("ExecStartPreEx", ""):
        sound = False
        why = "a call that kills FreeSWITCH does so for ever, and a database torn by a crash keeps it down"
        yield warning(looked_at, f"{unit}, without `eslbot recovery` before it", why, _DROP_IN)
    if sound:
        yield ok(looked_at, f"{unit}, at once")


def _properties_of(unit: str) -> dict[str, str]:
    """What systemd has of a unit. Raises OSError, SubprocessError."""
    wanted = "LoadState,Restart,RestartUSec,ExecStartPre,ExecStartPreEx"
    done = subprocess.run(
        ["systemctl", "show", "--property", wanted, "--", unit],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=ASKING,
        check=True,
    )
    return dict(line.partition("=")[::2] for line in done.stdout.splitlines())


def _crashes(site: Site) -> Iterator[Finding]:
    looked_at = "FreeSWITCH's crashes"
    file = Path(site.config.freeswitch.recovery_file)
    try:
        known = read(file)
    except RecoveryFileError as failed:
        yield unknown(looked_at, str(failed), REMEDY)
        return
    if not file.exists():
        yield note(
            looked_at,
            f"not counted since the host's boot: {file} is not there",
            "`eslbot recovery` was not run before a start of FreeSWITCH: it would end no loop of crashes",
            _DROP_IN,
        )
        return
    look = f"dmesg and {log_of(None, 'freeswitch')} say in what it died; docs/operations.md"
    if _lately(known.last_flush):
        yield warning(
            looked_at,
            f"a loop of them within the last day: {known.dropped} calls were dropped to end it",
            "one of the calls may have been the cause, and all of their customers were cut off",
            f"{look}#eslbotswitchflushed",
        )
    elif _lately(known.last_restart):
        yield warning(
            looked_at,
            f"within the last day; {known.restarts} since the host's boot, with {known.calls} calls up",
            "each is some two seconds without sound for every caller, and loses those that ring",
            f"{look}#eslbotswitchrestarted",
        )
    else:
        yield ok(looked_at, "none lately" if known.restarts else "none since the host's boot")
    if known.problem:
        yield warning(
            f"the last start of FreeSWITCH, {file}",
            known.problem,
            "what `eslbot recovery` met before it",
            "mend what it names, and look again behind the next start",
        )


def _lately(moment: float | None) -> bool:
    return moment is not None and abs(time.time() - moment) < LATELY
