"""Recordings: where they are written, what room there is, and what callers are told before."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from eslbot.config.model import BEEP, Workspace
from eslbot.doctor.findings import Finding, Severity, error, note, ok, unknown, warning
from eslbot.doctor.host import NotPermitted, first_closed_directory, missing_rights
from eslbot.doctor.site import Site

_NOT_MADE = "calls go on, and are not recorded"


def prepared(site: Site) -> Iterator[Finding]:
    """The directory, its room, announcements and keys."""
    recorded = [workspace for workspace in site.config.workspaces.values() if workspace.record]
    if not recorded:
        yield ok("record", "no workspace is recorded")
        return
    if not site.switch_is_here:
        yield unknown("recording.directory", "it is the relay's, beside FreeSWITCH", "run doctor there")
        return
    path = Path(site.config.recording.directory)
    writable = _writable(site, path)
    yield writable
    if writable.severity is Severity.OK:
        yield from _closed(path)
        yield _free_space(site, path)
    for workspace in recorded:
        yield from _own(site, workspace)


def _writable(site: Site, path: Path) -> Finding:
    """The relay makes the directory itself, where it may."""
    looked_at, user = f"recording.directory {path}", site.user.name
    make = f"install -d -o {user} -m 0700 {path}"
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        closed = first_closed_directory(site.user, str(there))
        missing = "" if closed else missing_rights(site.user, str(there), "drwx" if there == path else "dwx")
    except NotPermitted as cannot:
        return unknown(looked_at, str(cannot), "run doctor as root")
    except OSError as failed:
        return error(looked_at, str(failed), _NOT_MADE, f"look at the file system of {there}")
    if closed:
        return error(looked_at, f"{user} may not enter {closed}", _NOT_MADE, make)
    if missing:
        found = (
            f"{user} may not write it" if there == path else f"no such directory, and {user} may not make it"
        )
        return error(looked_at, found, _NOT_MADE, make)
    return ok(looked_at, f"{user} can write it" if there == path else f"{user} can make it")


def _closed(path: Path) -> Iterator[Finding]:
    if not path.exists():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield warning(
            f"recording.directory {path}",
            f"others may enter it (mode {mode:o})",
            "customers are heard there",
            f"chmod 0700 {path}",
        )


def _free_space(site: Site, path: Path) -> Finding:
    kept = site.config.recording
    while not path.exists() and path != path.parent:
        path = path.parent
    free = shutil.disk_usage(path).free
    looked_at = f"the room at {path}"
    if free < kept.min_free:
        return error(
            looked_at,
            f"{free >> 20} MB free, less than recording.min_free ({kept.min_free >> 20} MB)",
            _NOT_MADE,
            "make room, or lower recording.keep, recording.max_bytes or recording.min_free",
        )
    return ok(looked_at, f"{free >> 20} MB free; below {kept.min_free >> 20} MB nothing is recorded")


def _own(site: Site, workspace: Workspace) -> Iterator[Finding]:
    own = workspace.recording
    looked_at = f"the announcement of {workspace.name}"
    if own.announcement is None:
        yield note(
            looked_at,
            "none: callers are not told that they are recorded",
            "in many places they have to be",
            "set recording.announcement, or have the bot say it",
        )
    elif own.announcement == BEEP:
        yield ok(looked_at, "a beep, before the bot")
    else:
        yield _file(site, looked_at, own.announcement)
    if own.key is None:
        yield note(
            f"recording.key of {workspace.name}",
            "none: whoever reads the disk hears its customers",
            "recordings are not sealed",
            "set recording.key; make one with: openssl rand -hex 32",
        )
    else:
        yield ok(f"recording.key of {workspace.name}", "recordings are sealed")


def _file(site: Site, looked_at: str, path: str) -> Finding:
    from eslbot.recording.announcement import UnusableAnnouncement, announcement_audio

    unrecorded = "no call of this workspace is recorded"
    try:
        length = len(announcement_audio(path)) / 16000
        if "r" in missing_rights(site.user, path, "r"):
            found = f"{site.user.name} may not read {path}"
            return error(looked_at, found, unrecorded, f"let {site.user.name} read it")
    except UnusableAnnouncement as unusable:
        return error(looked_at, str(unusable), unrecorded, "mend the file")
    except NotPermitted as cannot:
        return unknown(looked_at, str(cannot), "run doctor as root")
    except OSError as failed:
        return unknown(looked_at, str(failed), "run doctor as root")
    return ok(looked_at, f"{length:.1f} s, before the bot")
