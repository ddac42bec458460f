"""scripts/install, into a directory of its own: what is there afterwards, and what is not touched."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from eslbot.config import load
from eslbot.sim.processes import is_alive
from tests.process.install.machine import (
    AS_ROOT,
    ENVIRONMENT,
    ESLBOT,
    NEEDS_ESLBOT,
    REPOSITORY,
    SWITCH,
    everything,
    install,
    lines_in_data,
    machine,
    mode,
    sources,
)
from tests.support.peer import eventually
from tests.support.processes import EslbotService, tree

pytestmark = NEEDS_ESLBOT


def test_everything_is_there_with_the_rights_it_needs(installed: Path) -> None:
    modes = {
        "opt/eslbot": "755",
        "etc/eslbot": "750",
        "etc/eslbot/eslbot.toml": "640",
        "etc/eslbot/secrets.env": "640",
        "var/lib/eslbot": "751",
        "var/lib/eslbot/journal": "700",
        "var/log/eslbot": "750",
        "var/log/eslbot/eslbot.log": "640",
        "var/backups/eslbot": "700",
        "run/eslbot": "755",
        "run/eslbot/lines": "2750",
        "run/freeswitch-db": "700",
        "etc/tmpfiles.d/eslbot.conf": "644",
        "etc/freeswitch/vars.xml": "640",
        "etc/eslbot/eslbot.nft": "640",
        "etc/systemd/system/eslbot.service": "644",
        "etc/systemd/system/eslbot-firewall.service": "644",
        "etc/systemd/system/freeswitch.service.d/eslbot.conf": "644",
        "etc/logrotate.d/eslbot": "644",
        "usr/local/bin/eslbot": "755",
        "usr/local/share/man/man1/eslbot-reload.1": "644",
    }
    assert {path: mode(installed / path) for path in modes} == modes
    assert (installed / "opt/eslbot/current/bin/eslbot").exists()
    assert (installed / "etc/tmpfiles.d/eslbot.conf").read_text() == (
        "d /run/eslbot 0755 root root\nd /run/eslbot/lines 2750 eslbot freeswitch\n"
        "d /run/freeswitch-db 0700 freeswitch freeswitch\n"
    )


def switch_user(root: Path) -> str | None:
    return load(root / "etc/eslbot/eslbot.toml", {}).server.switch_user


def test_no_other_local_user_may_speak_to_the_service(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    root = machine(tmp_path / "other")
    assert switch_user(installed) == "freeswitch"
    passwd = root / "etc/passwd"
    passwd.write_text(passwd.read_text() + "telephony:x:51237:51237::/:/bin/false\n")
    group = root / "etc/group"
    group.write_text(group.read_text() + "telephony:x:51237:\n")
    install(root, "--freeswitch-user", "telephony")
    assert switch_user(root) == "telephony"

    (tmp_path / "alone").mkdir()
    alone = machine(tmp_path / "alone")
    install(alone, "--no-freeswitch")
    assert switch_user(alone) is None, "FreeSWITCH is another machine, whose users are not this one's"


@pytest.mark.skipif(not AS_ROOT, reason="only root may give files away")
def test_each_file_belongs_to_who_uses_it(installed: Path) -> None:
    owners = {
        "etc/eslbot/eslbot.toml": (0, ESLBOT),
        "etc/eslbot/secrets.env": (0, ESLBOT),
        "var/lib/eslbot": (ESLBOT, ESLBOT),
        "var/lib/eslbot/journal": (ESLBOT, ESLBOT),
        "var/log/eslbot": (0, ESLBOT),
        "var/log/eslbot/eslbot.log": (ESLBOT, ESLBOT),
        "run/eslbot": (0, 0),
        "run/eslbot/lines": (ESLBOT, SWITCH),
        "run/freeswitch-db": (SWITCH, SWITCH),
        "etc/freeswitch/vars.xml": (SWITCH, SWITCH),
    }
    found = {path: ((installed / path).stat().st_uid, (installed / path).stat().st_gid) for path in owners}
    assert found == owners


def test_lines_may_be_below_what_is_the_services_own(installed: Path) -> None:
    """FreeSWITCH's group reads them, which the service's user gives them by itself."""
    lines_in_data(installed)
    install(installed)
    lines = installed / "var/lib/eslbot/lines"
    assert mode(lines) == "2750"
    assert "lines" not in (installed / "etc/tmpfiles.d/eslbot.conf").read_text()
    if AS_ROOT:
        assert (lines.stat().st_uid, lines.stat().st_gid) == (ESLBOT, SWITCH)
    assert install(installed).endswith("\n0 changes\n")


def test_a_second_run_changes_nothing(installed: Path) -> None:
    before = everything(installed)
    said = install(installed)
    assert everything(installed) == before
    assert said.endswith("\n0 changes\n")


def test_a_dry_run_says_every_step_and_changes_nothing(root: Path) -> None:
    before = everything(root)
    said = install(root, "--dry-run")
    assert everything(root) == before
    for step in (
        "opt/eslbot/releases/",
        "etc/eslbot/eslbot.toml",
        "etc/freeswitch",
        "eslbot.service",
        "current",
    ):
        assert any(line.startswith("would ") and step in line for line in said.splitlines()), step
    assert "change " not in said
    first = install(root)
    assert said.count("\nwould ") <= first.count("\nchange ")


def test_the_configuration_and_the_secrets_are_never_written_over(installed: Path) -> None:
    config, secrets = installed / "etc/eslbot/eslbot.toml", installed / "etc/eslbot/secrets.env"
    config.write_text(config.read_text().replace('token = "demo-token"', 'token = "${DEMO_TOKEN}"'))
    secrets.write_text("# mine\nDEMO_TOKEN='a quoted \"secret\"'\n")
    secrets.chmod(0o644)
    before = config.read_bytes(), secrets.read_bytes()
    said = install(installed)
    assert (config.read_bytes(), secrets.read_bytes()) == before
    assert mode(secrets) == "640"
    assert "a quoted" not in said


def test_a_configuration_that_the_new_code_cannot_use_leaves_what_ran_before(installed: Path) -> None:
    release = (installed / "opt/eslbot/current").readlink()
    config = installed / "etc/eslbot/eslbot.toml"
    config.write_text(config.read_text().replace("workers = 2", 'workers = "${MISSING}"'))
    before = everything(installed / "etc")
    said = install(installed, code=1)
    assert "server.workers: the environment variable MISSING is not set" in said
    assert "Mend" in said
    assert (installed / "opt/eslbot/current").readlink() == release
    assert everything(installed / "etc") == before


def test_what_the_switch_had_is_in_a_backup_and_comes_back(installed: Path) -> None:
    conf = installed / "etc/freeswitch"
    before = everything(conf)
    sources(installed, "203.0.113.7")
    said = install(installed)
    assert "203.0.113.7/32" in (conf / "autoload_configs/acl.conf.xml").read_text()
    assert "written: " in said
    changed = everything(conf)
    (conf / "stray.xml").write_text("<x/>")

    install(installed, "--rollback-conf")
    assert everything(conf).keys() == before.keys()
    assert [row[:4] for row in everything(conf).values()] == [row[:4] for row in before.values()]
    install(installed, "--rollback-conf")
    assert {"stray.xml", *changed} == everything(conf).keys()
    backups = sorted((installed / "var/backups/eslbot").iterdir())
    assert {mode(backup) for backup in backups} == {"600"}
    assert tarfile.is_tarfile(backups[-1])


def test_a_switch_configuration_of_somebody_elses_is_replaced_only_when_told(root: Path) -> None:
    conf = root / "etc/freeswitch"
    (conf / "freeswitch.xml").write_text("<document/>")
    (conf / "directory").mkdir()
    said = install(root, code=1)
    assert "not eslbot's" in said
    assert "--replace-freeswitch-conf" in said
    assert (conf / "freeswitch.xml").read_text() == "<document/>"
    assert not (root / "opt/eslbot/current").exists()

    install(root, "--replace-freeswitch-conf")
    assert "eslbot:freeswitch-conf" in (conf / "freeswitch.xml").read_text()
    install(root, "--rollback-conf")
    assert (conf / "freeswitch.xml").read_text() == "<document/>"


def test_the_firewall_follows_the_sources_and_can_be_left_out(installed: Path) -> None:
    rules, unit = (
        installed / "etc/eslbot/eslbot.nft",
        installed / "etc/systemd/system/eslbot-firewall.service",
    )
    assert "127.0.0.1 : goto from_demo" in rules.read_text()
    sources(installed, "203.0.113.10", "127.0.0.1")
    install(installed)
    assert "203.0.113.10 : goto from_demo" in rules.read_text()
    assert "0 changes" in install(installed)
    install(installed, "--no-firewall")
    assert not rules.exists()
    assert not unit.exists()
    assert "0 changes" in install(installed, "--no-firewall")


def test_paths_elsewhere_are_opened_to_the_service(installed: Path) -> None:
    config = installed / "etc/eslbot/eslbot.toml"
    config.write_text(
        config.read_text()
        .replace("/run/eslbot/lines", "/srv/lines")
        .replace("/var/lib/eslbot/calls.db", "/srv/db/calls.db")
    )
    install(installed)
    paths = installed / "etc/systemd/system/eslbot.service.d/paths.conf"
    assert paths.read_text() == "[Service]\nReadWritePaths=-/srv/lines -/srv/db\n"
    assert mode(installed / "srv/lines") == "2750"
    assert "lines" not in (installed / "etc/tmpfiles.d/eslbot.conf").read_text()
    shutil.copy(REPOSITORY / "deploy/eslbot.toml", config)
    install(installed)
    assert not paths.exists()


def environments(folder: Path) -> Iterator[Path]:
    """Environments that differ from the tests' own by name only."""
    for number in range(1, 6):
        path = folder / f"environment-{number}"
        (path / "bin").mkdir(parents=True)
        for program in (ENVIRONMENT / "bin").iterdir():
            if program.name.startswith("python"):
                (path / "bin" / program.name).symlink_to(program.resolve())
        shutil.copy(ENVIRONMENT / "pyvenv.cfg", path)
        (path / "lib").symlink_to(ENVIRONMENT / "lib")
        command = path / "bin" / "eslbot"
        command.write_text(
            f"#!{path}/bin/python\nfrom eslbot.__main__ import main\nraise SystemExit(main())\n"
        )
        command.chmod(0o755)
        yield path


