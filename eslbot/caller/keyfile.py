"""The file with the key that signs identities: made at the first start, the same on all hosts."""

from __future__ import annotations

import os
import re
import secrets
import stat
import tempfile
from pathlib import Path

from eslbot.caller.identity import Signer

#: Bytes of a key file, and keys in it.
MAX_FILE, MAX_KEYS = 4096, 8
_KEY = re.compile(r"[0-9a-f]{64}")
_REMEDY = "copy it from another host of this service, or move it away: the next start makes a new one"


class KeyFileError(Exception):
    """The key file cannot be used; the text names it, what is wrong, and what to do."""


def load(path: Path, owner: int | None = None) -> Signer:
    """The keys in ``path``, one a line in 64 hexadecimal digits. Raises :class:`KeyFileError`.

    The file has to be ``owner``'s (a uid), by default this process's or root's, and nobody else's to read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}; {_REMEDY}") from error
    try:
        _refuse_others(path, os.fstat(descriptor), (os.geteuid(), 0) if owner is None else (owner,))
        content = os.read(descriptor, MAX_FILE + 1)
    finally:
        os.close(descriptor)
    lines = [line.strip() for line in content.decode("ascii", "replace").splitlines()]
    keys = [line for line in lines if line and not line.startswith("#")]
    if len(content) > MAX_FILE or not 1 <= len(keys) <= MAX_KEYS or not all(map(_KEY.fullmatch, keys)):
        raise KeyFileError(
            f"{path} does not hold 1 to {MAX_KEYS} keys of 64 hexadecimal digits (0-9, a-f), one a line; "
            f"{_REMEDY}"
        )
    return Signer([bytes.fromhex(key) for key in keys])


def _refuse_others(path: Path, status: os.stat_result, owners: tuple[int, ...]) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(f"{path} is not a file; {_REMEDY}")
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise KeyFileError(f"{path} is for others, too (mode {mode:o}); say: chmod 600 {path}")
    if status.st_uid not in owners:
        raise KeyFileError(f"{path} is somebody else's (uid {status.st_uid}); chown it to the service's user")


def load_or_make(path: Path) -> Signer:
    """The same; where there is no such file yet, one with a new key. Raises :class:`KeyFileError`.

    Of several processes that make it at one moment, all come to use the same.
    """
    try:
        if not os.path.lexists(path):
            _make(path)
    except OSError as error:
        raise KeyFileError(
            f"{path} cannot be made: {error.strerror}; give server.key_file a place that this user may write"
        ) from error
    return load(path)


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write("# Signs the identity of calls; the same on every host of a service.\n")
            file.write(f"{secrets.token_hex(32)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)  # whoever is first; it never replaces one
        except FileExistsError:
            return
    finally:
        Path(temporary).unlink()
