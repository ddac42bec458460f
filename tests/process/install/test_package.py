"""The archives that are handed out: what is in them, and that a command comes out of an empty environment.

Built once, each wheel from its source archive: so that has all that a build needs.
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
    # Hatchling is here, and of what it was made with the stand-ins' wheel does not depend.
    for project, options in ((folder / "source", []), (folder / "source/eslbot/sim", ["--no-isolation"])):
        done = subprocess.run(
            [sys.executable, "-m", "build", *options, "--outdir", folder / "dist", project],
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(archives: Path) -> Path:
    [found] = archives.glob("eslbot-*.whl")
    return found


@pytest.fixture(scope="module")
def stand_ins(archives: Path) -> Path:
    [found] = archives.glob("eslbot_sim-*.whl")
    return found


def of_the_package() -> set[str]:
    """Every file of it, by its name in a wheel."""
    found = {
        str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / "eslbot").rglob("*") if path.is_file()
    }
    return {name for name in found if "__pycache__" not in name and not name.endswith((".pyc", ".pyo"))}


def wanted() -> set[str]:
    """Every file of the package but the stand-ins', and of FreeSWITCH's configuration."""
    found = {name for name in of_the_package() if not name.startswith("eslbot/sim/")}
    conf = REPOSITORY / "freeswitch-conf"
    found |= {
        f"eslbot/freeswitch_conf/{path.relative_to(conf)}"
        for path in conf.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    return found


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


def test_the_stand_ins_are_a_distribution_of_their_own(stand_ins: Path) -> None:
    with zipfile.ZipFile(stand_ins) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = message_from_bytes(archive.read(f"eslbot_sim-{eslbot.__version__}.dist-info/METADATA"))
    assert files == {
        name for name in of_the_package() if name.startswith("eslbot/sim/") and not name.endswith(".toml")
    }
    assert {"eslbot/sim/loadtest/run.py", "eslbot/sim/scenarios/uac.xml"} < files
    assert about["Version"] == eslbot.__version__
    assert about.get_all("Requires-Dist") == [f"eslbot[sim]=={eslbot.__version__}"]


def test_the_source_archive_has_no_tests_no_benchmarks_and_no_stand_ins(archives: Path) -> None:
    [found] = archives.glob("eslbot-*.tar.gz")
    with tarfile.open(found) as archive:
        names = archive.getnames()
    assert not [name for name in names if "/eslbot/sim" in name]
    tops = {name.split("/")[1] for name in names if "/" in name}
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


def install(python: Path, wheel: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-index"]
    command = [sys.executable, "-m", "pip", "--python", python, "install", *options, wheel]
    subprocess.run(command, check=True, timeout=120)


def test_a_command_comes_out_of_an_empty_environment(wheel: Path, stand_ins: Path, tmp_path: Path) -> None:
    """This environment lends its dependencies: they are found behind its own, without eslbot."""
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=120)
    python = environment / "bin" / "python"
    install(python, wheel)
    [packages] = environment.glob("lib/python*/site-packages")
    lent = sysconfig.get_paths()["purelib"]
    (packages / "lent.pth").write_text(lent + "\n")
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(*command: str | Path, code: int = 0) -> str:
        done = subprocess.run(
            [*command], cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr if code else done.stdout

    place = run(python, "-c", "import eslbot; print(eslbot.__file__)").strip()
    assert Path(place).is_relative_to(environment), "not the one of this checkout"
    command = environment / "bin" / "eslbot"
    assert run(command, "--version").strip().endswith(eslbot.__version__)
    configuration = tmp_path / "eslbot.toml"
    configuration.write_text(CONFIGURATION)
    run(command, "conf", "--config", configuration, "--out", tmp_path / "conf")
    assert (tmp_path / "conf" / "dialplan" / "ameyo.xml").exists(), "templates that come with the wheel"

    for words in (["demo"], ["sim", "switch"], ["sim", "bot"], ["loadtest", "rate"]):
        [told] = run(command, *words, code=2).splitlines()
        assert "eslbot-sim" in told and "scripts/install --extras sim" in told
    install(python, stand_ins)
    place = run(python, "-c", "import eslbot.sim.loadtest.run as run; print(run.__file__)").strip()
    assert Path(place).is_relative_to(environment), "not the one of this checkout"
    told = run(command, "loadtest", "ramp", "--from", "3", "--to", "1", code=2)
    assert "a ramp goes up" in told