class InstalledService(EslbotService):
    """eslbot as the unit starts it: by its command, behind the symbolic link ``current``."""

    current: Path

    def same_command(self) -> list[str]:
        return [str(self.current / "bin/eslbot"), "serve", "--config", str(self.config)]


def release(root: Path, path: Path, name: str) -> None:
    """Another release, older than those to come."""
    (root / "opt/eslbot/releases" / name).symlink_to(path)


def test_three_releases_are_kept_and_the_one_before_comes_back(root: Path, tmp_path: Path) -> None:
    made = environments(tmp_path)
    (root / "opt/eslbot/releases").mkdir(parents=True)
    for name in ("a", "b", "c"):
        release(root, next(made), name)
    (root / "opt/eslbot/current").symlink_to("releases/a")
    said = install(root)
    new = (root / "opt/eslbot/current").readlink().name
    left = {path.name for path in (root / "opt/eslbot/releases").iterdir()}
    assert {"a", new} < left
    assert len(left) == 3, said
    install(root, "--rollback")
    assert (root / "opt/eslbot/current").readlink().name == "a"
    install(root, "--rollback")
    assert (root / "opt/eslbot/current").readlink().name == new


def test_a_running_service_changes_to_the_new_release(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(tmp_path / "notify"))
    systemd.settimeout(10)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    made = environments(tmp_path)
    (root / "opt/eslbot/releases").mkdir(parents=True)
    release(root, next(made), "old")
    current = root / "opt/eslbot/current"
    current.symlink_to("releases/old")
    service = InstalledService(tmp_path, tree())
    service.current = current
    with systemd, service:
        eventually(service.ready, 15)
        old = service.process.pid
        said = install(root, "--pid", str(old), environment=next(made))
        assert service.process.wait(timeout=20) == 0
        new = int(said.partition("told       process ")[2].split()[0])
        try:
            assert "environment-2/bin/python" in Path(f"/proc/{new}/cmdline").read_text()
            assert service.get("/healthz")[0] == 200
            told = [systemd.recv(1000).decode().partition("\n")[0] for _ in range(3)]
            assert told == ["READY=1", "READY=1", f"MAINPID={new}"]
            assert "the service runs" in install(
                root, "--pid", str(new), environment=tmp_path / "environment-2"
            )
        finally:
            os.kill(new, 15)
            eventually(lambda: not is_alive(new), 20)


