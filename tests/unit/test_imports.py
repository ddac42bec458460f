"""Rooms that know each other can be entered by any door."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "first",
    ["calls.bot", "calls.channel_state", "caller.identity", "caller.invite", "caller.keyfile", "config"],
)
def test_each_module_can_be_the_first(first: str) -> None:
    subprocess.run([sys.executable, "-c", f"import eslbot.{first}"], check=True, timeout=60)
