"""What holds for every suite: its secrets, its time, and which files run at one time."""

from __future__ import annotations

import sys
from collections.abc import Generator

import pytest
from hypothesis import settings

from eslbot import redaction
from tests.support.turn import Turn

# No test is a timed one: on a busy machine an example may take as long as it likes.
settings.register_profile("eslbot", deadline=None)
settings.load_profile("eslbot")

#: Directories whose files are soon over. In the others time goes by in calls and starts of processes.
SHORT = frozenset({"ledger", "signals", "unit", "web"})

_turn = Turn()


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test makes this process keep to itself is no secret to the next one."""
    monkeypatch.setattr(redaction, "_known", frozenset())
    monkeypatch.setattr(redaction, "_redactor", redaction.Redactor())
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


def _alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that run alone come first; then the long ones, so that short ones fill up the end of a run."""
    items.sort(key=lambda item: (not _alone(item), item.path.parent.name in SHORT))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, bool, bool]:
    """A file marked ``alone`` runs while no other does: from the start of its laboratory to the end of it."""
    if not _turn.taken:
        _turn.begin(_alone(item))
    try:
        return (yield)
    finally:
        if nextitem is None or nextitem.path != item.path:
            _turn.end()
