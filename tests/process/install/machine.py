"""A machine that scripts/install finds, and what it makes of it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
INSTALL = REPOSITORY / "scripts" / "install"
#: An environment that has eslbot: the one the tests run in.
ENVIRONMENT = Path(sys.prefix)
AS_ROOT = os.geteuid() == 0
#: Of the files here that install.
NEEDS_ESLBOT = pytest.mark.skipif(
    not (ENVIRONMENT / "bin" / "eslbot").exists(), reason="eslbot's command is not in this environment"
)

ESLBOT, SWITCH = 51234, 51235


def machine(folder: Path) -> Path:
    """One with FreeSWITCH's user and an empty configuration of its, on which eslbot's accounts are."""
    root = folder / "machine"
    (root / "etc" / "freeswitch").mkdir(parents=True)
    (root / "etc" / "passwd").write_text(
        "root:x:0:0::/root:/bin/sh\n"
        f"freeswitch:x:{SWITCH}:{SWITCH}::/:/bin/false\n"
        f"eslbot:x:{ESLBOT}:{ESLBOT}::/:/bin/false\n"
    )
    (root / "etc" / "group").write_text(f"root:x:0:\nfreeswitch:x:{SWITCH}:eslbot\neslbot:x:{ESLBOT}:\n")
    return root


def lines_in_data(root: Path) -> None:
    """The line files are where they are without the key, below what is the service's own."""
    path = root / "etc/eslbot/eslbot.toml"
    path.write_text(path.read_text().replace("/run/eslbot/lines", "/var/lib/eslbot/lines"))


def install(root: Path, *options: str, code: int = 0, environment: Path = ENVIRONMENT) -> str:
    made = ["--venv", str(environment)] if not {"--rollback", "--uninstall"} & {*options} else []
    done = subprocess.run(
        [str(INSTALL), "--root", str(root), *made, *options],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def everything(root: Path) -> dict[str, tuple[int, int, int, bytes, int]]:
    """Mode, owner, group, content and time of every file."""
    found = {}
    for path in sorted(root.rglob("*")):
        about = path.lstat()
        if path.is_symlink():
            content = os.fsencode(path.readlink())
        else:
            content = path.read_bytes() if path.is_file() else b""
        name = str(path.relative_to(root))
        found[name] = (about.st_mode, about.st_uid, about.st_gid, content, about.st_mtime_ns)
    return found


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


def sources(root: Path, *networks: str) -> None:
    """The operator changes the sources of the demo tenant."""
    path = root / "etc/eslbot/eslbot.toml"
    path.write_text(path.read_text().replace('sources = ["127.0.0.1"]', f"sources = {list(networks)!r}"))


def copied(root: Path, folder: Path) -> Path:
    subprocess.run(["cp", "-a", str(root), str(folder / "machine")], check=True, timeout=60)
    return folder / "machine"
