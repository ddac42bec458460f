"""Adds tenants to the configuration file and removes them; everything else in the file stays as it is.

A file is read into a :class:`Draft`, changed as text, validated as a whole, and replaced in one step: what
cannot be used, or was changed meanwhile by somebody else, is never written.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import tomlkit
from tomlkit.exceptions import TOMLKitError

from eslbot.config.loader import (
    MAX_BYTES,
    from_tree,
    parse_text,
    references,
    with_substitutes,
    workspace_names,
)
from eslbot.config.model import Config, ConfigError, Network, Workspace
from eslbot.runtime.files import replacing


class CannotEdit(Exception):
    """The file cannot be changed like this; the text says why, and what to do. Nothing was written."""


@dataclass(frozen=True, slots=True)
class NewTenant:
    """What a tenant's tables are made of, each value as it stands in the file; ``id`` is its UUID.

    Secrets are references, ``${NAME}`` or ``${file:/path}``. ``limits`` are keys of the workspace's own
    table.
    """

    id: str
    name: str
    sources: Sequence[str]
    bot_urls: Sequence[str]
    ameyo_url: str
    tenant_host: str
    token: str
    bot_headers: Mapping[str, str] = field(default_factory=dict)
    protocol: str | None = None
    ca_file: str | None = None
    bot_properties: Sequence[str] = ()
    properties: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    insecure: bool = False

    def tables(self) -> dict[str, Any]:
        """The tenant's own table, with those of bot and Ameyo in it."""
        bot: dict[str, Any] = {"url": self.bot_urls[0] if len(self.bot_urls) == 1 else list(self.bot_urls)}
        if self.protocol:
            bot["protocol"] = self.protocol
        if self.bot_headers:
            bot["headers"] = dict(self.bot_headers)
        if self.insecure and any(_is_clear(url) for url in self.bot_urls):
            bot["insecure"] = True
        ameyo: dict[str, Any] = {"url": self.ameyo_url, "tenant_host": self.tenant_host, "token": self.token}
        if self.ca_file:
            ameyo["ca_file"] = self.ca_file
        if self.bot_properties:
            ameyo["bot_properties"] = list(self.bot_properties)
        if self.properties:
            ameyo["properties"] = dict(self.properties)
        if self.insecure and _is_clear(self.ameyo_url):
            ameyo["insecure"] = True
        return {"name": self.name, "sources": list(self.sources), **self.limits, "bot": bot, "ameyo": ameyo}

    @property
    def references(self) -> Iterator[tuple[str, str]]:
        """The key below the tenant's, and what stands in ``${…}``, for each reference."""
        yield from (("ameyo.token", one) for one in references(self.token))
        for name, text in self.bot_headers.items():
            yield from ((f"bot.headers.{name}", one) for one in references(text))
        for url in self.bot_urls:
            yield from (("bot.url", one) for one in references(url))


