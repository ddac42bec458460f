"""What holds for every suite."""

from __future__ import annotations

from hypothesis import settings

# No test is a timed one: on a busy machine an example may take as long as it likes.
settings.register_profile("eslbot", deadline=None)
settings.load_profile("eslbot")
