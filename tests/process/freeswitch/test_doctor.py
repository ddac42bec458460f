"""``eslbot doctor`` on real installations: a sound one, and one with mistakes that FreeSWITCH runs with."""

from __future__ import annotations

import datetime
import os
import re
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
import tomli_w
import trustme

from eslbot.doctor.examine import Checked, Request, examine
from eslbot.doctor.findings import Finding, Severity
from eslbot.sim.addresses import free_port, free_rtp_ports
from eslbot.sim.freeswitch import FreeSwitchProcess, find
from eslbot.sim.lab import Tenant
from tests.support.lab import Lab

NO_FREESWITCH = "no FreeSWITCH with mod_audio_stream on this machine (set ESLBOT_FREESWITCH to its binary)"
#: Of this machine, not of the installation: the clock's NTP, and what `ulimit -n` gives to tests.
OF_THE_MACHINE = ("NTP", "the open files of eslbot", "the open files of FreeSWITCH")


@dataclass(frozen=True)
class Installed:
    """A configuration whose service and FreeSWITCH run."""

    config: Path
    tree: dict[str, Any]

    def changed(self, folder: Path, *path: str, value: object) -> Path:
        """The configuration with one other value."""
        copy = _copied(self.tree)
        table = copy
        for key in path[:-1]:
            table = table[key]
        table[path[-1]] = value
        (folder / "changed.toml").write_text(tomli_w.dumps(copy))
        return folder / "changed.toml"


def _copied(tree: dict[str, Any]) -> dict[str, Any]:
    return {key: _copied(value) if isinstance(value, dict) else value for key, value in tree.items()}


