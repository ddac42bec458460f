"""scripts/install runs as root: who has taken over a service leads it nowhere by a link."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.process.install.machine import (
    AS_ROOT,
    ENVIRONMENT,
    ESLBOT,
    INSTALL,
    NEEDS_ESLBOT,
    SWITCH,
    copied,
    everything,
    install,
    lines_in_data,
    mode,
    sources,
)

pytestmark = NEEDS_ESLBOT


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What is none of the service's: a directory of root's with a file that only root reads."""
    folder = tmp_path / "outside"
    folder.mkdir(0o755)
    (folder / "shadow").write_text("root:secret\n")
    (folder / "shadow").chmod(0o600)
    return folder


def as_user(number: int, folder: Path, *command: str | Path) -> None:
    """Do it with that user's rights, in that folder."""
    subprocess.run(command, cwd=folder, check=True, timeout=10, user=number, group=number, extra_groups=[])


def belongs_to(number: int, *paths: Path) -> None:
    for path in paths:
        os.chown(path, number, number)


#: Whose directory, which one, what there is taken away, and what stands there instead, of those outside.
PLANTED = {
    "the journal": (ESLBOT, "var/lib/eslbot", "journal", ""),
    # As releases before this one left it.
    "the log": (ESLBOT, "var/log/eslbot", "eslbot.log", "shadow"),
    "an old log": (ESLBOT, "var/log/eslbot", "eslbot.log.1", "shadow"),
    "a log that would be": (ESLBOT, "var/log/eslbot", "eslbot.log", "new"),
    "the lines": (ESLBOT, "var/lib/eslbot", "lines", ""),
    "the switch's password": (SWITCH, "etc/freeswitch", "vars.xml", "shadow"),
    "the switch's settings": (SWITCH, "etc/freeswitch", "autoload_configs", ""),
    "one of the switch's settings": (SWITCH, "etc/freeswitch/autoload_configs", "acl.conf.xml", "shadow"),
}


@pytest.fixture(scope="module")
def changed(once: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Installed again with other sources, so that there is a backup; by whose directory is looked at."""

    @cache
    def of(user: int) -> Path:
        root = copied(once, tmp_path_factory.mktemp("changed"))
        lines_in_data(root)
        if user == SWITCH:  # as FreeSWITCH's packages have it, at each of its starts
            belongs_to(SWITCH, *(root / "etc/freeswitch").rglob("*"), root / "etc/freeswitch")
        sources(root, "203.0.113.7")
        install(root)
        return root

    return of


@pytest.mark.skipif(not AS_ROOT, reason="only root could be led anywhere")
@pytest.mark.parametrize("again", [(), ("--rollback-conf",)], ids=["install", "rollback"])
@pytest.mark.parametrize("planted", PLANTED)
def test_root_is_led_nowhere_by_the_services_users(
    changed: Callable[[int], Path], outside: Path, tmp_path: Path, planted: str, again: tuple[str, ...]
) -> None:
    """Who has taken over a service puts a link where root will write next: nothing behind it changes."""
    user, folder, name, target = PLANTED[planted]
    installed = copied(changed(user), tmp_path)
    place = installed / folder
    config = installed / "etc/eslbot/eslbot.toml"
    config.write_text(config.read_text().replace("203.0.113.7", "203.0.113.8"))
    belongs_to(user, place)
    before = everything(outside)
    as_user(user, place, "rm", "-rf", name)
    as_user(user, place, "ln", "-s", outside / target, name)
    done = subprocess.run(
        [str(INSTALL), "--root", str(installed), *([] if again else ["--venv", str(ENVIRONMENT)]), *again],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert everything(outside) == before, done.stdout + done.stderr
    if done.returncode:  # it was noticed, and what to do is told
        assert done.returncode == 1
        assert name in done.stderr
        assert "symbolic link" in done.stderr
    elif not again:
        assert not (place / name).is_symlink()
        rendered = installed / "etc/freeswitch/autoload_configs/acl.conf.xml"
        assert "203.0.113.8/32" in rendered.read_text()


@pytest.mark.skipif(not AS_ROOT, reason="only root may give files away")
def test_a_switchs_own_configuration_stays_its_own(installed: Path) -> None:
    """FreeSWITCH's packages give it to FreeSWITCH's user: it has to read what root writes there."""
    conf = installed / "etc/freeswitch"
    belongs_to(SWITCH, conf, *conf.rglob("*"))
    before = {path: path.stat().st_uid for path in conf.rglob("*")}
    sources(installed, "203.0.113.7")
    install(installed)
    assert {path: path.stat().st_uid for path in conf.rglob("*")} == before
    assert mode(conf / "vars.xml") == "640"
    install(installed, "--rollback-conf")
    assert {path: path.stat().st_uid for path in conf.rglob("*")} == before
    assert "203.0.113.7" not in (conf / "autoload_configs/acl.conf.xml").read_text()


@pytest.mark.skipif(not AS_ROOT, reason="only root may give files away")
def test_a_configuration_whose_place_is_somebody_elses_is_refused(installed: Path) -> None:
    conf = installed / "opt/switch/conf"
    conf.mkdir(parents=True)
    belongs_to(SWITCH, conf.parent, conf)
    said = install(installed, "--freeswitch-conf", "/opt/switch/conf", code=1)
    assert f"{conf.parent} is not root's" in said
    assert list(conf.iterdir()) == []


@pytest.mark.skipif(not AS_ROOT, reason="only root may give files away")
def test_links_in_the_directory_of_the_log_go(installed: Path, outside: Path) -> None:
    """systemd opens the log as root, and logrotate copies it as root."""
    logs = installed / "var/log/eslbot"
    belongs_to(ESLBOT, logs)
    (logs / "eslbot.log.2").write_text("kept")
    (logs / "other.log").symlink_to(outside / "shadow")
    os.link(logs / "eslbot.log.2", logs / "hard.log")
    said = install(installed)
    assert "other.log goes" in said
    assert {path.name for path in logs.iterdir()} <= {"eslbot.log", "eslbot.log.2"}
    assert (logs.stat().st_uid, mode(logs)) == (0, "750")
