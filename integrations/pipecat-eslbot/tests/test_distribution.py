"""What is built: a wheel and a source archive."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(PROJECT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def test_the_wheel_has_the_package_and_nothing_else(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with ZipFile(path) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = message_from_string(wheel.read("pipecat_eslbot-0.1.0.dist-info/METADATA").decode())
    package = PROJECT / "src" / "pipecat_eslbot"
    sources = {f"pipecat_eslbot/{path.name}" for path in package.iterdir() if path.suffix == ".py"}
    assert names == sources | {"pipecat_eslbot/py.typed"}
    assert metadata["Name"] == "pipecat-eslbot" and metadata["Requires-Python"] == ">=3.11"
    needs = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]
    assert len(needs) == 1 and needs[0].startswith("pipecat-ai[runner,websocket]")
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload() == (PROJECT / "README.md").read_text()


def test_the_source_archive_has_examples_and_tests(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {"README.md", "pyproject.toml", "src/pipecat_eslbot/py.typed"} <= names
    assert {"examples/receptionist.py", "examples/espeak.py", "tests/test_line.py"} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_runs_without_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(tmp_path), str(wheel)], check=True, timeout=60)
    look = "import pipecat_eslbot; print(pipecat_eslbot.__file__)"
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", look],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and str(tmp_path) in done.stdout, done.stderr
