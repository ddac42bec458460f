"""How rendered files get into a directory: whole, not over somebody else's, and through no symbolic link."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

from eslbot.runtime.files import replacing

#: Kamailio's part of ``freeswitch-conf/``.
KAMAILIO = "kamailio"

_PRIVATE_MODE, _MODE = 0o640, 0o644


class RenderError(Exception):
    """The files cannot be written; the text says what is in the way and what to do about it."""


@dataclass(frozen=True, slots=True)
class Change:
    """One file, and whether this run wrote it."""

    path: Path
    what: Literal["written", "unchanged"]


def packaged(*suffixes: str) -> Iterator[tuple[Path, str]]:
    """What ``freeswitch-conf/`` holds: paths in it, and texts."""

    def walk(node: Traversable, path: Path) -> Iterator[tuple[Path, str]]:
        for child in node.iterdir():
            if child.is_dir():
                yield from walk(child, path / child.name)
            elif child.name.endswith(suffixes):
                yield path / child.name, child.read_text("utf-8")

    yield from walk(files("eslbot.freeswitch_conf"), Path())


def refuse_foreign(path: Path, marker: str, force: bool) -> None:
    """Raises RenderError where there is a file at ``path`` without ``marker``, which eslbot did not write."""
    try:
        foreign = path.exists() and marker not in path.read_text("utf-8", "replace")
    except OSError as error:
        raise RenderError(f"cannot read {path}: {error.strerror}") from error
    if foreign and not force:
        raise RenderError(f"{path} is not eslbot's; give --out another directory, or --force to overwrite it")


def write(out: Path, texts: Mapping[Path, str], private: Path | None = None) -> list[Change]:
    """Write ``texts``, by their paths in ``out``.

    Args:
        private: the one that only its owner and group may read.

    Returns:
        What was done, sorted by path.

    Raises:
        RenderError: where the disk or the directory does not let us.
    """
    try:
        return [
            Change(out / path, _write_file(out, path, text, _PRIVATE_MODE if path == private else _MODE))
            for path, text in sorted(texts.items())
        ]
    except OSError as error:
        raise RenderError(
            f"cannot write {error.filename or out}: {error.strerror}; "
            "give --out a directory that this user may write"
        ) from error


def _write_file(out: Path, path: Path, text: str, mode: int) -> Literal["written", "unchanged"]:
    """Write a file as a whole, unless it is there already. Raises OSError.

    Root writes here, and the directory may be FreeSWITCH's: no symbolic link in it is followed. What root
    makes in such a directory belongs to whom the directory does.
    """
    content = text.encode()
    with _directory(out, path.parent) as folder:
        parent, there = os.fstat(folder), _existing(folder, path.name)
        owner = parent if there is None or parent.st_uid != 0 else there.status
        if there is not None and there.content == content and stat.S_IMODE(there.status.st_mode) == mode:
            read_by_owner_only = mode == _PRIVATE_MODE and os.geteuid() == 0
            if not read_by_owner_only or there.status.st_uid == owner.st_uid:
                return "unchanged"
        with replacing(folder, path.name) as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if os.geteuid() == 0:  # FreeSWITCH reads it as a user of its own: keep whose it was
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(file.fileno())
    return "written"


@contextmanager
def _directory(out: Path, below: Path) -> Iterator[int]:
    """The directory ``below`` in ``out``, made where there is none. Raises OSError, so at a symbolic link."""
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in below.parts:
            made = True
            try:
                os.mkdir(name, dir_fd=folder)
            except FileExistsError:
                made = False
            try:
                inner = os.open(
                    name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
                )
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    why = "it is a symbolic link or no directory, and none is followed"
                    raise NotADirectoryError(errno.ENOTDIR, why, str(out / below)) from error
                raise
            if made and os.geteuid() == 0:
                parent = os.fstat(folder)
                os.fchown(inner, parent.st_uid, parent.st_gid)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


@dataclass(frozen=True, slots=True)
class _File:
    """A file that is there."""

    content: bytes
    status: os.stat_result


def _existing(folder: int, name: str) -> _File | None:
    """The file ``name``; None where there is none, or something that is no file."""
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return _File(file.read(), status)
    finally:
        os.close(descriptor)
