"""What `eslbot conf` writes: the same again the second time, nothing of anybody else's, nothing unescaped."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.config.model import (
    Address,
    Ameyo,
    Bot,
    Config,
    Edge,
    FreeSwitch,
    Secret,
    Server,
    Web,
    Workspace,
    loopback,
)
from eslbot.freeswitch.configuration import _acl, _vars, notes, render
from eslbot.freeswitch.files import RenderError
from eslbot.freeswitch.password import NO_PASSWORD

ROOT = Path(__file__).parents[2]
TREE = ROOT / "freeswitch-conf"
SWITCH = FreeSwitch(
    sip_ip=ip_address("127.0.0.1"),
    sip_port=5060,
    external_ip=None,
    rtp_ports=(10000, 60000),
    event_socket=loopback(8021),
    event_socket_password=None,
    controllers=(loopback(8084),),
)


EDGE = Edge(
    sip_ip=ip_address("10.0.0.4"),
    sip_port=5060,
    inner_port=5070,
    external_ip=None,
    switches=(Address(ip_address("10.0.0.5"), 5060),),
    addresses=(ip_address("10.0.0.4"), ip_address("10.0.0.14")),
)


def workspace(number: int, name: str, sources: Sequence[str]) -> Workspace:
    bot = Bot(("wss://bot.example.com/",), 8000, "files", 3.0, 10.0, {}, False)
    ameyo = Ameyo("https://a.example.com", "a.example.com", Secret("t"), None, (), {}, 3.0, 10.0, False)
    networks = tuple(ip_network(source) for source in sources)
    return Workspace(f"0000000{number}-0000-0000-0000-000000000000", name, networks, 200, 1800.0, bot, ameyo)


def config(*workspaces: Workspace, **switch: object) -> Config:
    server = Server(loopback(8084), (ip_network("127.0.0.1/32"),), 2, 1000)
    workspaces = workspaces or (workspace(1, "demo", ["127.0.0.1"]),)
    return Config(server, replace(SWITCH, **switch), Web(loopback(8085)), {w.id: w for w in workspaces})


def settings(text: str) -> dict[str, str]:
    nodes = ElementTree.fromstring(text).iter("X-PRE-PROCESS")
    return dict(node.attrib["data"].split("=", 1) for node in nodes)


def allowed(text: str, name: str) -> list[str]:
    (found,) = (node for node in ElementTree.fromstring(text).iter("list") if node.get("name") == name)
    assert found.get("default") == "deny"
    assert {node.get("type") for node in found} <= {"allow"}
    return [node.attrib["cidr"] for node in found]


def test_the_tree_in_the_repository_is_what_loopback_defaults_render(tmp_path: Path) -> None:
    render(config(event_socket_password=Secret(NO_PASSWORD)), tmp_path)
    written = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    there = {path.relative_to(TREE) for path in TREE.rglob("*") if path.suffix in (".xml", ".md")}
    assert written == there
    assert {path for path in written if (tmp_path / path).read_bytes() != (TREE / path).read_bytes()} == set()


def test_every_file_is_well_formed_and_every_include_and_variable_exists(tmp_path: Path) -> None:
    render(config(), tmp_path)
    known = {*settings((tmp_path / "vars.xml").read_text()), "local_ip_v4"}
    for path in tmp_path.rglob("*.xml"):
        text = path.read_text()
        for node in ElementTree.fromstring(text).iter("X-PRE-PROCESS"):
            if node.get("cmd") == "include":
                assert (path.parent / node.attrib["data"]).is_file()
        used = {part.split("}")[0] for part in text.split("$${")[1:]}
        assert used <= known


def test_a_second_run_changes_nothing_and_keeps_the_generated_password(tmp_path: Path) -> None:
    first = render(config(), tmp_path)
    assert {change.what for change in first} == {"written"}
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.rglob("*.xml")}
    second = render(config(), tmp_path)
    assert [change.path for change in second] == [change.path for change in first]
    assert {change.what for change in second} == {"unchanged"}
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("*.xml")} == before


def test_a_generated_password_is_long_and_each_directory_has_its_own(tmp_path: Path) -> None:
    passwords = set()
    for name in "ab":
        render(config(), tmp_path / name)
        passwords.add(settings((tmp_path / name / "vars.xml").read_text())["event_socket_password"])
    assert len(passwords) == 2
    assert all(len(password) >= 32 for password in passwords)


def test_the_password_of_the_repository_is_never_kept(tmp_path: Path) -> None:
    render(config(event_socket_password=Secret(NO_PASSWORD)), tmp_path)
    render(config(), tmp_path)
    assert settings((tmp_path / "vars.xml").read_text())["event_socket_password"] != NO_PASSWORD


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    render(config(), tmp_path)
    changes = render(config(workspace(1, "demo", ["203.0.113.10"])), tmp_path)
    assert [c.path.name for c in changes if c.what == "written"] == ["acl.conf.xml"]


def test_modes_are_set_and_mended(tmp_path: Path) -> None:
    render(config(), tmp_path)
    (tmp_path / "vars.xml").chmod(0o644)
    changes = render(config(), tmp_path)
    assert [c.path.name for c in changes if c.what == "written"] == ["vars.xml"]
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*.xml") if path.name != "vars.xml"}
    assert stat.S_IMODE((tmp_path / "vars.xml").stat().st_mode) == 0o640
    assert modes == {0o644}


@pytest.mark.parametrize(
    "name", ["vars.xml", "freeswitch.xml", "autoload_configs", "autoload_configs/acl.conf.xml"]
)
def test_no_symbolic_link_is_followed(tmp_path: Path, name: str) -> None:
    """Root writes it, and the directory may be FreeSWITCH's."""
    out, outside = tmp_path / "conf", tmp_path / "outside"
    render(config(), out)
    (out / name).rename(outside)
    (out / name).symlink_to(outside)

    def there() -> list[bytes]:
        files = [outside] if outside.is_file() else sorted(outside.iterdir())
        return [os.fsencode(file) + file.read_bytes() for file in files]

    before = there()
    try:
        render(config(workspace(1, "demo", ["203.0.113.9"])), out)
    except RenderError as refused:
        assert "symbolic link" in str(refused)
    else:
        assert not (out / name).is_symlink()
    assert there() == before


