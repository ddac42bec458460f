"""This machine, as psutil, ``/proc`` and a few system calls tell of it; nothing here changes anything."""

from __future__ import annotations

import grp
import os
import pwd
import re
import socket
import stat
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from eslbot.config.model import IP, Address

#: Seconds for one question about another user's rights.
PROBE_TIMEOUT = 5.0

_LISTEN = "0A"
# `test` asks the kernel, so it knows of ACLs and of file systems mounted read-only.
_PROBE = 'cd /; for right in $1; do test "-$right" "$2" || printf %s "$right"; done'


@dataclass(frozen=True, slots=True)
class User:
    """A user with all groups."""

    name: str
    uid: int
    gid: int
    groups: frozenset[int]

    @classmethod
    def named(cls, name: str) -> User:
        """Raises KeyError where there is no such user."""
        return cls._of(pwd.getpwnam(name))

    @classmethod
    def numbered(cls, uid: int) -> User:
        """Raises KeyError where there is no such user."""
        return cls._of(pwd.getpwuid(uid))

    @classmethod
    def _of(cls, entry: pwd.struct_passwd) -> User:
        groups = frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
        return cls(entry.pw_name, entry.pw_uid, entry.pw_gid, groups)

    @property
    def is_me(self) -> bool:
        """Whether this process runs as that user."""
        return self.uid == os.geteuid()


class NotPermitted(Exception):
    """This user may not ask for another user's rights."""


def missing_rights(user: User, path: str, rights: str) -> str:
    """Which of ``rights`` (letters of ``test``: d, r, w, x) ``user`` does not have on ``path``.

    Raises :class:`NotPermitted` where this process cannot become that user, and OSError.
    """
    if not user.is_me and os.geteuid() != 0:
        raise NotPermitted(f"only root can look as {user.name}")
    command = ["/bin/sh", "-c", _PROBE, "look", " ".join(rights), path]
    other: dict[str, Any] = {}
    if not user.is_me:
        other = {"user": user.uid, "group": user.gid, "extra_groups": sorted(user.groups)}
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, capture_output=True, text=True, timeout=PROBE_TIMEOUT, check=True, **other
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{path} did not answer within {PROBE_TIMEOUT:g} s") from None
    except subprocess.CalledProcessError as failed:
        raise OSError(f"looking at {path} ended with {failed.returncode}") from None
    return done.stdout


def first_closed_directory(user: User, path: str) -> str | None:
    """The first directory on the way to ``path`` that ``user`` may not enter, if any."""
    for parent in reversed(Path(path).parents):
        if missing_rights(user, str(parent), "x"):
            return str(parent)
    return None


def readable_by_all(path: Path) -> bool:
    """Whether anybody of this machine may read the file or list the directory, by its mode and its parents'.

    Raises OSError where it is not there, or this user may not look.
    """
    found = path.stat()
    return bool(found.st_mode & stat.S_IROTH) and all(
        parent.stat().st_mode & stat.S_IXOTH for parent in path.resolve().parents
    )


def group_name(gid: int) -> str:
    """For people."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def is_own(ip: IP) -> bool:
    """Whether ``ip`` is an address of this machine."""
    if ip.is_unspecified or ip.is_loopback:
        return True
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(ip), 0))
        except OSError:
            return False
    return True


def sysctl(name: str) -> str | None:
    """A kernel setting such as ``net.ipv4.tcp_syn_retries``; None where it cannot be read."""
    try:
        return Path("/proc/sys", *name.split(".")).read_text().strip()
    except OSError:
        return None


def file_system(path: Path) -> str | None:
    """The kind of file system that ``path`` is on, such as ``tmpfs``; None where it cannot be known."""
    try:
        device = path.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts:  # proc(5): … major:minor root mount-point options … - kind source options
        words, _, kind = line.partition(" - ")
        if words.split()[2:3] == [wanted]:
            return kind.partition(" ")[0]
    return None


@dataclass(frozen=True, slots=True)
class Process:
    """A process. Each property is None where it is gone or may not be examined by this user."""

    pid: int

    @property
    def _folder(self) -> Path:
        return Path("/proc", str(self.pid))

    # What psutil has not, or of one's own processes alone, is read from proc(5): limits, cgroups, signals.

    def status(self, field: str) -> str | None:
        """A line of ``/proc/PID/status``."""
        try:
            text = (self._folder / "status").read_text()
        except OSError:
            return None
        match = re.search(rf"^{field}:\s*(.*)$", text, re.M)
        return match[1] if match else None

    @property
    def uid(self) -> int | None:
        """Whose it is."""
        try:
            return psutil.Process(self.pid).uids().effective
        except psutil.Error:
            return None

    @property
    def unit(self) -> str | None:
        """The service of systemd's that it belongs to; None where it is none."""
        try:
            groups = (self._folder / "cgroup").read_text().splitlines()
        except OSError:
            return None
        names = (part for line in groups for part in line.split(":", 2)[-1].split("/"))
        return next((name for name in names if re.fullmatch(r"[A-Za-z0-9:_.@-]+\.service", name)), None)

    @property
    def writes_to(self) -> str | None:
        """Where its standard error goes: a path, or what proc(5) calls a socket or a pipe."""
        return _target(self._folder / "fd" / "2")

    @property
    def open_files(self) -> int | None:
        """How many descriptors it may have."""
        return self._limit("Max open files")

    @property
    def core_bytes(self) -> int | None:
        """How large a core file it may leave."""
        return self._limit("Max core file size")

    def _limit(self, name: str) -> int | None:
        try:
            text = (self._folder / "limits").read_text()
        except OSError:
            return None
        match = re.search(rf"^{name}\s+(\S+)", text, re.M)
        if match is None:
            return None
        return int(match[1]) if match[1].isdecimal() else 1 << 30

    def argument(self, switch: str) -> str | None:
        """What follows ``switch`` on its command line."""
        try:
            words = psutil.Process(self.pid).cmdline()
        except psutil.Error:
            return None
        return next((after for before, after in pairwise(words) if before == switch), None)

    @property
    def environment(self) -> dict[str, str] | None:
        """What it was started with."""
        try:
            return psutil.Process(self.pid).environ()
        except psutil.Error:
            return None

    def identity_of(self, path: str) -> tuple[int, int] | None:
        """Which directory ``path`` is for it: device and inode; it may live in a file system of its own."""
        try:
            found = os.stat(f"{self._folder}/root{path}")  # noqa: PTH116  # not Path: the link must stay
        except OSError:
            return None
        return found.st_dev, found.st_ino


def listener(address: Address) -> Process | None:
    """The oldest process that listens at ``address`` by TCP; None where it cannot be known."""
    # Not psutil's net_connections: of those who share a socket it names the youngest.
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words[3] == _LISTEN and _is_for(words[1], address):
                inodes.add(f"socket:[{words[9]}]")
    return min(_holders(inodes), key=lambda process: process.pid, default=None) if inodes else None


def _is_for(local: str, address: Address) -> bool:
    digits, _, port = local.partition(":")
    if int(port, 16) != address.port:
        return False
    raw = b"".join(bytes.fromhex(word)[::-1] for word in re.findall("........", digits))
    return raw == address.ip.packed or not any(raw)


def _holders(inodes: set[str]) -> Sequence[Process]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                links = list((folder / "fd").iterdir())
            except OSError:  # it is gone, or somebody else's
                continue
            if any(_target(link) in inodes for link in links):
                found.append(Process(int(folder.name)))
    return found


def _target(link: Path) -> str | None:
    try:
        return os.readlink(link)  # noqa: PTH115
    except OSError:  # closed meanwhile, as a busy process does all the time
        return None
