"""What `eslbot conf --edge` writes."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner

from eslbot.cli import main
from eslbot.config.model import Address, Config
from eslbot.freeswitch.edge import MARKER, notes, render, texts
from eslbot.freeswitch.files import RenderError
from tests.unit.test_freeswitch_configuration import EDGE, TREE, config, workspace

HERE = Path("/etc/kamailio")
SITE = replace(
    config(
        workspace(1, "acme", ["203.0.113.10", "203.0.113.64/28"]),
        workspace(2, "zeta", ["203.0.113.10", "2001:db8::/64"]),
    ),
    edge=EDGE,
)


def lines(name: str, site: Config = SITE, out: Path = HERE) -> list[str]:
    text = texts(site, out)[Path(name)]
    return [line for line in text.splitlines() if not line.startswith("# ")]


def test_the_addresses_and_where_the_files_are() -> None:
    assert lines("edge.cfg") == [
        "listen=udp:10.0.0.4:5060",
        "listen=tcp:10.0.0.4:5060",
        "listen=udp:10.0.0.4:5070",
        "#!define INNER_PORT 5070",
        '#!substdef "!INNER_SOCKET!udp:10.0.0.4:5070!g"',
        '#!substdef "!EDGE_DIR!/etc/kamailio!g"',
    ]


def test_behind_nat_only_pbxs_are_told_the_public_address() -> None:
    nat = replace(EDGE, external_ip=ip_address("35.227.95.16"))
    udp, tcp, inner = lines("edge.cfg", replace(SITE, edge=nat))[:3]
    assert (udp, tcp) == tuple(
        f"listen={transport}:10.0.0.4:5060 advertise 35.227.95.16:5060" for transport in ("udp", "tcp")
    )
    assert inner == "listen=udp:10.0.0.4:5070"


def test_ipv6_stands_in_brackets() -> None:
    six = replace(
        EDGE, sip_ip=ip_address("2001:db8::4"), switches=(Address(ip_address("2001:db8::5"), 5060),)
    )
    assert lines("edge.cfg", replace(SITE, edge=six))[0] == "listen=udp:[2001:db8::4]:5060"
    assert lines("dispatcher.list", replace(SITE, edge=six)) == ["1 sip:[2001:db8::5]:5060"]


def test_every_source_stands_there_once_and_says_whose_it_is() -> None:
    assert lines("address.list") == [
        "1 203.0.113.10 32 0 60/acme,zeta",
        "1 203.0.113.64 28 0 30/acme",
        "1 [2001:db8::] 64 0 30/zeta",
    ]


def test_networks_in_each_other_are_cut_so_that_each_address_stands_there_once() -> None:
    site = replace(
        config(workspace(1, "acme", ["203.0.113.8/30"]), workspace(2, "zeta", ["203.0.113.10"])), edge=EDGE
    )
    assert lines("address.list", site) == [
        "1 203.0.113.8 31 0 30/acme",
        "1 203.0.113.10 32 0 60/acme,zeta",
        "1 203.0.113.11 32 0 30/acme",
    ]


def test_kamailio_cfg_is_a_copy_and_knows_its_names(tmp_path: Path) -> None:
    render(SITE, tmp_path)
    text = (tmp_path / "kamailio.cfg").read_text()
    assert text == (TREE / "kamailio" / "kamailio.cfg").read_text()
    assert MARKER in text
    for name in (
        "INNER_PORT",
        "INNER_SOCKET",
        "EDGE_DIR/address.list",
        "EDGE_DIR/dispatcher.list",
        '"edge.cfg"',
    ):
        assert name in text


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    assert {change.what for change in render(SITE, tmp_path)} == {"written"}
    assert {change.what for change in render(SITE, tmp_path)} == {"unchanged"}


def test_the_packages_own_configuration_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "kamailio.cfg").write_text("#!KAMAILIO\n")
    with pytest.raises(RenderError, match="--force"):
        render(SITE, tmp_path)
    assert (tmp_path / "kamailio.cfg").read_text() == "#!KAMAILIO\n"
    assert not (tmp_path / "edge.cfg").exists()
    render(SITE, tmp_path, force=True)
    assert MARKER in (tmp_path / "kamailio.cfg").read_text()


@pytest.mark.parametrize("out", ["kamailio", "/etc/my kamailio", "/etc/k!m", '/etc/k"m', "/etc/k\nm"])
def test_a_path_that_kamailio_cannot_hold_is_refused(out: str) -> None:
    with pytest.raises(RenderError, match="--out"):
        texts(SITE, Path(out))


def test_without_an_edge_there_is_nothing_to_write() -> None:
    with pytest.raises(RenderError, match=r"no \[edge\]; add the table"):
        texts(replace(SITE, edge=None), HERE)


def test_a_directory_that_cannot_be_written_is_a_clear_error() -> None:
    with pytest.raises(RenderError, match="cannot write"):
        render(SITE, Path("/proc/eslbot"))


def test_the_command(tmp_path: Path) -> None:
    toml = tmp_path / "eslbot.toml"
    toml.write_text(
        """
        [edge]
        sip_ip = "10.0.0.4"
        switches = ["10.0.0.5:5060"]
        [workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5]
        name = "acme"
        sources = ["203.0.113.10"]
        bot = { url = "wss://bot.example.com/" }
        ameyo = { url = "https://a.example.com", tenant_host = "a.example.com", token = "t" }
        """
    )
    out = tmp_path / "k"
    result = CliRunner().invoke(main, ["conf", "--edge", "--config", str(toml), "--out", str(out)])
    assert (result.exit_code, sorted(path.name for path in out.iterdir())) == (
        0,
        ["address.list", "dispatcher.list", "edge.cfg", "kamailio.cfg"],
    )
    assert all(note in result.output for note in notes(out))
    toml.write_text(
        toml.read_text().replace("[edge]", "[logs]").replace("sip_ip", "#").replace("switches", "#")
    )
    result = CliRunner().invoke(main, ["conf", "--edge", "--config", str(toml), "--out", str(out)])
    assert (result.exit_code, "no [edge]" in result.output) == (2, True)