@dataclass(frozen=True, slots=True)
class Preview:
    """The configuration that a text makes. ``unresolved``: secrets that are not here, and why."""

    config: Config
    unresolved: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Draft:
    """A configuration file as it was read; ``tree`` is what stands in it."""

    path: Path
    content: bytes
    tree: Mapping[str, Any]

    @classmethod
    def of(cls, path: Path) -> Draft:
        """Raises :class:`CannotEdit`, and ConfigError for what is no TOML."""
        with _directory(path) as folder:
            descriptor = _open(folder, path)
            try:
                content = _content(descriptor)
            finally:
                os.close(descriptor)
        return cls(path, content, parse_text(content, path))

    @property
    def names(self) -> dict[str, str]:
        """The tenants' names by their ids, as they stand in the file."""
        return workspace_names(self.tree)

    def key_of(self, wanted: str) -> str:
        """The key of the tenant with that name or UUID. Raises CannotEdit with those that there are."""
        for key, name in self.names.items():
            if wanted == name or wanted.lower() == key.lower():
                return key
        known = ", ".join(f"{name} ({key})" for key, name in self.names.items()) or "none"
        raise CannotEdit(f"there is no tenant {wanted!r} in {self.path}; there is {known}")

    def with_tenant(self, tenant: NewTenant) -> str:
        """The text with that tenant at its end. Raises CannotEdit."""
        if tenant.name in self.names.values():
            raise CannotEdit(f"{tenant.name!r} is the name of another tenant already; take another one")
        if str(UUID(tenant.id)) in (key.lower() for key in self.names):
            raise CannotEdit(f"{tenant.id} is another tenant's already; leave --id out, and one is made")
        tables = tenant.tables()
        bot, ameyo = tables.pop("bot"), tables.pop("ameyo")
        key = f"workspaces.{tenant.id}"
        added = [
            f"[{key}]\n",
            _toml(tables),
            f"\n[{key}.bot]\n",
            _toml(bot),
            f"\n[{key}.ameyo]\n",
            _toml(ameyo),
        ]
        text = self.content.decode()
        newline = "" if not text or text.endswith("\n") else "\n"
        changed = f"{text}{newline}\n{''.join(added)}" if text else "".join(added)
        return self._as_meant(changed, {**self._workspaces, tenant.id: tenant.tables()})

    def without_tenant(self, key: str) -> str:
        """The text without that tenant's tables; comments stay. Raises CannotEdit."""
        try:
            document = tomlkit.parse(self.content.decode())
            del document["workspaces"][key]
            changed = tomlkit.dumps(document)
        except (TOMLKitError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CannotEdit(
                f"{self.path}: tomlkit cannot take {key} out ({error}); do it by hand"
            ) from error
        left = {name: table for name, table in self._workspaces.items() if name != key}
        return self._as_meant(changed, left)

    @property
    def _workspaces(self) -> dict[str, Any]:
        found = self.tree.get("workspaces")
        return dict(found) if isinstance(found, dict) else {}

    def _as_meant(self, changed: str, workspaces: Mapping[str, Any]) -> str:
        """``changed``, where it has those workspaces and is otherwise the same. Raises CannotEdit."""
        wanted = {**self.tree, "workspaces": dict(workspaces)}
        if not workspaces:
            del wanted["workspaces"]
        try:
            found = tomllib.loads(changed)
        except (ValueError, RecursionError) as error:
            raise CannotEdit(
                f"{self.path} is written in a way that this command cannot add to ({error}); edit it by hand"
            ) from error
        if not workspaces and found.get("workspaces") == {}:
            del found["workspaces"]
        if found != wanted:
            raise CannotEdit(
                f"{self.path} is written in a way that this command would spoil; edit it by hand"
            )
        return changed

    def save(self, text: str) -> None:
        """Replace the file, with its mode and owner, unless it was changed since it was read.

        Raises CannotEdit, and OSError where the disk does not take it.
        """
        content = text.encode()
        if len(content) > MAX_BYTES:
            raise CannotEdit(f"{self.path} would have more than {MAX_BYTES} bytes")
        with _directory(self.path) as folder:
            descriptor = _open(folder, self.path)
            try:
                self._lock(folder, descriptor)
                _replace(folder, self.path, content, os.fstat(descriptor))
            finally:
                os.close(descriptor)

    def _lock(self, folder: int, descriptor: int) -> None:
        """Lock the file against other eslbot commands. Raises CannotEdit."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            raise CannotEdit(f"{self.path} is being changed by another eslbot; say it again") from error
        there = os.stat(self.path.name, dir_fd=folder, follow_symlinks=False)
        if not os.path.samestat(there, os.fstat(descriptor)) or _content(descriptor) != self.content:
            raise CannotEdit(f"{self.path} was changed since it was read; look at it, and say it again")
        if not os.access(self.path.name, os.W_OK, dir_fd=folder):
            raise _cannot_write(self.path, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def preview(text: str, path: Path, environment: Mapping[str, str]) -> Preview:
    """The configuration that ``text`` makes, whether its secrets are here or not. Raises ConfigError."""
    try:
        tree, unresolved = with_substitutes(parse_text(text.encode(), path), environment)
        return Preview(from_tree(tree, environment), unresolved)
    except RecursionError as error:
        raise ConfigError([f"{path}: is nested too deeply"]) from error


def overlapping(config: Config, workspace: Workspace) -> list[tuple[Network, Workspace, Network]]:
    """Which sources of ``workspace`` another one has, too: ours, whose else, and theirs."""
    return [
        (ours, other, theirs)
        for ours in workspace.sources
        for other in config.workspaces.values()
        if other.id != workspace.id
        for theirs in other.sources
        if ours.version == theirs.version and ours.overlaps(theirs)
    ]


def write_secret(path: Path, text: str, beside: Path) -> None:
    """A new file of mode 0600 with ``text``; ``beside`` is the configuration file.

    Where root writes, and the configuration is root's and its group's to read, so is this: the service reads
    it as a member of that group. Raises CannotEdit; a file that is there is never written over.
    """
    about = beside.stat()
    by_group = os.geteuid() == 0 and about.st_uid == 0 and about.st_mode & stat.S_IRGRP and about.st_gid != 0
    with _directory(path) as folder:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(path.name, flags, 0o600, dir_fd=folder)
        except FileExistsError as error:
            raise CannotEdit(f"{path} is there already, and is not written over") from error
        except OSError as error:
            raise _cannot_write(path, error) from error
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, 0o600)
            if by_group:
                os.fchown(descriptor, 0, about.st_gid)
                os.fchmod(descriptor, 0o640)
            file.write(f"{text}\n")
            file.flush()
            os.fsync(descriptor)


def _toml(table: Mapping[str, Any]) -> str:
    """The keys of one table; tables in it are written inline."""
    found = tomlkit.document()
    for key, value in table.items():
        if isinstance(value, Mapping):
            inline = tomlkit.inline_table()
            inline.update(value)
            found.add(key, inline)
        else:
            found.add(key, value)
    return tomlkit.dumps(found)


def _is_clear(url: str) -> bool:
    return url.lower().startswith(("ws:", "http:"))


@contextmanager
def _directory(path: Path) -> Iterator[int]:
    """The directory of ``path``, open. Raises CannotEdit."""
    place = path.absolute().parent
    try:
        folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CannotEdit(f"{place}: {error.strerror}") from error
    try:
        yield folder
    finally:
        os.close(folder)


def _open(folder: int, path: Path) -> int:
    try:
        descriptor = os.open(
            path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CannotEdit(
                f"{path} is a symbolic link, and none is followed; name the file itself"
            ) from error
        raise CannotEdit(f"{path}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise CannotEdit(f"{path} is not a file")
    return descriptor


def _content(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read(MAX_BYTES + 1)


def _replace(folder: int, path: Path, content: bytes, old: os.stat_result) -> None:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(replacing(folder, path.name))
        except OSError as error:
            raise _cannot_write(path, error) from error
        file.write(content)
        file.flush()
        _keep_owner(path, file.fileno(), old)
        os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
        os.fsync(file.fileno())
    os.fsync(folder)


def _keep_owner(path: Path, descriptor: int, old: os.stat_result) -> None:
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) == (old.st_uid, old.st_gid):
        return
    try:
        os.fchown(descriptor, old.st_uid, old.st_gid)
    except OSError as error:
        raise CannotEdit(
            f"{path} is another user's or group's (uid {old.st_uid}, gid {old.st_gid}), and would not be "
            "any more; say it as that user, or with sudo"
        ) from error


def _cannot_write(path: Path, error: OSError) -> CannotEdit:
    return CannotEdit(
        f"{path.absolute().parent} does not let this user write {path.name}: {error.strerror}; "
        "say it as the user whose it is, or with sudo"
    )
