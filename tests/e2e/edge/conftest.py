"""What all of them need: Kamailio, or a word why not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.kamailio import MISSING, WHY_MISSING

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if MISSING:
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=WHY_MISSING))