def test_uninstalling_keeps_what_is_the_operators(installed: Path) -> None:
    said = install(installed, "--uninstall")
    for gone in (
        "opt/eslbot",
        "etc/systemd/system/eslbot.service",
        "etc/systemd/system/eslbot-firewall.service",
        "etc/eslbot/eslbot.nft",
        "etc/logrotate.d/eslbot",
        "usr/local/bin/eslbot",
        "usr/local/share/man/man1/eslbot-reload.1",
    ):
        assert not (installed / gone).exists(), gone
    for kept in (
        "etc/eslbot/eslbot.toml",
        "etc/eslbot/secrets.env",
        "var/lib/eslbot",
        "etc/freeswitch/vars.xml",
    ):
        assert (installed / kept).exists(), kept
    assert "kept" in said


def test_freeswitchs_logs_are_closed_to_others(root: Path) -> None:
    """``freeswitch.xml.fsxml`` is there, with the event socket's password in it."""
    logs = root / "var/log/freeswitch"
    logs.mkdir(parents=True)
    logs.chmod(0o755)
    install(root)
    assert mode(logs) == "750"


def test_a_key_of_the_service_s_is_kept(installed: Path) -> None:
    key = installed / "var/lib/eslbot/identity.key"
    key.write_bytes(b"of the service")
    key.chmod(0o600)
    before = everything(key.parent)
    install(installed)
    install(installed, "--uninstall")
    assert everything(key.parent) == before


