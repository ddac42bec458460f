"""``eslbot reload`` against a service that runs, and a FreeSWITCH that answers, refuses or hangs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
import tomli_w
from click.testing import CliRunner, Result

import eslbot
from eslbot.admin.config_diff import between
from eslbot.cli import main
from eslbot.config import load
from eslbot.freeswitch import firewall
from eslbot.freeswitch.configuration import ACL, render
from eslbot.server import status_file
from tests.support.inbound_switch import PASSWORD, InboundSwitch, Spoiled
from tests.support.processes import EslbotService, tree

ZETA = "3c48cb28-8c31-4c4f-c249-2272f462e6d6"
RELOADED = {"reloadxml": "+OK [Success]\n", "reloadacl": "+OK acl reloaded\n"}


class Site:
    """A service that runs, the file of its configuration, and a FreeSWITCH's event socket and directory."""

    def __init__(self, folder: Path) -> None:
        self.switch = InboundSwitch()
        configuration = tree()
        configuration["freeswitch"] = {
            "event_socket": f"127.0.0.1:{self.switch.port}",
            "event_socket_password": PASSWORD,
        }
        self.service = EslbotService(folder, configuration)
        self.conf = folder / "freeswitch"
        self.heard = 0
        self.first: dict[str, Any] = {}

    def rendered(self, spoiled: Spoiled | None = None) -> None:
        """FreeSWITCH has what the file says now."""
        config = load(self.service.config)
        if not self.conf.exists():
            render(config, self.conf)
        self.switch.holds(config, spoiled or Spoiled(replies=RELOADED))

    @property
    def workspaces(self) -> dict[str, Any]:
        found: dict[str, Any] = self.service.tree["workspaces"]
        return found

    def add(self, name: str = "zeta", source: str = "127.0.0.7") -> None:
        (acme,) = [table for table in self.workspaces.values() if table["name"] == "acme"]
        self.workspaces[ZETA] = {**acme, "name": name, "sources": [source]}
        self.write()

    def write(self) -> None:
        self.service.write(self.service.tree)

    def begin(self) -> None:
        """As it was at the start, whatever the test before has done: file, service, FreeSWITCH, directory."""
        self.service.tree.clear()
        self.service.tree.update(deepcopy(self.first))
        self.write()
        shutil.rmtree(self.conf, ignore_errors=True)
        self.rendered()
        notice = self.notice()
        if between(notice, load(self.service.config)).any or notice.state != status_file.UP:
            assert self.reload("--no-freeswitch").exit_code == 0
        self.switch.asked.clear()
        self.heard = self.notice().hups

    @property
    def hups(self) -> int:
        """How many the service has heard since."""
        return self.notice().hups - self.heard

    def reload(self, *options: str) -> Result:
        arguments = ["reload", "--config", str(self.service.config), "--freeswitch-conf", str(self.conf)]
        return CliRunner().invoke(main, [*arguments, *options])

    def notice(self) -> status_file.Notice:
        return status_file.running(load(self.service.config), self.service.config)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("site"))
    with found.switch, found.service:
        found.first = deepcopy(found.service.tree)
        yield found


@pytest.fixture
def site(running: Site) -> Site:
    running.begin()
    return running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Site]:
    """One that may be ended."""
    found = Site(tmp_path)
    with found.switch, found.service:
        found.rendered()
        yield found


def told_to_switch(site: Site) -> list[str]:
    """What it was told to do; the page process looks at it, too."""
    return [command for command in site.switch.asked if command.startswith(("reload", "acl"))]


def steps(result: Result) -> list[tuple[str, bool | None]]:
    return [(step["step"], step["ok"]) for step in json.loads(result.stdout)["steps"]]


def told(result: Result, ok: bool | None = False) -> str:
    return "\n".join(
        f"{step['told']} | {step['remedy']}"
        for step in json.loads(result.stdout)["steps"]
        if step["ok"] is ok
    )


