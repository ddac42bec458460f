"""Tenants that were taken out of the configuration, for as long as calls of theirs are up.

A call that was admitted is handed off to its own Ameyo, with its own token, whatever becomes of the file
meanwhile. So whoever reads a changed configuration keeps the tenants that it no longer has: for the processes
that it forks in :attr:`~eslbot.config.model.Config.former`; for those that start without it (a release, a
relay's parent, the service's next start) in a directory of the service's own (0700), one file a tenant
(0600). Secrets are in the clear there, so only tenants that are gone, or have calls at the stop, are written,
and they are deleted as soon as no call needs them.

A tenant that is still in the file goes by what the file says now: who mends its token, or the host of its
Ameyo, mends it for the customers who wait.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import structlog
from marshmallow import ValidationError

from eslbot.config.model import Config, Workspace
from eslbot.config.schemas.workspace import WorkspaceSchema
from eslbot.config.show import workspace_table

log = structlog.get_logger()

#: Seconds without a call after which nobody needs a tenant any more: a FreeSWITCH that was away may bring its
#: calls back, and a hand-off without its call (:mod:`eslbot.calls.stranded`) goes on for five minutes.
QUIET = 600.0
#: Seconds between two looks for files that nobody needs.
SWEEP = 60.0
#: Seconds: no call is older, so no file is of use any more (``max_duration`` is a day at most).
OLDEST = 86400.0 + QUIET
#: Bytes of a file, and files that are read.
MAX_FILE, MAX_FILES = 512 * 1024, 1024

_NAME = re.compile(r"(?P<id>[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\.json")
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def directory_of(config: Config) -> Path:
    """Where the files are: beside the key of the service."""
    return Path(config.server.key_file).parent / "tenants"


def _unbounded(ids: list[str]) -> None:
    """There are counters for any number."""


class FormerTenants:
    """What one arbiter, or one relay's parent, knows of them. Raises nothing: no reload fails by it."""

    def __init__(self) -> None:
        #: When a call of each was seen last, or it was taken out; by the monotonic clock.
        self._needed: dict[str, float] = {}
        self._swept = float("-inf")

    def settle(
        self, before: Config | None, config: Config, know: Callable[[list[str]], None] = _unbounded
    ) -> Config:
        """``config`` with the tenants that it no longer has; the files are brought to the same state.

        For the arbiter, which counts calls (:meth:`tend`). ``know`` reserves a counter for each of these ids;
        where there is none left (ValueError) they are not kept, and that is logged.
        """
        known = read(directory_of(config))
        gone = _gone(known, before, config)
        try:
            know(list(gone))
        except ValueError as error:
            log.error(
                "former_tenant_not_kept",
                error=str(error),
                remedy="put their workspaces back into the configuration: their customers wait",
            )
            gone = {}
        if before is not None and directory_of(before) != directory_of(config):
            _delete(directory_of(before), _ids(directory_of(before)))
        _delete(directory_of(config), known.keys() & config.workspaces.keys())
        write(directory_of(config), (gone[key] for key in gone if known.get(key) != gone[key]))
        now = time.monotonic()
        self._needed = {key: self._needed.get(key, now) for key in gone}
        return replace(config, former=gone)

    def carry(self, before: Config | None, config: Config) -> Config:
        """The same for a relay's parent, which counts no calls and writes no files.

        Each is kept as long as its calls can last.
        """
        now = time.monotonic()
        gone = {
            key: workspace
            for key, workspace in _gone(read(directory_of(config)), before, config).items()
            if now - self._needed.get(key, now) < workspace.max_duration + QUIET
        }
        self._needed = {key: self._needed.get(key, now) for key in gone}
        return replace(config, former=gone)

    def tend(self, config: Config, calls: Callable[[str], int]) -> Config:
        """``config`` without the former tenants that no call needs; the same object where all are needed.

        ``calls``: how many a workspace has on this host. With controllers on other hosts, those calls may
        still come here.
        """
        now = time.monotonic()
        over: set[str] = set()
        for key, workspace in config.former.items():
            if calls(key):
                self._needed[key] = now
            elif now - self._needed.setdefault(key, now) >= _quiet(workspace, config):
                log.info("tenant_forgotten", workspace=workspace.name, workspace_id=key)
                over.add(key)
        if over:
            config = replace(config, former={k: w for k, w in config.former.items() if k not in over})
        if over or (now - self._swept >= SWEEP):
            self._swept = now
            _delete(directory_of(config), _ids(directory_of(config)) - config.former.keys())
        return config

    def leave(self, config: Config, calls: Callable[[str], int]) -> None:
        """This arbiter ends: write down the tenants with calls up, which the next one's file may lack."""
        tenants = {**config.former, **config.workspaces}
        write(directory_of(config), (workspace for key, workspace in tenants.items() if calls(key)))


def _gone(known: Mapping[str, Workspace], before: Config | None, config: Config) -> dict[str, Workspace]:
    """The last known state of each tenant that ``config`` does not have."""
    last = {**known, **(before.former if before else {}), **(before.workspaces if before else {})}
    return {key: workspace for key, workspace in last.items() if key not in config.workspaces}


def _quiet(workspace: Workspace, config: Config) -> float:
    alone = set(config.freeswitch.controllers) <= {config.server.listen.from_own_host}
    return QUIET if alone else workspace.max_duration + QUIET


# -- the files --------------------------------------------------------------------------------------------


def write(directory: Path, workspaces: Iterable[Workspace]) -> None:
    """A file for each, whole or not at all. What cannot be written is logged: this process still has it."""
    for workspace in workspaces:
        data = json.dumps(workspace_table(workspace)).encode()
        temporary = ""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix=".", dir=directory)  # 0600
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(temporary).replace(directory / f"{workspace.id}.json")
        except OSError as error:
            if temporary:
                Path(temporary).unlink(missing_ok=True)
            log.error(
                "former_tenant_not_kept",
                workspace=workspace.name,
                directory=str(directory),
                error=error.strerror or str(error),
                remedy="its calls go on, but not in a service started anew: see the disk, and who may write",
            )


def read(directory: Path) -> dict[str, Workspace]:
    """The tenants of the files that can be used, by id; the others are logged and deleted."""
    found: dict[str, Workspace] = {}
    for key in sorted(_ids(directory))[:MAX_FILES]:
        path = directory / f"{key}.json"
        try:
            descriptor = os.open(path, _FLAGS)
            with os.fdopen(descriptor, "rb") as file:
                age = time.time() - os.fstat(descriptor).st_mtime
                data = file.read(MAX_FILE + 1)
            if len(data) > MAX_FILE:
                raise ValueError("too long")
            if age <= OLDEST:
                found[key] = Workspace(id=key, **WorkspaceSchema().load(json.loads(data)))
                continue
        except FileNotFoundError:
            continue
        except (OSError, ValueError, RecursionError, ValidationError) as error:
            about = f"no tenant: {sorted(error.messages)}" if isinstance(error, ValidationError) else error
            log.error("former_tenant_not_read", file=str(path), error=str(about))
        _delete(directory, [key])
    return found


def _ids(directory: Path) -> set[str]:
    try:
        names = os.listdir(directory)  # noqa: PTH208  # names are all we want
    except FileNotFoundError:
        return set()
    except OSError as error:
        log.error("former_tenant_not_read", file=str(directory), error=error.strerror)
        return set()
    return {match["id"] for name in names if (match := _NAME.fullmatch(name))}


def _delete(directory: Path, ids: Iterable[str]) -> None:
    for key in ids:
        path = directory / f"{key}.json"
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.error("former_tenant_not_deleted", file=str(path), error=error.strerror)
