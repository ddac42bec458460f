"""What holds for every suite."""

from __future__ import annotations

import sys

import pytest
from hypothesis import settings

from eslbot import redaction

# No test is a timed one: on a busy machine an example may take as long as it likes.
settings.register_profile("eslbot", deadline=None)
settings.load_profile("eslbot")


@pytest.fixture(autouse=True)
def _own_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test makes this process keep to itself is no secret to the next one."""
    monkeypatch.setattr(redaction, "_known", frozenset())
    monkeypatch.setattr(redaction, "_redactor", redaction.Redactor())
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
