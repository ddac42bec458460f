"""The archives that are handed out: what is in them, and that a command comes out of an empty environment.

Built once, the wheel from the source archive: so that has all that a build needs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import eslbot

REPOSITORY = Path(__file__).parents[3]
#: The least that is one.
CONFIGURATION = """
[freeswitch]
event_socket_password = "not a real one"

[workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5]
name = "acme"
sources = ["203.0.113.10"]

[workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5.bot]
url = "wss://bot.example.com/stream"

[workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5.ameyo]
url = "https://management.ameyo.app:8887"
tenant_host = "acme.ameyo.app"
token = "not a real one either"
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that has them."""
    folder = tmp_path_factory.mktemp("package")
    # Of a copy, as git has it: a build leaves directories behind, and finds what earlier ones have left.
    files = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=True, timeout=60
    )
    for name in filter(None, files.stdout.decode().split("\0")):
        if (source := REPOSITORY / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes(source.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "source"],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(archives: Path) -> Path:
    [found] = archives.glob("*.whl")
    return found


def wanted() -> set[str]:
    """Every file of the package, and of FreeSWITCH's configuration, by its name in the wheel."""
    found = {
        str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "eslbot").rglob("*") if path.is_file()
    }
    conf = REPOSITORY / "freeswitch-conf"
    found |= {
        f"eslbot/freeswitch_conf/{path.relative_to(conf)}" for path in conf.rglob("*") if path.is_file()
    }
    return {name for name in found if "__pycache__" not in name and not name.endswith((".pyc", ".pyo"))}


def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = message_from_bytes(archive.read(f"eslbot-{eslbot.__version__}.dist-info/METADATA"))
        names = archive.namelist()
    assert files == wanted()
    kinds = {"eslbot/web/static/page.html", "eslbot/ledger/migrations/script.py.mako", "eslbot/py.typed"}
    assert kinds < files
    assert "eslbot/freeswitch_conf/dialplan/ameyo.xml" in files
    assert any(name.startswith("eslbot/ledger/migrations/versions/") for name in files)
    assert f"eslbot-{eslbot.__version__}.dist-info/licenses/LICENSE" in names
    assert (about["Name"], about["Version"], about["License"]) == ("eslbot", eslbot.__version__, "Apache-2.0")


def test_the_source_archive_has_no_tests_and_no_benchmarks(archives: Path) -> None:
    [found] = archives.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert tops == {
        "CHANGELOG.md",
        "LICENSE",
        "MANIFEST.in",
        "PKG-INFO",
        "README.md",
        "constraints.txt",
        "eslbot",
        "eslbot.egg-info",
        "freeswitch-conf",
        "pyproject.toml",
        "setup.cfg",
        "setup.py",
    }


def test_a_command_comes_out_of_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """This environment lends its dependencies: they are found behind its own, without eslbot."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=120)
    python = environment / "bin" / "python"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "--python",
            python,
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            wheel,
        ],
        check=True,
        timeout=120,
    )
    [packages] = environment.glob("lib/python*/site-packages")
    lent = sysconfig.get_paths()["purelib"]
    (packages / "lent.pth").write_text(lent + "\n")
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(*command: str | Path) -> str:
        done = subprocess.run(
            [*command], cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    place = run(python, "-c", "import eslbot; print(eslbot.__file__)").strip()
    assert Path(place).is_relative_to(environment), "not the one of this checkout"
    command = environment / "bin" / "eslbot"
    assert run(command, "--version").strip().endswith(eslbot.__version__)
    configuration = tmp_path / "eslbot.toml"
    configuration.write_text(CONFIGURATION)
    run(command, "conf", "--config", configuration, "--out", tmp_path / "conf")
    assert (tmp_path / "conf" / "dialplan" / "ameyo.xml").exists(), "templates that come with the wheel"
