"""The status file: which configuration a service has in force, and what came of its last HUP.

A signal has no answer. So that ``eslbot reload`` can tell what would change, and what did, the arbiter writes
beside the service's key which process it is, the configuration of its workers with every secret masked, and
how the last change ended. Of secrets it holds salted fingerprints, so that a new token is a change that can
be seen.

The arbiter uses this module, so it imports nothing that opens sockets.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets as random
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import structlog

import eslbot
from eslbot.config.model import Bot, Config, Secret
from eslbot.config.show import as_tree

log = structlog.get_logger()

#: How a change stands: workers have what was read; new workers come up; what was read is not in force, since
#: it cannot be used, or since no worker came up with it.
UP, CHANGING, REFUSED, FAILED = "up", "changing", "refused", "failed"
#: Of the file; a field may be added without a new one.
VERSION = 1
#: A larger file is none of ours.
MAX_BYTES = 8 * 1024 * 1024


class NotInForce(Exception):
    """No service of this configuration is known to run; the text says where that was looked for."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What the file says. ``pid`` is the arbiter's, ``started`` its start in the kernel's ticks since boot.

    ``hups``: how many HUPs it has heard; ``state``: of the last one, or of the start; ``problems``: why it is
    not :data:`UP`, or what is missing. ``salt``, ``fingerprints``: of secrets, by the place in ``tree``.
    """

    version: int
    eslbot: str
    pid: int
    started: int
    config: str
    hups: int
    state: str
    problems: Sequence[str]
    at: float
    tree: Mapping[str, Any]
    salt: str
    fingerprints: Mapping[str, str]


class StatusFile:
    """The arbiter's side, for the configuration file at ``path``. Nothing in here raises."""

    def __init__(self, path: Path) -> None:
        self._path = os.path.realpath(path)
        self._written: Path | None = None

    def tell(self, config: Config, hups: int, state: str, problems: Sequence[str]) -> None:
        """Leave word; where the disk does not take it, that is logged, and ``eslbot reload`` knows less."""
        salt = random.token_hex(16)
        notice = Notice(
            VERSION,
            eslbot.__version__,
            os.getpid(),
            started(os.getpid()) or 0,
            self._path,
            hups,
            state,
            list(problems),
            time.time(),
            as_tree(config),
            salt,
            fingerprints(config, salt),
        )
        file = place(config, self._path)
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            descriptor = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
            )
            with os.fdopen(descriptor, "w") as out:
                json.dump(asdict(notice), out)
            temporary.replace(file)
            if self._written not in (None, file):
                self.withdraw()
            self._written = file
        except OSError as error:
            log.warning(
                "in_force_not_written",
                file=str(file),
                error=error.strerror,
                remedy="eslbot reload cannot see what this service does; let its user write there",
            )

    def withdraw(self) -> None:
        """At the end: nobody is to look for this process. Another one's word stays."""
        if self._written is None:
            return
        with suppress(NotInForce, OSError):
            if _read(self._written)[0].pid == os.getpid():
                self._written.unlink()
        self._written = None


def running(config: Config, path: Path) -> Notice:
    """What the service of ``path`` says of itself. Raises :class:`NotInForce` where none runs, or tells."""
    file = place(config, os.path.realpath(path))
    notice, owner = _read(file)
    if notice.started != started(notice.pid):
        raise NotInForce(f"process {notice.pid}, of which {file} tells, is gone")
    if os.stat(f"/proc/{notice.pid}").st_uid != owner:  # noqa: PTH116  # not ours to signal
        raise NotInForce(f"process {notice.pid}, of which {file} tells, is not its owner's")
    return notice


def place(config: Config, realpath: str) -> Path:
    """The file, of the service that ``config`` is of, read from ``realpath``."""
    word = hashlib.sha256(realpath.encode()).hexdigest()[:12]
    return Path(config.server.key_file).with_name(f"in-force-{word}.json")


def started(pid: int) -> int | None:
    """When the process was started, in the kernel's ticks since boot; None where there is none.

    Not psutil's ``create_time``, which is of the clock: that may be set while the service runs.
    """
    try:
        # Behind the name, which may hold anything (proc(5): the 22nd field).
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def fingerprints(config: Config, salt: str) -> dict[str, str]:
    """A word for what is secret in each tenant, and in the rest: another one where a secret is another."""
    rest = [secret for name in ("freeswitch", "web", "ledger") for secret in _secrets(getattr(config, name))]
    found = {workspace.id: list(_secrets(workspace)) for workspace in config.workspaces.values()}
    return {
        key: hashlib.blake2b("\0".join(secrets).encode(), key=salt.encode(), digest_size=8).hexdigest()
        for key, secrets in {**found, "": rest}.items()
    }


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, Secret):
        yield value.reveal()
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _secrets(one)
    elif isinstance(value, tuple):
        for one in value:
            yield from _secrets(one)
    elif is_dataclass(value):
        if isinstance(value, Bot):  # whose URLs are shown without their queries
            yield from (url.partition("?")[2] for url in value.urls)
        for field in fields(value):
            yield from _secrets(getattr(value, field.name))


def _read(file: Path) -> tuple[Notice, int]:
    """What the file says, and whose it is. Raises NotInForce."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise NotInForce(f"{file} is no file")
            found = json.loads(opened.read(MAX_BYTES))
        notice = Notice(**{field.name: found[field.name] for field in fields(Notice)})
    except FileNotFoundError as error:
        raise NotInForce(f"there is no {file}, which a running service has") from error
    except OSError as error:
        raise NotInForce(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise NotInForce(f"{file} is none of ours, or of another version ({error!r:.100})") from error
    numbers, tables = (notice.pid, notice.started, notice.hups), (notice.tree, notice.fingerprints)
    if not (
        all(isinstance(number, int) for number in numbers)
        and all(isinstance(table, dict) for table in tables)
        and isinstance(notice.salt, str)
        and isinstance(notice.problems, list)
    ):
        raise NotInForce(f"{file} is none of ours")
    return notice, about.st_uid
