"""The memory of a worker: time is measured as it passes there."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from eslbot.runtime.garbage import settle_memory


@pytest.fixture(autouse=True, scope="package")
def _settled_as_in_a_worker() -> Iterator[None]:
    """By Python's own measure the collector would look through all that pytest has, again and again."""
    before = gc.get_threshold()
    settle_memory()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)
