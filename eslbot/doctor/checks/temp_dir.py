"""FreeSWITCH's -temp directory: mod_audio_stream writes the bot's speech there, eslbot takes and plays it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from eslbot.doctor.findings import Finding, error, ok, unknown, warning
from eslbot.doctor.host import CannotLook, User, first_closed, group_name, lacks
from eslbot.doctor.site import Site

_WHY = "eslbot cannot take up the bot's speech: it falls back to playing by path, with gaps"
#: Of a call at one time: about a minute of G.711 and its originals.
BYTES_A_CALL, FILES_A_CALL = 2 * 1024 * 1024, 64

_RIGHTS = {"r": "read", "w": "write", "x": "enter"}


def shared(site: Site) -> Iterator[Finding]:
    """One directory for both, which both may use, with room."""
    path = site.config.freeswitch.temp_dir
    looked_at = f"freeswitch.temp_dir {path}"
    yield from _in_force(site, path)
    if not site.switch_is_here:
        yield unknown(
            looked_at, "FreeSWITCH is another host: speech is played by path, without this directory"
        )
        return
    found = list(_rights(site, path))
    if not found:
        found = [*_same(site, path), *_umask(site, path), *_room(site, path)]
    yield from found or [ok(looked_at, f"{site.user.name} can read and write it; there is room")]


def _in_force(site: Site, path: str) -> Iterator[Finding]:
    if site.looked is None:
        yield unknown("FreeSWITCH's -temp", "FreeSWITCH could not be asked", "mend `event-socket` first")
        return
    running = site.looked.variables.get("temp_dir", "").rstrip("/")
    if not running:
        yield unknown("FreeSWITCH's -temp", "FreeSWITCH did not say")
    elif running != path:
        yield error(
            "FreeSWITCH's -temp",
            f"{running} instead of {path} (freeswitch.temp_dir)",
            "mod_audio_stream puts the bot's speech where eslbot does not look: the caller does not hear it",
            f"start FreeSWITCH with -temp {path}, or set freeswitch.temp_dir to {running} and "
            "`systemctl reload eslbot`",
        )


def _rights(site: Site, path: str) -> Iterator[Finding]:
    for user, process in _users(site):
        looked_at = f"freeswitch.temp_dir {path}, for {process} ({user.name})"
        try:
            closed = first_closed(user, path)
            missing = "" if closed else lacks(user, path, "drwx")
            if closed:
                yield error(
                    looked_at,
                    f"cannot enter {closed}",
                    _WHY,
                    f"choose a temp_dir that both reach, or let others pass: chmod o+x {closed}",
                )
            elif "d" in missing:
                yield error(
                    looked_at,
                    "no such directory",
                    _WHY,
                    f"install -d -o {_owner(site)} -g {group_name(site.user.gid)} -m 2770 {path}",
                )
            elif missing:
                directory = Path(path).stat()
                group = group_name(directory.st_gid)
                yield error(
                    looked_at,
                    f"may not {' nor '.join(_RIGHTS[right] for right in missing)} "
                    f"(mode {directory.st_mode & 0o7777:o}, group {group})",
                    _WHY,
                    f"chown {_owner(site)}:{group_name(site.user.gid)} {path}; chmod 2770 {path}",
                )
        except CannotLook as cannot:
            yield unknown(looked_at, str(cannot), "run doctor as root")
        except OSError as failed:
            yield error(looked_at, str(failed), _WHY, f"look at the file system of {path}")


def _owner(site: Site) -> str:
    """FreeSWITCH's user, who writes the files."""
    uid = site.freeswitch.uid if site.freeswitch is not None else None
    try:
        return "freeswitch" if uid is None else User.numbered(uid).name
    except KeyError:
        return str(uid)


def _users(site: Site) -> Iterator[tuple[User, str]]:
    yield site.user, "eslbot"
    if site.freeswitch is not None and (uid := site.freeswitch.uid) is not None and uid != site.user.uid:
        try:
            yield User.numbered(uid), "FreeSWITCH"
        except KeyError:
            return  # a container's user: it has no name here, and no rights that could be looked at


def _same(site: Site, path: str) -> Iterator[Finding]:
    """systemd gives a service a /tmp of its own, and a container has its own file systems."""
    processes = [process for process in (site.service, site.freeswitch) if process is not None]
    seen = {identity for p in processes if (identity := p.identity_of(path)) is not None}
    if len(seen) > 1:
        yield error(
            f"freeswitch.temp_dir {path}",
            "is another directory for FreeSWITCH than for eslbot (a private /tmp, or a container)",
            _WHY,
            "choose a temp_dir outside /tmp and /var/tmp, or set PrivateTmp=no in both services",
        )


def _umask(site: Site, path: str) -> Iterator[Finding]:
    """Files of another user are eslbot's to read by their group, or not at all."""
    process = site.freeswitch
    if process is None or process.uid in (None, site.user.uid) or site.user.uid == 0:
        return
    umask, gids = process.status("Umask"), process.status("Gid")
    if umask is None or gids is None:
        return
    directory = Path(path).stat()
    gid = directory.st_gid if directory.st_mode & 0o2000 else int(gids.split()[-1])
    closed = int(umask, 8) & (0o040 if gid in site.user.groups else 0o004)
    if closed:
        yield error(
            f"the files that FreeSWITCH writes to {path}",
            f"umask {umask}, group {group_name(gid)}: {site.user.name} may not read them",
            _WHY,
            f"give FreeSWITCH's service UMask=0027, chgrp the directory to a group of {site.user.name}, and "
            f"chmod 2770 {path}",
        )


def _room(site: Site, path: str) -> Iterator[Finding]:
    system = os.statvfs(path)
    free, files = system.f_bavail * system.f_frsize, system.f_favail
    bytes_needed, files_needed = BYTES_A_CALL * site.calls, FILES_A_CALL * site.calls
    if free < bytes_needed:
        yield warning(
            f"the room at {path}",
            f"{free >> 20} MB free; {site.calls} calls can need {bytes_needed >> 20} MB",
            "on a full disk the bot cannot be heard",
            "make room, or give the directory a file system of its own (a tmpfs is fine)",
        )
    if system.f_files and files < files_needed:
        yield warning(
            f"the inodes at {path}",
            f"{files} free; {site.calls} calls can need {files_needed}",
            "without inodes the bot cannot be heard",
            "remove small files, or give the directory a file system of its own",
        )
