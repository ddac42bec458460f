"""scripts/prepare-outside where nothing can be had: what it says, and that it goes on."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare-outside"
#: What the script calls; no npm among it.
TOOLS = ["bash", "cat", "false", "flock", "mkdir"]

pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="no flock (util-linux) on this machine")


@pytest.fixture
def path(tmp_path: Path) -> str:
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in TOOLS:
        (tools / tool).symlink_to(shutil.which(tool) or tool)
    return str(tools)


def prepare(folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": path, "PYTHON": "false"}  # no Python can make an environment
    return subprocess.run(
        [str(SCRIPT), str(folder)], env=environment, capture_output=True, text=True, timeout=60
    )


def test_what_cannot_be_installed_is_said_and_left_out(tmp_path: Path, path: str) -> None:
    done = prepare(tmp_path / "outside", path)
    assert done.returncode == 0, done.stderr
    assert "Pipecat could not be installed" in done.stderr and "no npm" in done.stderr
    assert "ESLBOT_PIPECAT" not in done.stdout


def test_what_is_there_is_left_alone(tmp_path: Path, path: str) -> None:
    stamp = tmp_path / "outside" / "pipecat" / "made-of"
    stamp.parent.mkdir(parents=True)
    (wanted,) = [line for line in SCRIPT.read_text().splitlines() if line.startswith("wanted=(")]
    stamp.write_text(wanted.removeprefix("wanted=(").removesuffix(")").replace("'", "") + "\n")
    done = prepare(tmp_path / "outside", path)
    assert "installing Pipecat" not in done.stderr
    assert f"export ESLBOT_PIPECAT={tmp_path}/outside/pipecat/bin/python" in done.stdout
