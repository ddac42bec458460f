"""A lock on a file that ends with the process that holds it (``flock``)."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def held(path: Path) -> int | None:
    """A descriptor that holds the lock on ``path``, which is made; None where another process does.

    Raises OSError.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    except BaseException:
        os.close(lock)
        raise
    return lock