def test_an_edited_file_is_put_right_and_others_are_left_alone(tmp_path: Path) -> None:
    render(config(), tmp_path)
    (tmp_path / "dialplan" / "ameyo.xml").write_text("<include/>")
    (tmp_path / "dialplan" / "mine.xml").write_text("<include/>")
    changes = render(config(), tmp_path)
    assert [c.path.name for c in changes if c.what == "written"] == ["ameyo.xml"]
    assert (tmp_path / "dialplan" / "mine.xml").read_text() == "<include/>"
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("name", ["freeswitch.xml", "vars.xml", "autoload_configs/switch.conf.xml"])
def test_somebody_elses_configuration_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("<document/>")
    with pytest.raises(RenderError, match="--force"):
        render(config(), tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / name]
    assert {change.what for change in render(config(), tmp_path, force=True)} == {"written"}
    assert {change.what for change in render(config(), tmp_path)} == {"unchanged"}


def test_force_leaves_the_files_of_the_other_configuration_unread(tmp_path: Path) -> None:
    (tmp_path / "sip_profiles").mkdir()
    (tmp_path / "freeswitch.xml").write_text("<document/>")
    (tmp_path / "sip_profiles" / "internal.xml").write_text("<profile/>")
    render(config(), tmp_path, force=True)
    assert (tmp_path / "sip_profiles" / "internal.xml").read_text() == "<profile/>"
    included = [
        node.attrib["data"]
        for path in tmp_path.rglob("*.xml")
        for node in ElementTree.parse(path).iter("X-PRE-PROCESS")
        if node.get("cmd") == "include"
    ]
    assert len(included) == 9
    assert not [data for data in included if "*" in data or "internal" in data]


def test_a_broken_vars_file_is_not_replaced_silently(tmp_path: Path) -> None:
    render(config(), tmp_path)
    (tmp_path / "vars.xml").write_text("<include>")
    with pytest.raises(RenderError, match="not XML any more"):
        render(config(), tmp_path)
    render(config(), tmp_path, force=True)
    assert len(settings((tmp_path / "vars.xml").read_text())["event_socket_password"]) >= 32


def test_a_path_that_cannot_be_a_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RenderError, match="not a directory"):
        render(config(), tmp_path / "file")
    with pytest.raises(RenderError, match="may write"):
        render(config(), tmp_path / "file" / "below")


def test_a_directory_that_cannot_be_written_is_a_clear_error() -> None:
    with pytest.raises(RenderError, match="cannot write"):
        render(config(), Path("/proc/eslbot"))


def test_a_failed_write_leaves_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    render(config(), tmp_path)
    before = (tmp_path / "vars.xml").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RenderError, match="No space left"):
        render(config(sip_port=5070), tmp_path)
    assert (tmp_path / "vars.xml").read_bytes() == before
    assert not list(tmp_path.rglob(".*"))


