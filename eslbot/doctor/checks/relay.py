"""The relay beside FreeSWITCH: it is there for mod_audio_stream, and both reach the line files."""

from __future__ import annotations

import http.client
import shutil
from collections.abc import Iterator
from pathlib import Path

from eslbot.doctor.findings import Finding, error, note, ok, unknown, warning
from eslbot.doctor.host import (
    NotPermitted,
    User,
    first_closed_directory,
    group_name,
    is_own,
    missing_rights,
    sysctl,
)
from eslbot.doctor.logs import log_of
from eslbot.doctor.site import Site
from eslbot.relay.control import HEALTH, HEALTHY

#: Of a call at one time: two rings of a minute, L16 at 8,000 Hz.
BYTES_A_CALL = 2 * 1024 * 1024
#: Files of a call that are watched, and their events a second: two a read, 50 reads a second, two rings.
WATCHES_A_CALL, EVENTS_A_CALL = 2, 200
#: inotify instances beside a relay's one a process, of the same user.
SPARE_INSTANCES = 8
#: Bytes of an answer that are looked at.
MAX_ANSWER = 64

_LOST = "the caller cannot be connected to any bot and is handed off at once"
_SILENT = "the caller does not hear the bot"
_RIGHTS = {"r": "read", "w": "write", "x": "enter"}
_ELSEWHERE = "it is beside FreeSWITCH, on another host", "run doctor there"


def answers(site: Site) -> Iterator[Finding]:
    """A relay listens where mod_audio_stream is sent."""
    address = site.config.relay.listen
    looked_at = f"relay.listen {address}"
    if not site.switch_is_here and is_own(address.ip):
        yield unknown(looked_at, *_ELSEWHERE)
        return
    connection = http.client.HTTPConnection(*address.pair, timeout=site.patience)
    try:
        connection.request("GET", HEALTH)
        answer = connection.getresponse()
        said = f"HTTP {answer.status}" if answer.status != 200 else ""
        healthy = not said and answer.read(MAX_ANSWER) == HEALTHY
    except TimeoutError:
        yield error(looked_at, f"does not answer within {site.patience:g} s", _LOST, _restart(site))
        return
    except http.client.HTTPException:
        said, healthy = "something that is no HTTP", False
    except OSError as failed:
        yield error(looked_at, f"nobody answers: {failed.strerror or failed}", _LOST, _restart(site))
        return
    finally:
        connection.close()
    if healthy:
        yield ok(looked_at, "answers, and is a relay")
    else:
        yield error(
            looked_at,
            f"answers {said or 'something else'} to GET {HEALTH}, and not as a relay does",
            "mod_audio_stream is connected to something else",
            f"look who listens there (ss -ltnp), and give relay.listen another port in {site.path}",
        )


def _restart(site: Site) -> str:
    unit = "eslbot" if site.config.relay.processes else "eslbot-relay"
    return (
        f"systemctl status {unit}; why it ended: {log_of(site.relay, unit)}; then `systemctl restart {unit}`"
    )


def lines(site: Site) -> Iterator[Finding]:
    """One directory for both: the relay writes there, FreeSWITCH reads; there is room."""
    path = site.config.relay.directory
    looked_at = f"relay.directory {path}"
    if not site.switch_is_here:
        yield unknown(looked_at, *_ELSEWHERE)
        return
    found = list(_rights(site, path))
    if not found:
        found = [*_readable_by_switch(site, path), *_same_directory(site, path), *_free_space(site, path)]
    yield from found or [ok(looked_at, f"{site.user.name} writes it, FreeSWITCH reads it; there is room")]


