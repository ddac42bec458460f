"""A machine with nothing on it, and one that eslbot is installed on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.install.machine import copied, install, machine


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return machine(tmp_path)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Installed, to be copied."""
    root = machine(tmp_path_factory.mktemp("once"))
    install(root)
    return root


@pytest.fixture
def installed(once: Path, tmp_path: Path) -> Path:
    return copied(once, tmp_path)
