"""What `eslbot conf --firewall` writes; what a kernel makes of it is in tests/e2e/firewall."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from eslbot.cli import main
from eslbot.config.model import Config
from eslbot.freeswitch.files import RenderError
from eslbot.freeswitch.firewall import MARKER, RULES, notes, render, text
from tests.unit.test_freeswitch_configuration import EDGE, config, workspace

SITE = config(
    replace(workspace(1, "acme", ["203.0.113.10", "203.0.113.64/28"]), max_cps=10, max_calls=200),
    replace(workspace(2, "zeta", ["203.0.113.10", "2001:db8::/64"]), max_cps=5, max_calls=1600),
)


def elements(name: str, site: Config = SITE) -> list[str]:
    """Of a map or set."""
    block = re.search(rf"(?:map|set) {name} \{{(.*?)\n    \}}", text(site), re.S)
    assert block is not None, name
    return [line.strip(" ,") for line in block[1].splitlines() if line.endswith(",")]


def limit(name: str, site: Config = SITE) -> str:
    (found,) = re.findall(rf"limit {name} \{{ rate over (.*) \}}", text(site))
    return str(found)


def test_each_address_leads_to_its_owners_budget() -> None:
    assert elements("callers4") == [
        "203.0.113.10 : goto from_shared/1",
        "203.0.113.64-203.0.113.79 : goto from_acme",
    ]
    assert elements("callers6") == ["2001:db8::-2001:db8::ffff:ffff:ffff:ffff : goto from_zeta"]


def test_budgets_are_wider_than_eslbots_own() -> None:
    assert limit("invites_acme") == "20/second burst 40 packets"
    assert limit("packets_acme") == "400/second burst 800 packets"
    assert limit("connections_acme") == "20/second burst 40 packets"
    assert limit("bytes_acme") == "60 kbytes/second burst 120 kbytes"


def test_all_calls_of_a_tenant_can_be_re_invited_before_a_pbx_gives_them_up() -> None:
    """1,600 of them within 16 s, however few may begin in a second."""
    assert limit("invites_zeta") == "100/second burst 100 packets"


def test_who_shares_an_address_has_the_sum() -> None:
    assert limit("invites_shared/1") == "113/second burst 113 packets"
    assert "# acme,zeta: max_cps = 15, max_calls = 1800" in text(SITE)


def test_ports_are_those_of_the_configuration() -> None:
    site = replace(SITE, freeswitch=replace(SITE.freeswitch, sip_port=5080, rtp_ports=(20000, 30000)))
    assert "th dport 5080 goto sip" in text(site)
    assert "udp dport 20000-30000 goto rtp" in text(site)
    assert "5060" not in text(site)


def test_behind_an_edge_there_are_no_budgets_and_no_callers() -> None:
    site = replace(SITE, edge=EDGE)
    assert elements("edges4", site) == ["10.0.0.4", "10.0.0.14"]
    assert "callers4" not in text(site)
    assert "limit invites_" not in text(site)
    assert elements("media4", site) == ["203.0.113.10", "203.0.113.64-203.0.113.79"]


def test_a_second_run_changes_nothing_and_somebody_elses_file_is_kept(tmp_path: Path) -> None:
    assert [change.what for change in render(SITE, tmp_path)] == ["written"]
    assert [change.what for change in render(SITE, tmp_path)] == ["unchanged"]
    (tmp_path / RULES).write_text("table inet mine { }\n")
    with pytest.raises(RenderError, match="--force"):
        render(SITE, tmp_path)
    assert (tmp_path / RULES).read_text() == "table inet mine { }\n"
    render(SITE, tmp_path, force=True)
    assert MARKER in (tmp_path / RULES).read_text()


def test_the_command(tmp_path: Path) -> None:
    toml = tmp_path / "eslbot.toml"
    toml.write_text(
        """
        [workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5]
        name = "acme"
        sources = ["203.0.113.10"]
        bot = { url = "wss://bot.example.com/" }
        ameyo = { url = "https://a.example.com", tenant_host = "a.example.com", token = "t" }
        """
    )
    command = ["conf", "--firewall", "--config", str(toml), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(main, command)
    assert (result.exit_code, [path.name for path in (tmp_path / "out").iterdir()]) == (0, ["eslbot.nft"])
    assert all(note in result.output for note in notes(tmp_path / "out"))
    assert CliRunner().invoke(main, [*command, "--edge"]).exit_code == 2
