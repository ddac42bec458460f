"""The distributions in ``integrations``, as a user gets them: built, installed where nothing else is, run.

No registry is asked for any of it: what a distribution depends on is made of what is installed here.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from eslbot.sim.addresses import free_port
from eslbot.sim.service import wait_listening
from tests.e2e.outside.bots import INTEGRATIONS

LIMIT = 60


def run(*command: str | Path, **environment: str) -> str:
    """A command in an environment of its own; what it says. Fails where it does."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    done = subprocess.run(
        [str(part) for part in command],
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def wheel_of(name: str, folder: Path) -> Path:
    """What is installed here under ``name``, as a wheel again."""
    installed = metadata.distribution(name)
    tags = re.findall(r"^Tag: (.*)$", installed.read_text("WHEEL") or "", re.M)
    path = folder / f"{name}-{installed.version}-{tags[0]}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in installed.files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                archive.write(str(file.locate()), str(file))
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with sdist and wheel of the SDK, the latter made of the former."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, INTEGRATIONS / "eslbot-bot")
    return folder


def test_they_hold_what_they_should_and_nothing_else(built: Path) -> None:
    (sdist,), (wheel,) = built.glob("*.tar.gz"), built.glob("*.whl")
    sources = {path.name for path in (INTEGRATIONS / "eslbot-bot" / "src" / "eslbot_bot").iterdir()}
    sources.discard("__pycache__")
    assert "py.typed" in sources
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (about,) = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
    assert {name for name in names if ".dist-info/" not in name} == {f"eslbot_bot/{name}" for name in sources}
    with tarfile.open(sdist) as archive_of_sources:
        packed = {name.split("/", 1)[1] for name in archive_of_sources.getnames()}
    assert {f"src/eslbot_bot/{name}" for name in sources} <= packed
    assert {"README.md", "pyproject.toml", "tests/fake_eslbot.py"} <= packed
    assert not [name for name in packed if "cache" in name or name.endswith(".pyc")]
    needed = [line for line in re.findall(r"^Requires-Dist: (.*)$", about, re.M) if "extra ==" not in line]
    assert needed == ["websockets<18,>=15"]
    assert "\nRequires-Python: >=3.10\n" in about
    assert "async for event in call" in about, "its page"


@contextmanager
def example(python: Path) -> Iterator[int]:
    """The SDK's example under ``python``, which finds nothing of this checkout; its port."""
    port = free_port()
    running = subprocess.Popen(
        [python, "-P", INTEGRATIONS / "examples" / "python-sdk" / "sdk_bot.py"],
        env={"PORT": str(port), "PATH": os.environ["PATH"]},
    )
    try:
        wait_listening(("127.0.0.1", port), LIMIT)
        yield port
    finally:
        running.terminate()
        running.wait(LIMIT)


def test_the_example_runs_from_the_wheel_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    wheel_of("websockets", tmp_path)
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--no-input")
    run(*pip, "install", "--quiet", "--no-index", "--find-links", tmp_path, wheel, PIP_CONFIG_FILE=os.devnull)
    where = run(python, "-c", "import eslbot_bot; print(eslbot_bot.__file__)")
    assert where.startswith(str(tmp_path))

    async def call(port: int) -> dict[str, object]:
        start = {"type": "start", "call_id": "one", "audio": {"sample_rate": 8000}}
        async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as socket:
            await socket.send(json.dumps(start))
            await socket.send(json.dumps({"type": "dtmf", "digit": "1", "duration_ms": 100}))
            async for message in socket:
                if isinstance(message, str) and json.loads(message)["type"] == "end":
                    return dict(json.loads(message)["properties"])
        raise AssertionError("it closed")

    with example(python) as port:
        assert asyncio.run(asyncio.wait_for(call(port), LIMIT))["agent_group"] == "sales"