def test_the_units_leave_no_core_files_and_let_the_service_ask_the_kernel(installed: Path) -> None:
    units = installed / "etc/systemd/system"
    service = (units / "eslbot.service").read_text().splitlines()
    switch = (units / "freeswitch.service.d/eslbot.conf").read_text().splitlines()
    assert "LimitCORE=0" in service
    assert "LimitCORE=0" in switch
    assert "UMask=0007" in service
    assert "UMask=0007" in switch
    assert {"Restart=always", "RestartSec=0", "StartLimitIntervalSec=60"} <= set(switch)
    assert "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK" in service


def test_the_unit_runs_what_is_there_before_each_start(installed: Path) -> None:
    """`-`: whatever becomes of it, FreeSWITCH starts; `timeout`, because it has to start at once."""
    switch = (installed / "etc/systemd/system/freeswitch.service.d/eslbot.conf").read_text().splitlines()
    (line,) = (line for line in switch if line.startswith("ExecStartPre="))
    words = line.removeprefix("ExecStartPre=").split()
    assert words[:4] == ["-+/usr/bin/timeout", "-s", "KILL", "5"]
    work = installed / "run"
    (installed / "etc/eslbot/eslbot.toml").write_text(
        f'[freeswitch]\ndb = "{work}/freeswitch-db"\nrecovery_file = "{work}/eslbot/freeswitch.json"\n'
    )
    command = [str(installed / word[1:]) if word.startswith(("/opt", "/etc")) else word for word in words[4:]]
    # No other user reaches this directory: FreeSWITCH's is who runs the test.
    command[-1] = pwd.getpwuid(os.geteuid()).pw_name
    os.chown(work / "freeswitch-db", os.geteuid(), os.getegid())
    subprocess.run(command, check=True, timeout=60)
    assert mode(work / "freeswitch-db/core.db") == "600"
    assert mode(work / "eslbot/freeswitch.json") == "644"


def test_the_unit_and_the_directory_are_those_of_the_configuration(installed: Path) -> None:
    path = installed / "etc/eslbot/eslbot.toml"
    path.write_text(path.read_text().replace("\n[freeswitch]\n", '\n[freeswitch]\ndb = "/run/other/db"\n'))
    install(installed)
    unit = (installed / "etc/systemd/system/freeswitch.service.d/eslbot.conf").read_text()
    assert " -db /run/other/db\n" in unit
    assert "/run/freeswitch-db" not in unit
    assert mode(installed / "run/other/db") == "700"
    assert (
        "d /run/other/db 0700 freeswitch freeswitch\n"
        in (installed / "etc/tmpfiles.d/eslbot.conf").read_text()
    )


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--nonsense"], "unknown option --nonsense"),
        (["--pid", "999999999"], "no such process"),
        (["--pid", "1/../1"], "no such process"),
        (["--extras", "sim,evil"], "postgres, sim or both"),
        (["--freeswitch-conf", "etc"], "absolute"),
        (["--freeswitch-user"], "needs a value"),
        (["--freeswitch-user", "a b"], "that is no user's name"),
    ],
)
def test_a_wrong_option_is_named(root: Path, options: list[str], expected: str) -> None:
    before = everything(root)
    assert expected in install(root, *options, code=2)
    assert everything(root) == before


def test_two_at_a_time_are_refused(installed: Path) -> None:
    with subprocess.Popen(
        ["flock", str(installed / "opt/eslbot"), "sh", "-c", "echo locked; read wait"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        assert "another scripts/install is running" in install(installed, code=2)
        other.communicate(b"\n", timeout=10)


def test_the_sample_is_a_configuration_and_its_tenant_in_comments_is_one_too(tmp_path: Path) -> None:
    text = (REPOSITORY / "deploy/eslbot.toml").read_text()
    path = tmp_path / "eslbot.toml"
    path.write_text(text)
    assert [workspace.name for workspace in load(path, {}).workspaces.values()] == ["demo"]
    keys = ("name   ", "sources", "url", "headers", "tenant_host", "token", "properties")
    uncommented = "\n".join(
        line.removeprefix("# ") if line.startswith(("# [", *(f"# {key} " for key in keys))) else line
        for line in text.splitlines()
    )
    path.write_text(uncommented)
    secrets = {"ACME_BOT_TOKEN": "x", "ACME_AMEYO_TOKEN": "y", "PAGE_TOKEN": "z" * 16}
    assert {workspace.name for workspace in load(path, secrets).workspaces.values()} == {"acme", "demo"}