def wrong(checked: list[Checked]) -> list[Finding]:
    return [f for c in checked for f in c.findings if f.severity in (Severity.WARNING, Severity.ERROR)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    if find() is None:
        pytest.skip(NO_FREESWITCH)
    with Lab(tmp_path_factory.mktemp("lab"), [Tenant("acme")], switch="freeswitch", max_calls=20) as lab:
        os.environ["LAB_TOKEN_ACME"] = "secret-token-of-acme"
        yield lab
        del os.environ["LAB_TOKEN_ACME"]


@pytest.fixture
def installed(sound: Lab) -> Installed:
    return Installed(sound.config, sound.configuration(sound.services[0]))


def test_a_sound_installation_has_no_findings(sound: Lab) -> None:
    checked = examine(Request(sound.config))
    assert [f for f in wrong(checked) if f.looked_at not in OF_THE_MACHINE] == []
    not_done = [f for c in checked for f in c.findings if f.severity is Severity.UNKNOWN]
    assert [f for f in not_done if f.looked_at != "NTP"] == []
    told = {f.looked_at: f.found for c in checked for f in c.findings}
    assert told[f"relay.listen 127.0.0.1:{sound.relay[1]}"].startswith("answers")
    assert list(sound.ameyo.requests) == []
    assert sound.live_channels() == 0
    assert sound.real_switch is not None
    assert sound.real_switch.event_socket.password not in repr(checked)


def test_what_freeswitch_makes_of_its_configuration_is_as_its_umask_says(sound: Lab) -> None:
    """It holds the event socket's password, and FreeSWITCH gives it no mode of its own."""
    assert sound.real_switch is not None
    fsxml = sound.real_switch.work / "log" / "freeswitch.xml.fsxml"
    assert sound.real_switch.event_socket.password in fsxml.read_text()
    assert f"{fsxml.stat().st_mode & 0o777:o}" == "660"
    told = {f.looked_at: f for c in examine(Request(sound.config, ("secret-files",))) for f in c.findings}
    assert told[str(fsxml)].severity is Severity.OK
    for folder in fsxml.parents:
        if folder.stat().st_mode & 0o001 == 0:  # pytest's own directories are closed to others
            folder.chmod(folder.stat().st_mode | 0o001)
    fsxml.chmod(0o644)
    (found,) = wrong(examine(Request(sound.config, ("secret-files",))))
    assert (found.looked_at, found.found) == (str(fsxml), "everybody may read it (mode 644)")
    fsxml.chmod(0o660)


def test_what_brings_calls_back_is_looked_at(sound: Lab) -> None:
    assert sound.real_switch is not None
    told = {f.looked_at: f for c in examine(Request(sound.config, ("recovery",))) for f in c.findings}
    assert told["track-calls, api_on_startup"].severity is Severity.OK
    db = sound.real_switch.work / "db"
    assert db.stat().st_mode & 0o777 == 0o700
    db.chmod(0o755)
    found = {f.looked_at: f.found for f in wrong(examine(Request(sound.config, ("recovery",))))}
    db.chmod(0o700)
    assert found[f"FreeSWITCH's databases, {db}"] == "is open to others (mode 755)"


def test_the_wrong_password_is_found(installed: Installed, tmp_path: Path) -> None:
    config = installed.changed(tmp_path, "freeswitch", "event_socket_password", value="not-that-one")
    (found,) = wrong(examine(Request(config, ("silence",))))
    assert found.found == "does not take the password of freeswitch.event_socket_password"
    assert "set freeswitch.event_socket_password" in found.remedy


def test_an_expired_certificate_of_ameyo_is_found(sound: Lab, installed: Installed, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    begin = datetime.datetime(2020, 1, 1)
    authority.issue_cert("127.0.0.1", not_before=begin, not_after=yesterday).configure_cert(context)
    ameyo = {
        **installed.tree["workspaces"][sound.tenants["acme"].id]["ameyo"],
        "ca_file": str(tmp_path / "ca.pem"),
    }
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def greet() -> None:
            for _ in range(2):  # doctor asks again for the date
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(5)
                    try:
                        context.wrap_socket(connection, server_side=True).close()
                    except OSError:
                        continue

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        ameyo["url"] = f"https://127.0.0.1:{listening.getsockname()[1]}"
        config = installed.changed(tmp_path, "workspaces", sound.tenants["acme"].id, "ameyo", value=ameyo)
        (found,) = wrong(examine(Request(config, ("ameyo",))))
        thread.join(5)
    assert f"has expired on {yesterday:%Y-%m-%d}" in found.found
    assert "renew" in found.remedy


# -- mistakes in FreeSWITCH's own configuration, all in one -----------------------------------------------

#: File of the rendered tree, pattern, and what stands there instead.
SPOILED = (
    ("autoload_configs/modules.conf.xml", '<load module="mod_audio_stream"/>', ""),
    ("sip_profiles/ameyo.xml", '<param name="apply-inbound-acl" value="ameyo"/>', ""),
    ("sip_profiles/ameyo.xml", r'"ext-rtp-ip" value="[^"]*"', '"ext-rtp-ip" value="203.0.113.77"'),
    ("sip_profiles/ameyo.xml", '"enable-timer" value="false"', '"enable-timer" value="true"'),
    ("sip_profiles/ameyo.xml", "</settings>", '<param name="session-timeout" value="120"/></settings>'),
    ("freeswitch.xml", '"api_on_startup=sofia recover"', '"api_on_startup="'),
    ("dialplan/ameyo.xml", r'<action application="set" data="send_silence_when_idle=-1"/>', ""),
)


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Checked]]:
    """What doctor says of a FreeSWITCH that was started with seven mistakes, and with a range of 20 ports."""
    installation = find()
    if installation is None:
        pytest.skip(NO_FREESWITCH)
    folder = tmp_path_factory.mktemp("spoiled")
    first, _ = free_rtp_ports()
    tree: dict[str, Any] = {
        "freeswitch": {
            "db": str(folder / "work" / "db"),
            "recovery_file": str(folder / "freeswitch.json"),
            "sip_ip": "127.0.0.1",
            "sip_port": free_port(),
            "rtp_ports": f"{first}-{first + 19}",
            "event_socket": f"127.0.0.1:{free_port()}",
        },
        "workspaces": {
            "2b37ba17-7b20-4b3e-b138-1161e351d5c5": {
                "name": "acme",
                "sources": ["127.0.0.1"],
                "bot": {"url": "wss://bot.example.com/"},
                "ameyo": {"url": "https://127.0.0.1:9", "tenant_host": "a.example.com", "token": "secret"},
            }
        },
    }
    config, conf = folder / "eslbot.toml", folder / "conf"
    config.write_text(tomli_w.dumps(tree))
    run(
        [sys.executable, "-m", "eslbot", "conf", "--config", str(config), "--out", str(conf)],
        check=True,
        capture_output=True,
        timeout=30,
    )
    for name, pattern, instead in SPOILED:
        text, count = re.subn(pattern, instead, (conf / name).read_text())
        assert count == 1, f"{name} has no {pattern}"
        (conf / name).write_text(text)
    with FreeSwitchProcess(installation, conf, folder / "work"):
        wanted = (
            "modules",
            "acl",
            "nat",
            "hang-ups",
            "rtp",
            "silence",
            "audio-stream",
            "profile",
            "dialplan",
            "recovery",
        )
        yield examine(Request(config, wanted))


@pytest.mark.parametrize(
    ("name", "looked_at", "found", "remedy"),
    [
        ("modules", "mod_audio_stream", "is not loaded", "load mod_audio_stream"),
        ("acl", "the profile's apply-inbound-acl", "not set", "eslbot conf"),
        ("nat", "the profile's ext-rtp-ip", "203.0.113.77 is announced for audio", "freeswitch.external_ip"),
        (
            "hang-ups",
            "session timers (RFC 4028)",
            "on (enable-timer: true, session-timeout: 120 s)",
            "eslbot conf",
        ),
        ("rtp", "the RTP ports", "room for 10 calls (two ports each)", "freeswitch.rtp_ports to 400 ports"),
        ("silence", "send_silence_when_idle", "not set", "reloadxml"),
        ("recovery", "api_on_startup", "not set instead of sofia recover", "restart FreeSWITCH"),
    ],
)
def test_a_mistake_that_freeswitch_runs_with_is_found(
    spoiled: list[Checked], name: str, looked_at: str, found: str, remedy: str
) -> None:
    (check,) = [c for c in spoiled if c.name == name]
    (told,) = wrong([check])
    assert looked_at in told.looked_at
    assert found in told.found
    assert told.why
    assert remedy in told.remedy


def test_no_mistake_is_told_twice(spoiled: list[Checked]) -> None:
    assert len(wrong(spoiled)) == 7
