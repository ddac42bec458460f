"""A file that is replaced is there as a whole, or as it was."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.runtime.files import replacing


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def test_it_is_replaced_when_the_block_is_over(folder: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    with replacing(folder, "file") as new:
        new.write(b"new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_block_that_raises_changes_nothing_and_leaves_nothing(folder: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(folder, "file") as new:
        new.write(b"half")
        raise KeyboardInterrupt
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "old")]


def test_a_link_is_replaced_and_not_followed(folder: int, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("somebody else's")
    (tmp_path / "link").symlink_to(target)
    with replacing(folder, "link") as new:
        new.write(b"ours")
    assert target.read_text() == "somebody else's"
    assert not (tmp_path / "link").is_symlink()