def test_a_new_tenant_is_in_force_everywhere_and_that_is_said(site: Site) -> None:
    before = site.service.children()
    site.add()
    site.rendered()
    result = site.reload("--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["changes"]["added"] == [{"id": ZETA, "name": "zeta"}]
    assert found["changes"]["changed"] == found["changes"]["removed"] == found["changes"]["keys"] == []
    assert [name for name, ok in steps(result) if ok] == [
        *("configuration", "service", "page", "rendering", "freeswitch", "freeswitch", "acl")
    ]
    assert set(site.service.children()) - set(before)
    assert ZETA in site.notice().tree["workspaces"]
    assert site.hups == 1
    assert "127.0.0.7/32" in (site.conf / ACL).read_text()
    asked = site.switch.asked
    assert asked.index("reloadxml") < asked.index("reloadacl") < asked.index("acl 127.0.0.7 ameyo")
    assert {"progress"} == {key for line in result.stderr.splitlines() for key in json.loads(line)}


def test_for_people_there_is_a_line_a_step(site: Site) -> None:
    site.add()
    site.rendered()
    result = site.reload()
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["ok", "-", "ok", "ok", "ok", "ok", "ok", "ok"]
    assert f"tenant zeta ({ZETA}) is new" in lines[1]


def test_a_configuration_that_cannot_be_used_is_code_2_and_nobody_is_told(site: Site) -> None:
    site.workspaces[next(iter(site.workspaces))]["bot"]["url"] = "http://no-bot"
    site.write()
    result = site.reload("--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    error = json.loads(result.stderr.splitlines()[-1])
    assert error["exit_code"] == 2
    assert "bot.url" in error["problems"][0]
    assert "reloadxml" not in site.switch.asked


def test_a_secret_that_the_service_has_not_is_refused_before_it_is_told(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONLY_OURS", "a-token-of-zetas")
    site.add()
    site.workspaces[ZETA]["ameyo"] = {**site.workspaces[ZETA]["ameyo"], "token": "${ONLY_OURS}"}
    site.write()
    result = site.reload()
    assert result.exit_code == 2
    assert (
        "ONLY_OURS is not set for the service, whose environment only a restart reads again" in result.stderr
    )
    assert site.hups == 0


def test_a_dry_run_says_it_all_and_changes_nothing(site: Site) -> None:
    site.add()
    site.service.tree["server"]["workers"] = 2
    site.service.tree["freeswitch"]["sip_port"] = 5070
    site.write()
    rendered = (site.conf / ACL).read_text()
    result = site.reload("--dry-run", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["dry_run"] is True
    keys = {key["key"]: key for key in found["changes"]["keys"]}
    assert (keys["server.workers"]["before"], keys["server.workers"]["after"]) == (1, 2)
    assert keys["server.workers"]["needs"] == ""
    assert "restart of FreeSWITCH" in keys["freeswitch.sip_port"]["needs"]
    assert found["changes"]["added"][0]["name"] == "zeta"
    assert (site.conf / ACL).read_text() == rendered
    assert site.hups == 0
    assert told_to_switch(site) == []


def test_nothing_new_is_said_and_done_all_the_same(site: Site) -> None:
    result = site.reload("--json")
    assert result.exit_code == 0, result.output
    assert "none: what is in force stands in the file" in told(result, None)
    assert site.hups == 1


def test_a_new_token_is_seen_and_not_told(site: Site) -> None:
    ameyo = site.workspaces[next(iter(site.workspaces))]["ameyo"]
    ameyo["token"] = "another-secret-of-ameyo"
    site.write()
    result = site.reload("--json")
    assert result.exit_code == 0, result.output
    (changed,) = json.loads(result.stdout)["changes"]["changed"]
    assert changed["keys"] == ["secrets"]
    assert "another-secret" not in result.output
    assert "another-secret" not in "".join(path.read_text() for path in site.conf.parent.glob("in-force-*"))


def test_a_removed_tenant_is_told_with_its_calls_and_its_source_is_shut_out(site: Site) -> None:
    site.add()
    site.rendered()
    assert site.reload().exit_code == 0
    del site.workspaces[ZETA]
    site.write()
    held = load(site.service.config)
    site.switch.holds(held, Spoiled(replies=RELOADED))
    result = site.reload("--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["changes"]["removed"] == [{"id": ZETA, "name": "zeta", "calls": 0}]
    assert "acl 127.0.0.7 ameyo" in site.switch.asked
    assert "127.0.0.7/32" not in (site.conf / ACL).read_text()


def test_a_call_of_a_removed_tenant_is_warned_of(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.add()
    site.rendered()
    assert site.reload().exit_code == 0
    del site.workspaces[ZETA]
    site.write()
    site.rendered()
    monkeypatch.setattr("eslbot.admin.live_calls.living_calls", lambda web: {"zeta": 3})
    result = site.reload("--dry-run", "--json")
    assert json.loads(result.stdout)["changes"]["removed"][0]["calls"] == 3
    assert "3 calls of it up; they keep its configuration until they end" in told(result, None)


def test_a_freeswitch_that_has_the_old_list_is_code_1(site: Site) -> None:
    site.add()  # and FreeSWITCH goes on answering as before
    result = site.reload("--json")
    assert result.exit_code == 1
    assert "does not let 127.0.0.7/32 in (zeta)" in told(result)


def test_a_source_that_is_still_let_in_is_code_1(site: Site) -> None:
    site.add()
    site.rendered()
    assert site.reload().exit_code == 0
    del site.workspaces[ZETA]
    site.write()  # and FreeSWITCH goes on answering as before
    result = site.reload("--json")
    assert result.exit_code == 1
    assert "lets 127.0.0.7/32 in, which is nobody's source any more" in told(result)


@pytest.mark.parametrize(
    ("spoiled", "expected"),
    [
        (Spoiled(manners="rude"), "Access Denied"),
        (Spoiled(manners="alien"), "the event socket 127.0.0.1:"),
        (Spoiled(manners="silent"), "no answer to the connection within 0.2 s"),
        (Spoiled(replies={"reloadxml": "-ERR [line 3]: unclosed tag\n"}), "reloadxml: -ERR [line 3]"),
        (Spoiled(replies={"reloadxml": "+OK [Success]\n", "reloadacl": "-ERR\n"}), "reloadacl: -ERR"),
    ],
)
def test_a_freeswitch_that_refuses_or_hangs_is_code_1_with_the_service_changed(
    site: Site, spoiled: Spoiled, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.admin.reload.PATIENCE", 0.2)
    site.rendered(spoiled)
    result = site.reload("--json")
    assert result.exit_code == 1
    assert expected in told(result)
    assert ("service", True) in steps(result)


def test_rules_of_a_firewall_that_lack_the_new_source_are_code_1_with_the_remedy(site: Site) -> None:
    rules = site.service.config.with_name("eslbot.nft")
    try:
        firewall.render(load(site.service.config), rules.parent)
        assert site.reload().exit_code == 0
        site.add()
        site.rendered()
        result = site.reload("--json")
    finally:
        rules.unlink()
    assert result.exit_code == 1
    assert "eslbot conf --firewall --out" in told(result)
    assert ("acl", True) in steps(result)


def test_a_change_that_is_under_way_is_waited_for(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    notices = iter([replace(site.notice(), state=status_file.CHANGING)])
    monkeypatch.setattr(
        "eslbot.admin.reload.running",
        lambda config, path: next(notices, None) or status_file.running(config, path),
    )
    result = site.reload("--json")
    assert result.exit_code == 0, result.output
    assert "in the middle of a change" in result.stderr


def test_without_freeswitch_only_the_service_is_told(site: Site) -> None:
    result = site.reload("--json", "--no-freeswitch")
    assert result.exit_code == 0, result.output
    assert [name for name, _ in steps(result)] == ["configuration", "changes", "service", "page"]
    assert told_to_switch(site) == []


def test_a_directory_that_is_somebody_elses_is_code_1(site: Site) -> None:
    (site.conf / "freeswitch.xml").write_text("<document/>")
    result = site.reload("--json")
    assert result.exit_code == 1
    assert "not eslbot's" in told(result)
    assert "reloadxml" not in site.switch.asked


def test_a_page_whose_address_is_taken_is_code_1(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.admin.reload.PAGE_DUE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        site.service.tree["web"]["listen"] = f"127.0.0.1:{taken.getsockname()[1]}"
        text = site.service.config.read_text()
        old = f"127.0.0.1:{site.service.web_port}"
        site.service.config.write_text(text.replace(old, f"127.0.0.1:{taken.getsockname()[1]}"))
        result = site.reload("--json")
    assert result.exit_code == 1
    assert "the page process does not answer at" in told(result)


def test_a_service_that_hangs_is_code_1_in_time(site: Site) -> None:
    os.kill(site.service.process.pid, signal.SIGSTOP)
    try:
        result = site.reload("--json", "--timeout", "1s")
    finally:
        os.kill(site.service.process.pid, signal.SIGCONT)
    assert result.exit_code == 1
    assert "has not said within 1 s that the change is done" in told(result)


def test_where_no_service_runs_it_is_code_1(own: Site) -> None:
    own.service.process.terminate()
    own.service.process.wait(10)
    result = own.reload("--json")
    assert result.exit_code == 1
    assert "is known to run here: there is no" in told(result)
    assert not list(own.conf.parent.glob("in-force-*"))


def test_one_that_was_killed_is_not_taken_for_one_that_runs(own: Site) -> None:
    own.service.kill()
    result = own.reload("--json")
    assert result.exit_code == 1
    assert "is gone" in told(result)


@pytest.fixture
def notice(tmp_path: Path) -> tuple[Path, Callable[[], status_file.Notice]]:
    """The file that this process has left as a service, and who reads it."""
    path = tmp_path / "eslbot.toml"
    path.write_text(tomli_w.dumps({**tree(), "server": {"key_file": str(tmp_path / "identity.key")}}))
    status_file.StatusFile(path).tell(load(path), 0, status_file.UP, [])
    (file,) = tmp_path.glob("in-force-*.json")
    return file, lambda: status_file.running(load(path), path)


def test_a_notice_tells_what_is_in_force_without_a_secret(
    notice: tuple[Path, Callable[[], status_file.Notice]],
) -> None:
    file, read = notice
    assert file.stat().st_mode & 0o777 == 0o600
    assert "secret-of" not in file.read_text()
    assert read().pid == os.getpid()
    assert read().tree["workspaces"].popitem()[1]["name"] == "acme"


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"pid": "1"}', "\0" * 100, "[" * 100_000])
def test_a_notice_that_is_none_is_no_service(
    notice: tuple[Path, Callable[[], status_file.Notice]], content: str
) -> None:
    file, read = notice
    file.write_text(content)
    with pytest.raises(status_file.NotInForce, match="none of ours"):
        read()


@pytest.mark.parametrize(("key", "value"), [("pid", "1"), ("tree", []), ("problems", "none"), ("salt", 5)])
def test_a_notice_with_another_kind_of_value_is_none(
    notice: tuple[Path, Callable[[], status_file.Notice]], key: str, value: object
) -> None:
    file, read = notice
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(status_file.NotInForce, match="none of ours"):
        read()


def test_a_link_is_no_notice(notice: tuple[Path, Callable[[], status_file.Notice]], tmp_path: Path) -> None:
    file, read = notice
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(status_file.NotInForce, match="cannot be read"):
        read()


def test_a_process_with_that_number_but_another_start_is_not_it(
    notice: tuple[Path, Callable[[], status_file.Notice]],
) -> None:
    file, read = notice
    file.write_text(json.dumps({**json.loads(file.read_text()), "started": 1}))
    with pytest.raises(status_file.NotInForce, match="is gone"):
        read()


def test_a_place_that_takes_no_notice_is_logged_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "eslbot.toml"
    path.write_text(
        tomli_w.dumps({**tree(), "server": {"key_file": str(tmp_path / "none" / "identity.key")}})
    )
    with structlog.testing.capture_logs() as lines:
        status_file.StatusFile(path).tell(load(path), 0, status_file.UP, [])
    assert [line["event"] for line in lines] == ["in_force_not_written"]


def test_the_start_is_logged_with_version_configuration_and_tenants(site: Site) -> None:
    (line,) = [
        line for line in map(json.loads, site.service.log.splitlines()) if line["event"] == "service_starts"
    ]
    assert line["version"] == eslbot.__version__
    assert line["configuration"] == str(site.service.config)
    assert (line["tenants"], line["workers"]) == (["acme"], 1)