def _rights(site: Site, path: str) -> Iterator[Finding]:
    switch = _switch_user(site)
    users = [(site.user, "eslbot", "drwx")]
    if switch is not None and switch.uid != site.user.uid:
        users.append((switch, "FreeSWITCH", "dx"))
    make = f"install -d -o {site.user.name} -g {_group(switch)} -m 2750 {path}"
    for user, process, rights in users:
        looked_at = f"relay.directory {path}, for {process} ({user.name})"
        try:
            closed = first_closed_directory(user, path)
            missing = "" if closed else missing_rights(user, path, rights)
        except NotPermitted as cannot:
            yield unknown(looked_at, str(cannot), "run doctor as root")
            continue
        except OSError as failed:
            yield error(looked_at, str(failed), _SILENT, f"look at the file system of {path}")
            continue
        if closed:
            remedy = f"let others pass: chmod o+x {closed}; or choose a directory that both reach"
            yield error(looked_at, f"cannot enter {closed}", _SILENT, remedy)
        elif "d" in missing:
            yield error(looked_at, "no such directory", _SILENT, make)
            return
        elif missing:
            directory = Path(path).stat()
            may_not = " nor ".join(_RIGHTS[right] for right in missing)
            mode, group = directory.st_mode & 0o7777, group_name(directory.st_gid)
            found = f"may not {may_not} (mode {mode:o}, group {group})"
            remedy = f"chown {site.user.name}:{_group(switch)} {path}; chmod 2750 {path}"
            yield error(looked_at, found, _SILENT, remedy)


def _switch_user(site: Site) -> User | None:
    """Whom FreeSWITCH runs as; None where that is not to be seen, or has no name here (a container's)."""
    uid = site.freeswitch.uid if site.freeswitch is not None else None
    try:
        return None if uid is None else User.numbered(uid)
    except KeyError:
        return None


def _group(switch: User | None) -> str:
    return "freeswitch" if switch is None else group_name(switch.gid)


def _readable_by_switch(site: Site, path: str) -> Iterator[Finding]:
    """Line files are for owner and group (0640): FreeSWITCH has to be of the group that they get."""
    switch = _switch_user(site)
    if switch is None or switch.uid in (0, site.user.uid):
        return
    directory = Path(path).stat()
    gid = directory.st_gid if directory.st_mode & 0o2000 else site.user.gid
    if gid not in switch.groups:
        yield error(
            f"the line files in {path}",
            f"get the group {group_name(gid)}, which {switch.name} is not in: FreeSWITCH may not read them",
            _SILENT,
            f"chown {site.user.name}:{group_name(switch.gid)} {path}; chmod 2750 {path}",
        )


def _same_directory(site: Site, path: str) -> Iterator[Finding]:
    """systemd gives a service a /tmp of its own, and a container has its own file systems."""
    processes = [p for p in (site.relay, site.service, site.freeswitch) if p is not None]
    seen = {identity for p in processes if (identity := p.identity_of(path)) is not None}
    if len(seen) > 1:
        yield error(
            f"relay.directory {path}",
            "is another directory for FreeSWITCH than for eslbot (a private /tmp, or a container)",
            _SILENT,
            "choose a relay.directory outside /tmp and /var/tmp, or set PrivateTmp=no in both services",
        )


def _free_space(site: Site, path: str) -> Iterator[Finding]:
    free, needed = shutil.disk_usage(path).free, BYTES_A_CALL * site.calls
    if free < needed:
        yield warning(
            f"the room at {path}",
            f"{free >> 20} MB free; {site.calls} calls can need {needed >> 20} MB",
            "on a full disk the bot cannot be heard",
            "make room, or give the directory a file system of its own (a tmpfs is best)",
        )


def inotify(site: Site) -> Iterator[Finding]:
    """What the kernel lets a relay watch: its clock is FreeSWITCH's reads."""
    if not site.switch_is_here:
        yield unknown("fs.inotify", *_ELSEWHERE)
        return
    processes = max(1, site.config.relay.processes)
    a_process = -(-site.calls // processes)
    for name, needed, why, grade in (
        ("max_user_instances", processes + SPARE_INSTANCES, "a relay without one does not start", error),
        (
            "max_user_watches",
            processes + WATCHES_A_CALL * site.calls,
            "calls beyond get no line file: they are handed off at once",
            error,
        ),
        (
            "max_queued_events",
            EVENTS_A_CALL * a_process,
            "a relay that stalls for a second does not know how far FreeSWITCH has read, and goes by the "
            "wall clock, which can be later",
            note,
        ),
    ):
        value = sysctl(f"fs.inotify.{name}")
        looked_at = f"fs.inotify.{name}"
        if value is None or not value.isdecimal():
            yield unknown(looked_at, "cannot be read")
        elif int(value) < needed:
            remedy = f"sysctl -w fs.inotify.{name}={needed}, and the same in /etc/sysctl.d/eslbot.conf"
            yield grade(looked_at, f"{value}; {site.calls} calls can need {needed}", why, remedy)
        else:
            yield ok(looked_at, f"{value}; {needed} are needed")
