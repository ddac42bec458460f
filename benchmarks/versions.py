"""The versions of everything that is measured, and of what measures it."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import eslbot
from eslbot.sim import freeswitch
from eslbot.sim.loadtest.machine import revision

#: What eslbot's speed hangs on, and what is measured beside it.
PACKAGES = ("gevent", "greenlet", "greenswitch", "gunicorn", "urllib3", "structlog", "prometheus-client")


def versions(genesis: Path | None) -> dict[str, str]:
    """By name; who is not there is told so. ``genesis`` is a Python that has Genesis."""
    found = {"eslbot": f"{eslbot.__version__} ({revision()})"}
    found |= {name: version(name) for name in PACKAGES}
    found["Genesis"] = "not installed"
    if genesis is not None:
        script = "from importlib.metadata import version; print(version('genesis'))"
        found["Genesis"] = _first_line([str(genesis), "-c", script])
    installation = freeswitch.find()
    found["FreeSWITCH"] = installation.version if installation else "none with mod_audio_stream"
    found["SIPp"] = _first_line(["sipp", "-v"])
    found["C compiler"] = _first_line(["cc", "--version"])
    return found


def _first_line(command: Sequence[str]) -> str:
    if shutil.which(command[0]) is None:
        return "none"
    # SIPp's exit code for -v is 99.
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    lines = [line.strip() for line in told.stdout.splitlines() if line.strip()]
    return re.sub(r"^SIPp |\.$", "", lines[0]) if lines else "does not say"