def test_addresses_and_controllers() -> None:
    nat = config(
        sip_ip=ip_address("10.0.0.5"),
        external_ip=ip_address("35.227.95.16"),
        controllers=(loopback(8084), Address(ip_address("::1"), 8184), loopback(8284)),
    )
    found = settings(_vars(nat, "x"))
    assert (found["sip_ip"], found["external_ip"]) == ("10.0.0.5", "35.227.95.16")
    assert found["controllers"] == "127.0.0.1:8084|::1:8184|127.0.0.1:8284"
    assert found["controllers_rotated"] == "::1:8184|127.0.0.1:8284|127.0.0.1:8084"


def test_without_addresses_the_hosts_own_is_taken_and_announced() -> None:
    found = settings(_vars(config(sip_ip=None, controllers=()), "x"))
    assert (found["sip_ip"], found["external_ip"]) == ("$${local_ip_v4}", "$${sip_ip}")
    assert found["controllers"] == found["controllers_rotated"] == "127.0.0.1:8084"


def test_acl_holds_every_source_once_and_says_whose_it_is() -> None:
    text = _acl(
        config(
            workspace(1, "acme--", ["203.0.113.10", "203.0.113.64/28"]),
            workspace(2, "zeta", ["203.0.113.10", "2001:db8::/64"]),
        )
    )
    assert allowed(text, "ameyo") == ["203.0.113.10/32", "203.0.113.64/28", "2001:db8::/64"]
    nodes = {n.get("cidr"): n.get("description") for n in ElementTree.fromstring(text).iter("node")}
    assert nodes["203.0.113.10/32"] == "acme--, zeta"


def test_behind_an_edge_freeswitch_takes_calls_of_nobody_else() -> None:
    behind = replace(config(workspace(1, "acme", ["203.0.113.10"])), edge=EDGE)
    assert allowed(_acl(behind), "ameyo") == ["10.0.0.4/32", "10.0.0.14/32"]
    assert allowed(_acl(behind), "nobody") == []


def test_behind_an_edge_sip_is_near_and_audio_is_not() -> None:
    """FreeSWITCH takes the edge for who gets the audio, and would announce its inner address to that."""
    nat = config(sip_ip=ip_address("10.0.0.5"), external_ip=ip_address("35.227.95.16"))
    found = settings(_vars(replace(nat, edge=EDGE), "x"))
    assert (found["sip_contact_ip"], found["own_network"]) == ("$${sip_ip}", "nobody")
    assert found["external_ip"] == "35.227.95.16"
    found = settings(_vars(nat, "x"))
    assert (found["sip_contact_ip"], found["own_network"]) == ("$${external_ip}", "localnet.auto")


@pytest.mark.parametrize(
    ("listen", "more"), [("127.0.0.1", []), ("0.0.0.0", []), ("10.0.0.5", ["10.0.0.5/32"])]
)
def test_the_event_socket_is_for_this_host_only(listen: str, more: list[str]) -> None:
    text = _acl(config(event_socket=Address(ip_address(listen), 8021)))
    assert allowed(text, "event-socket") == ["127.0.0.0/8", "::1/128", *more]


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1))
def test_any_password_survives_and_never_breaks_out_of_its_line(password: str) -> None:
    text = _vars(config(), password)
    assert settings(text)["event_socket_password"] == password
    (line,) = (line for line in text.splitlines() if "event_socket_password" in line)
    value = line.partition("event_socket_password=")[2].removesuffix('"/>')
    assert not set(value) & set("\"'<>$")


def test_the_notes_name_the_switch_that_no_file_can_hold(tmp_path: Path) -> None:
    assert any("/var/lib/eslbot/lines" in note for note in notes(config(), tmp_path))


@pytest.mark.parametrize(
    ("seconds", "milliseconds"), [(300.0, "300000"), (1.0, "1000"), (1.5, "1500"), (86400.0, "86400000")]
)
def test_the_media_timeout_is_rendered_in_milliseconds_for_every_call(
    tmp_path: Path, seconds: float, milliseconds: str
) -> None:
    render(config(media_timeout=seconds), tmp_path)
    assert settings((tmp_path / "vars.xml").read_text())["media_timeout"] == milliseconds
    dialplan = ElementTree.parse(tmp_path / "dialplan" / "ameyo.xml")
    (arrival,) = (node for node in dialplan.iter("extension") if node.get("name") == "arrival")
    actions = [node.attrib["data"] for node in arrival.iter("action")]
    assert actions.index("media_timeout=$${media_timeout}") < actions.index("$${controllers} async full")
