"""A file that is replaced as a whole, so that nobody ever reads half of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO


@contextmanager
def replacing(folder: int, name: str) -> Iterator[BinaryIO]:
    """What is written takes the place of ``name`` when the block ends; where it raises, nothing changes.

    Args:
        folder: the open directory that ``name`` is in. No link at ``name`` is followed.

    Raises:
        OSError: and then nothing is left either. The new file is of mode 0600 unless the block changes that.
    """
    temporary = f".{name}.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)
        raise
