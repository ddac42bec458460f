"""``eslbot doctor`` against a FreeSWITCH that is only an event socket: what it finds, and what it says."""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import pwd
import resource
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import trustme
from click.testing import CliRunner, Result

from eslbot.cli import main
from eslbot.config import load
from eslbot.doctor import host, logs
from eslbot.doctor.checks import egress, ledger, relay, rtp
from eslbot.doctor.examine import TITLES, Checked, Request, examine
from eslbot.doctor.findings import MAX_TEXT, Finding, Severity, clean, ok
from eslbot.doctor.host import Process, User
from eslbot.doctor.report import exit_code
from eslbot.doctor.site import Site
from eslbot.runtime.parallel import together
from eslbot.telemetry import redaction
from tests.support.connect_proxy import ConnectProxy
from tests.support.inbound_switch import PASSWORD, InboundSwitch, Spoiled
from tests.support.processes import until
from tests.support.users import become, needs_root

WORKSPACE = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"
BOT_TOKEN, AMEYO_TOKEN = "Bearer secret-of-the-bot", "secret-of-ameyo"
#: What a FreeSWITCH told of itself; the rest needs other servers.
OF_THE_SWITCH = (
    *("event-socket", "freeswitch", "modules", "profile", "acl", "hang-ups", "nat", "rtp", "silence"),
    *("dialplan", "controllers", "sessions"),
)


@pytest.fixture
def switch() -> Iterator[InboundSwitch]:
    with InboundSwitch() as running:
        yield running


class Installation:
    """A configuration file whose FreeSWITCH is the stand-in."""

    def __init__(self, switch: InboundSwitch, folder: Path) -> None:
        self.switch, self.path = switch, folder / "eslbot.toml"
        self.lines = folder / "lines"
        self.lines.mkdir()
        self.db = folder / "db"
        self.db.mkdir(mode=0o700)
        (self.db / "core.db").touch(0o600)
        self.tree: dict[str, Any] = {
            "server": {"switch_user": str(os.geteuid())},
            "freeswitch": {
                "sip_ip": "127.0.0.1",
                "event_socket": f"127.0.0.1:{switch.port}",
                "event_socket_password": PASSWORD,
                "db": str(folder / "db"),
                "recovery_file": str(folder / "freeswitch.json"),
            },
            "relay": {"listen": "127.0.0.1:9", "directory": str(self.lines)},
            "workspaces": {
                WORKSPACE: {
                    "name": "acme",
                    "sources": ["127.0.0.1", "127.1.0.0/24"],
                    "bot": {
                        "url": "ws://127.0.0.1:9/talk",
                        "insecure": True,
                        "headers": {"Authorization": BOT_TOKEN},
                    },
                    "ameyo": {
                        "url": "https://127.0.0.1:9",
                        "tenant_host": "acme.ameyo.app",
                        "token": AMEYO_TOKEN,
                    },
                }
            },
        }

    def set(self, table: str, **keys: Any) -> None:
        """``freeswitch``, or ``bot`` and ``ameyo`` of the workspace."""
        self._table(table).update(keys)

    def _table(self, name: str) -> dict[str, Any]:
        workspace = self.tree["workspaces"][WORKSPACE]
        table: dict[str, Any] = (
            workspace[name] if name in ("bot", "ameyo") else self.tree.setdefault(name, {})
        )
        return table

    def run(self, *only: str, spoiled: Spoiled | None = None, user: str | None = None) -> list[Checked]:
        self.path.write_text(tomli_w.dumps(self.tree))
        self.switch.holds(load(self.path), spoiled)
        return examine(Request(self.path, only, timeout=10.0, user=user))

    def bad(self, *only: str, spoiled: Spoiled | None = None, user: str | None = None) -> list[Finding]:
        """What is wrong."""
        return wrong(self.run(*only, spoiled=spoiled, user=user))


def wrong(checked: list[Checked]) -> list[Finding]:
    return [f for c in checked for f in c.findings if f.severity in (Severity.WARNING, Severity.ERROR)]


@pytest.fixture
def site(switch: InboundSwitch, tmp_path: Path) -> Installation:
    return Installation(switch, tmp_path)


def test_a_sound_switch_has_no_findings_and_is_only_read(site: Installation) -> None:
    checked = site.run(*OF_THE_SWITCH)
    assert wrong(checked) == []
    assert {c.name for c in checked} == set(OF_THE_SWITCH)
    assert {f.severity for c in checked for f in c.findings} <= {Severity.OK, Severity.NOTE}
    allowed = ("status", "version", "fsctl max_sessions", "fsctl sps", "fsctl pause_check inbound")
    allowed += ("fsctl shutdown_check", "uuid_audio_stream", "sofia status", "strmicroepoch")
    reading = ("xml_locate ", "global_getvar ", "module_exists ", "acl ", "sofia xmlstatus ")
    assert site.switch.asked
    assert [c for c in site.switch.asked if c not in allowed and not c.startswith(reading)] == []


MISTAKES: dict[str, tuple[str, Spoiled, str, str]] = {
    "missing module": (
        "modules",
        Spoiled(missing_modules=frozenset({"mod_audio_stream"})),
        "mod_audio_stream: is not loaded",
        "load mod_audio_stream",
    ),
    "profile without ACL": (
        "acl",
        Spoiled({r'<param name="apply-inbound-acl"[^>]*>': ""}),
        "apply-inbound-acl: not set",
        "eslbot conf --config",
    ),
    "ACL open to all": (
        "acl",
        Spoiled({r'(<list name="ameyo"[^>]*>)': r'\1<node type="allow" cidr="0.0.0.0/0"/>'}),
        "which is nobody's source",
        "reloadacl",
    ),
    "ACL without a source": (
        "acl",
        Spoiled({r'<node type="allow" cidr="127.1.0.0/24"[^>]*>': ""}),
        "does not let 127.1.0.0/24 in (acme)",
        "reloadacl",
    ),
    "ACL with somebody else": (
        "acl",
        Spoiled({r'(<list name="ameyo"[^>]*>)': r'\1<node type="allow" cidr="192.0.9.0/24"/>'}),
        "lets 192.0.9.0/24 in",
        "reloadacl",
    ),
    "digest": (
        "acl",
        Spoiled({'"auth-calls" value="false"': '"auth-calls" value="true"'}),
        "auth-calls: true",
        "restart FreeSWITCH",
    ),
    "wrong NAT address": (
        "nat",
        Spoiled(profile={"ext-rtp-ip": "203.0.113.77"}),
        "203.0.113.77 is announced for audio instead of 127.0.0.1",
        "freeswitch.external_ip",
    ),
    "RTP range too small": (
        "rtp",
        Spoiled({'"rtp-end-port" value="60000"': '"rtp-end-port" value="10099"'}),
        "room for 50 calls (two ports each), while the configuration admits 200",
        "400 ports or more",
    ),
    "session timers on": (
        "hang-ups",
        Spoiled({'"enable-timer" value="false"': '"enable-timer" value="true"'}, {"session-to": "120"}),
        "on (enable-timer: true, session-timeout: 120 s)",
        "restart FreeSWITCH",
    ),
    "RTP time-out": (
        "hang-ups",
        Spoiled({'<param name="enable-timer"': '<param name="rtp-timeout-sec" value="30"/>\\g<0>'}),
        "rtp-timeout-sec: 30 s",
        "restart FreeSWITCH",
    ),
    "park time-out": (
        "hang-ups",
        Spoiled({"rtp_autoflush=true": "park_timeout=60"}),
        "set park_timeout=60",
        "reloadxml",
    ),
    "shorter media time-out": (
        "hang-ups",
        Spoiled({"media_timeout=300000": "media_timeout=10000"}),
        "10000 ms instead of 300000",
        "reloadxml",
    ),
    "no silence": (
        "silence",
        Spoiled({r'<action application="set" data="send_silence_when_idle=-1"[^>]*>': ""}),
        "send_silence_when_idle: not set",
        "reloadxml",
    ),
    "comfort noise": (
        "silence",
        Spoiled({"send_silence_when_idle=-1": "send_silence_when_idle=400"}),
        "400 instead of -1",
        "reloadxml",
    ),
    "another codec": (
        "profile",
        Spoiled(profile={"inbound-codecs": "OPUS,PCMU,PCMA"}),
        "OPUS,PCMU,PCMA",
        "restart FreeSWITCH",
    ),
    "a peer may transfer": (
        "profile",
        Spoiled({'"disable-transfer" value="true"': '"disable-transfer" value="false"'}),
        "disable-transfer: false instead of true",
        "restart FreeSWITCH",
    ),
    "no profile": (
        "profile",
        Spoiled(replies={"sofia xmlstatus profile ameyo": "Invalid Profile!\n"}),
        "does not run",
        "FreeSWITCH's log",
    ),
    "older dialplan": (
        "dialplan",
        Spoiled({r'<action application="set" data="socket_resume=true"[^>]*>': ""}),
        'without: <action application="set" data="socket_resume=true">',
        "reloadxml",
    ),
    "missing context": (
        "dialplan",
        Spoiled(replies={"xml_locate dialplan context name ameyo-answered": "can't find anything\n"}),
        "ameyo-answered: is not loaded",
        "reloadxml",
    ),
    "other controllers": (
        "controllers",
        Spoiled({"127.0.0.1:8084 async": "10.0.0.9:8084 async"}),
        "10.0.0.9:8084 instead of 127.0.0.1:8084",
        "reloadxml",
    ),
    "calls are not kept": (
        "recovery",
        Spoiled({'<param name="track-calls"[^>]*>': ""}),
        "track-calls: not set instead of true",
        "restart FreeSWITCH",
    ),
    "calls are not taken up": (
        "recovery",
        Spoiled(replies={"global_getvar api_on_startup": "-ERR no reply\n"}),
        "api_on_startup: not set instead of sofia recover",
        "restart FreeSWITCH",
    ),
    "something else at the start": (
        "recovery",
        Spoiled(replies={"global_getvar api_on_startup": "status"}),
        "api_on_startup: status instead of sofia recover",
        "eslbot conf --config",
    ),
    "few sessions": (
        "sessions",
        Spoiled(replies={"fsctl max_sessions": "+OK max sessions: 100\n"}),
        "100, while eslbot admits 200 calls",
        "fsctl max_sessions 5000",
    ),
    "slow bursts": (
        "sessions",
        Spoiled(replies={"fsctl sps": "+OK sessions per second: 30\n"}),
        "30 instead of 200",
        "fsctl sps 200",
    ),
    "paused": (
        "freeswitch",
        Spoiled(replies={"fsctl pause_check inbound": "true"}),
        "paused",
        "fsctl resume",
    ),
    "lines by the packets' length": (
        "profile",
        Spoiled({'<param name="rtp-autofix-timing"[^>]*>': ""}),
        "rtp-autofix-timing: not set instead of false",
        "restart FreeSWITCH",
    ),
    "no command": (
        "audio-stream",
        Spoiled(replies={"uuid_audio_stream": "-ERR uuid_audio_stream Command not found!\n"}),
        "FreeSWITCH does not know the command",
        "install mod_audio_stream",
    ),
    "clock": (
        "clock",
        Spoiled(replies={"strmicroepoch": "1000000000000000"}),
        "behind this host's",
        "timedatectl set-ntp true",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_switch_is_found_with_its_remedy(site: Installation, name: str) -> None:
    only, spoiled, found, remedy = MISTAKES[name]
    told = [f for f in site.bad(only, spoiled=spoiled) if found in f"{f.looked_at}: {f.found}"]
    assert len(told) == 1
    assert told[0].why
    assert remedy in told[0].remedy


def test_one_mistake_is_told_by_one_check_only(site: Installation) -> None:
    """Every mistake above of the dialplan and the profile, on the whole table."""
    for name in ("no silence", "session timers on", "profile without ACL", "other controllers"):
        only, spoiled, _, _ = MISTAKES[name]
        assert {c.name for c in site.run(*OF_THE_SWITCH, spoiled=spoiled) if wrong([c])} == {only}


def test_the_wrong_password_is_found_and_not_told(site: Installation) -> None:
    site.set("freeswitch", event_socket_password="not-that-one")
    checked = site.run(*OF_THE_SWITCH)
    (found,) = wrong(checked)
    assert found.found == "does not take the password of freeswitch.event_socket_password"
    assert "freeswitch.event_socket_password" in found.remedy
    rest = [c for c in checked if c.name != "event-socket"]
    assert {f.severity for c in rest for f in c.findings} == {Severity.UNKNOWN}
    assert "not-that-one" not in repr(checked)


@pytest.mark.parametrize(
    ("manners", "found", "remedy"),
    [
        ("rude", "rude rejection", "event-socket"),
        ("alien", "instead of auth/request", "ss -ltnp"),
        ("silent", "no answer to the connection within", "ss -ltnp"),
    ],
)
def test_who_answers_otherwise_is_told(site: Installation, manners: str, found: str, remedy: str) -> None:
    site.path.write_text(tomli_w.dumps(site.tree))
    site.switch.holds(load(site.path), Spoiled(manners=manners))
    (told,) = wrong(examine(Request(site.path, ("profile",), timeout=1.0)))
    assert found in told.found
    assert remedy in told.remedy


def test_a_password_that_eslbot_conf_made_is_read_where_it_was_written(
    site: Installation, tmp_path: Path
) -> None:
    conf = tmp_path / "conf"
    conf.mkdir()
    del site.tree["freeswitch"]["event_socket_password"]
    site.path.write_text(tomli_w.dumps(site.tree))
    site.switch.holds(load(site.path))
    request = Request(site.path, ("event-socket",), conf_dir=str(conf))
    (missing,) = wrong(examine(request))
    assert "--freeswitch-conf" in missing.remedy
    setting = f'<X-PRE-PROCESS cmd="set" data="event_socket_password={PASSWORD}"/>'
    (conf / "vars.xml").write_text(f"<include>{setting}</include>")
    assert wrong(examine(request)) == []


def test_a_private_address_for_a_public_source_is_found(site: Installation) -> None:
    site.tree["workspaces"][WORKSPACE]["sources"] = ["203.0.113.10"]
    (found,) = site.bad("nat")
    assert "127.0.0.1 is private, and 203.0.113.10/32 is to reach it" in found.found
    assert "freeswitch.external_ip" in found.remedy


@pytest.mark.parametrize(
    ("sources", "severity"),
    [
        (["0.0.0.0/0"], Severity.ERROR),
        (["0.0.0.0/1", "128.0.0.0/1"], Severity.ERROR),
        (["127.0.0.1", "10.0.0.0/8"], Severity.WARNING),
    ],
)
def test_a_list_that_lets_the_world_in_is_never_free_of_strangers(
    site: Installation, sources: list[str], severity: Severity
) -> None:
    site.tree["workspaces"][WORKSPACE]["sources"] = sources
    (checked,) = site.run("acl")
    assert [f for f in checked.findings if "no stranger" in f.found or f.severity is Severity.OK] == []
    assert checked.severity is severity
    assert f"lets all of {sources[-1]} in" in wrong([checked])[-1].found
    told = [f.found for f in site.bad("configuration") if f.looked_at.endswith("sources")]
    assert len(told) == len([s for s in sources if "/" in s])


def test_what_looks_like_a_placeholder_is_told(site: Installation) -> None:
    site.set("ameyo", properties={"number": "{DID}"})
    (told,) = site.bad("configuration")
    assert (told.severity, told.found, told.remedy) == (Severity.WARNING, "{DID}", "write {did}")


def test_behind_an_edge_that_is_who_is_to_be_let_in(site: Installation) -> None:
    site.tree["edge"] = {"sip_ip": "10.0.0.4", "switches": ["127.0.0.1:5060"]}
    assert site.bad("acl", "nat", "profile") == []
    changed = Spoiled(
        {r'<node type="allow" cidr="10.0.0.4/32"[^>]*>': '<node type="allow" cidr="127.0.0.1/32"/>'}
    )
    shut_out, strange = site.bad("acl", spoiled=changed)
    assert "does not let 10.0.0.4/32 in (the edge)" in shut_out.found
    assert "lets 127.0.0.1/32 in, which is no edge" in strange.found


def test_a_switch_that_eslbot_does_not_let_in_is_found(site: Installation) -> None:
    site.tree["server"] = {"switches": ["10.0.0.5/32"]}
    (found,) = site.bad("controllers")
    assert "FreeSWITCH connects from 127.0.0.1" in found.found


def test_a_switch_that_runs_as_another_user_is_found(site: Installation) -> None:
    (sound,) = site.run("switch-user")
    assert [finding.found for finding in sound.findings] == [f"{os.geteuid()}, as whom FreeSWITCH runs"]
    site.tree["server"] = {"switch_user": "51236"}
    (found,) = site.bad("switch-user")
    assert found.found == f"51236, but FreeSWITCH runs as {User.numbered(os.geteuid()).name}"
    assert found.severity is (Severity.WARNING if os.geteuid() == 0 else Severity.ERROR)
    assert "-u 51236" in found.remedy
    site.tree["server"] = {"switch_user": "no-such-user-here"}
    (found,) = site.bad("switch-user")
    assert (found.severity, found.looked_at) == (Severity.ERROR, "server.switch_user")
    assert "this host has no user 'no-such-user-here'" in found.found
    site.tree["server"]["switch_user"] = "any"
    (told,) = site.bad("switch-user", "configuration")
    assert told.severity is Severity.WARNING
    assert told.found.startswith("any, so every local user of this host can speak to the event-socket")
    del site.tree["server"]["switch_user"]
    (sound,) = site.run("switch-user")
    assert [finding.severity for finding in sound.findings] == [Severity.OK]


@needs_root
def test_a_switch_of_another_user_than_root_is_found(site: Installation) -> None:
    """One that listens at the event socket's address, and is asked nothing."""
    address, uid = site.tree["freeswitch"], 51235
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address["event_socket"] = f"127.0.0.1:{listener.getsockname()[1]}"
        site.path.write_text(tomli_w.dumps(site.tree | {"server": {"switch_user": "51236"}}))
        pid = os.fork()
        if pid == 0:
            become(uid)
            signal.pause()
        try:
            until(lambda: Process(pid).uid == uid)
            listener.close()
            (checked,) = examine(Request(site.path, ("switch-user",)))
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    (found,) = wrong([checked])
    assert (found.severity, found.found) == (Severity.ERROR, f"51236, but FreeSWITCH runs as {uid}")
    assert f'server.switch_user = "{uid}"' in found.remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with another user's eyes")
def test_lines_that_the_relays_user_cannot_write_are_found(open_to_all: Installation) -> None:
    site, name = open_to_all, "lines"
    site.lines.chmod(0o755)
    (found,) = site.bad(name, user="nobody")
    assert "for eslbot (nobody): may not write (mode 755" in f"{found.looked_at}: {found.found}"
    assert "chmod 2750" in found.remedy
    os.chown(site.lines, pwd.getpwnam("nobody").pw_uid, -1)
    assert site.bad(name, user="nobody") == []
    site.lines.rmdir()
    (missing,) = site.bad(name, user="nobody")
    assert missing.found == "no such directory"
    assert f"install -d -o nobody -g root -m 2750 {site.lines}" in missing.remedy
    site.lines.parent.chmod(0o700)
    closed, missing = site.bad(name, user="nobody")
    assert closed.found == f"cannot enter {site.lines.parent}"
    assert missing.looked_at.endswith("for FreeSWITCH (root)"), "who may enter everywhere"


@needs_root
def test_lines_that_freeswitch_cannot_read_are_found(open_to_all: Installation) -> None:
    """Root is never refused: a FreeSWITCH that runs as nobody, and a relay that runs as root."""
    site, nobody = open_to_all, pwd.getpwnam("nobody")
    site.path.write_text(tomli_w.dumps(site.tree))
    pid = os.fork()
    if pid == 0:
        become(nobody.pw_uid)
        signal.pause()
    try:
        until(lambda: Process(pid).uid == nobody.pw_uid)
        given = Site(
            site.path,
            load(site.path),
            User.numbered(0),
            Process(pid),
            None,
            1.0,
            time.monotonic() + 5,
            "/etc",
        )
        site.lines.chmod(0o700)
        (found,) = (f for f in relay.lines(given) if f.severity is Severity.ERROR)
        assert "for FreeSWITCH (nobody): may not enter" in f"{found.looked_at}: {found.found}"
        site.lines.chmod(0o755)
        (found,) = (f for f in relay.lines(given) if f.severity is Severity.ERROR)
        assert found.found == "get the group root, which nobody is not in: FreeSWITCH may not read them"
        os.chown(site.lines, 0, nobody.pw_gid)
        site.lines.chmod(0o2750)
        assert {f.severity for f in relay.lines(given)} == {Severity.OK}
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def recorded(site: Installation, **own: Any) -> Path:
    """Have acme recorded; the directory."""
    directory = site.path.parent / "recordings"
    site.tree["recording"] = {"directory": str(directory), "min_free": 0}
    site.tree["workspaces"][WORKSPACE] |= {"record": True, "recording": own}
    return directory


def test_nobody_is_recorded(site: Installation) -> None:
    ((found,),) = (c.findings for c in site.run("recordings"))
    assert (found.severity, found.found) == (Severity.OK, "no workspace is recorded")


def test_recordings_that_are_sound(site: Installation) -> None:
    directory = recorded(site, announcement="beep", key="0f" * 32)
    (checked,) = site.run("recordings")
    assert [(f.looked_at, f.severity) for f in checked.findings] == [
        (f"recording.directory {directory}", Severity.OK),
        (f"the room at {directory.parent}", Severity.OK),
        ("the announcement of acme", Severity.OK),
        ("recording.key of acme", Severity.OK),
    ]
    assert not directory.exists(), "it only reads"
    assert "0f0f" not in " ".join(f"{f.looked_at} {f.found}" for f in checked.findings)


def test_callers_who_are_not_told_and_recordings_that_are_not_sealed_are_notes(site: Installation) -> None:
    recorded(site)
    (checked,) = site.run("recordings")
    notes = [f.looked_at for f in checked.findings if f.severity is Severity.NOTE]
    assert notes == ["the announcement of acme", "recording.key of acme"]
    assert wrong([checked]) == []


def test_what_keeps_calls_from_being_recorded_is_found(site: Installation) -> None:
    directory = recorded(site, announcement="/nowhere.wav")
    directory.mkdir(mode=0o755)
    site.tree["recording"]["min_free"] = "1000000TB"
    open_, full, silent = site.bad("recordings")
    assert (open_.severity, open_.found) == (Severity.WARNING, "others may enter it (mode 755)")
    assert "less than recording.min_free" in full.found
    assert "/nowhere.wav cannot be read" in silent.found and "no call" in silent.why


@needs_root
def test_recordings_that_the_relays_user_cannot_write_are_found(open_to_all: Installation) -> None:
    directory = recorded(open_to_all, announcement="beep")
    (found,) = open_to_all.bad("recordings", user="nobody")
    assert found.found == "no such directory, and nobody may not make it"
    assert found.remedy == f"install -d -o nobody -m 0700 {directory}"
    directory.mkdir(mode=0o700)
    (found,) = open_to_all.bad("recordings", user="nobody")
    assert found.found == "nobody may not write it"
    os.chown(directory, pwd.getpwnam("nobody").pw_uid, -1)
    assert open_to_all.bad("recordings", user="nobody") == []


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that says one thing to whoever asks; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer_one() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_one, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(5)


def test_a_relay_that_says_so_is_sound(site: Installation) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nrelay") as port:
        site.set("relay", listen=f"127.0.0.1:{port}")
        (checked,) = site.run("relay")
    assert [f.severity for f in checked.findings] == [Severity.OK]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n",
        b'HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{"status": "ok"}',
        b"HTTP/1.1 200 OK\r\n\r\nrelay and much more than that",
        b"",
        b"x" * 8000,
    ],
)
def test_what_is_no_relay_is_found(site: Installation, answer: bytes) -> None:
    with answering(answer) as port:
        site.set("relay", listen=f"127.0.0.1:{port}")
        (found,) = site.bad("relay")
    assert "not as a relay does" in found.found
    assert len(found.found) < 200


@pytest.mark.parametrize(("processes", "unit"), [(1, "status eslbot;"), (0, "status eslbot-relay;")])
def test_no_relay_is_found(site: Installation, processes: int, unit: str) -> None:
    site.set("relay", processes=processes)
    (found,) = site.bad("relay")
    assert found.found == "nobody answers: Connection refused"
    assert unit in found.remedy


def test_too_little_inotify_is_found(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"instances": "8", "watches": "100", "events": "16384"}
    names = {"max_user_instances": "instances", "max_user_watches": "watches", "max_queued_events": "events"}
    monkeypatch.setattr(relay, "sysctl", lambda name: limits[names[name.rpartition(".")[2]]])
    (checked,) = site.run("inotify")
    assert [(f.looked_at, f.severity) for f in checked.findings] == [
        ("fs.inotify.max_user_instances", Severity.ERROR),
        ("fs.inotify.max_user_watches", Severity.ERROR),
        ("fs.inotify.max_queued_events", Severity.NOTE),
    ]
    assert "sysctl -w fs.inotify.max_user_watches=401" in checked.findings[1].remedy
    limits = {"instances": "9", "watches": "401", "events": "40000"}
    (checked,) = site.run("inotify")
    assert {f.severity for f in checked.findings} == {Severity.OK}


def test_a_bot_behind_a_proxy_is_not_dialled(site: Installation) -> None:
    site.set("bot", proxy="http://user:proxy-password@127.0.0.1:9")
    (checked,) = site.run("bot")
    assert [f.severity for f in checked.findings] == [Severity.UNKNOWN]
    assert "proxy-password" not in repr(checked)


@pytest.fixture
def open_to_all(switch: InboundSwitch) -> Iterator[Installation]:
    """pytest's own directories are closed to others: each run that begins sees to that."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Installation(switch, Path(folder))


def test_what_freeswitch_makes_of_the_password_is_for_nobody_else(open_to_all: Installation) -> None:
    folder = open_to_all.path.parent / "log"
    folder.mkdir(0o755)
    fsxml = folder / "freeswitch.xml.fsxml"
    fsxml.write_text("<password/>")
    fsxml.chmod(0o644)
    (found,) = (f for f in open_to_all.bad("secret-files") if f.looked_at == str(fsxml))
    assert found.found == "everybody may read it (mode 644)"
    assert f"chmod o-rwx {folder}" in found.remedy
    assert "UMask=0007" in found.remedy
    folder.chmod(0o750)
    assert not [f for f in open_to_all.bad("secret-files") if f.looked_at == str(fsxml)]


def test_records_that_everybody_may_read_are_found(open_to_all: Installation) -> None:
    folder = open_to_all.path.parent
    open_to_all.tree["ledger"] = {"url": f"sqlite:///{folder}/calls.db", "journal": f"{folder}/journal"}
    for name, mode in (("calls.db", 0o644), ("journal", 0o755)):
        (folder / name).mkdir() if name == "journal" else (folder / name).touch()
        (folder / name).chmod(mode)
    mine = {str(folder / "calls.db"), str(folder / "journal")}
    assert {f.looked_at for f in open_to_all.bad("secret-files")} >= mine
    for name in ("calls.db", "journal"):
        (folder / name).chmod(0o750)
    assert not {f.looked_at for f in open_to_all.bad("secret-files")} & mine


def test_core_databases_that_others_may_read_are_found(site: Installation) -> None:
    looked_at = f"FreeSWITCH's databases, {site.db}"
    assert site.bad("recovery") == []
    core = site.db / "core.db"
    core.chmod(0o640)
    assert site.bad("recovery") == [], "its directory closes it"
    notes = {f.looked_at: f for c in site.run("recovery") for f in c.findings}
    assert (notes[str(core)].severity, notes[str(core)].found) == (Severity.NOTE, "mode 640")
    site.db.chmod(0o750)
    folder, file = site.bad("recovery")
    assert (folder.looked_at, folder.found) == (looked_at, "is open to others (mode 750)")
    assert folder.remedy == f"chmod 700 {site.db}"
    assert file.looked_at == str(core)
    assert f"chmod 600 {core}" in file.remedy


def test_databases_elsewhere_or_on_a_disk_are_told(
    site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        f
        for c in site.run("recovery", spoiled=Spoiled(replies={"global_getvar db_dir": "/"}))
        for f in c.findings
    ]
    assert any(f"not where freeswitch.db says: {site.db}" in f.found for f in found)
    for kind, severity in (("tmpfs", Severity.OK), ("ext4", Severity.NOTE), (None, Severity.UNKNOWN)):
        monkeypatch.setattr("eslbot.doctor.checks.recovery.file_system", lambda _, kind=kind: kind)
        told = [f for c in site.run("recovery") for f in c.findings if "databases" in f.looked_at]
        assert [f.severity for f in told] == [severity]


def test_databases_that_are_not_there_are_found(site: Installation) -> None:
    (site.db / "core.db").unlink()
    assert [f"{f.looked_at} {f.found}" for f in site.bad("recovery")] == [
        f"FreeSWITCH's databases, {site.db} are not there"
    ]


def test_the_file_system_of_a_path_is_known() -> None:
    assert host.file_system(Path("/proc/self")) == "proc"
    assert host.file_system(Path("/nowhere/at/all")) is None


@needs_root
def test_databases_of_somebody_else_are_found(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.doctor.examine.listener", lambda _: Process(os.getpid()))
    os.chown(site.db, 65534, 65534)
    told = site.bad("recovery")
    assert f"belongs to user 65534, and FreeSWITCH runs as {os.geteuid()}" in [f.found for f in told]


UNITS: dict[str, tuple[str, Severity, str]] = {
    "as deployed": (
        "Restart=always RestartUSec=0 ExecStartPre=…eslbot.recovery…",
        Severity.OK,
        "at once",
    ),
    "no restart": (
        "Restart=no RestartUSec=0 ExecStartPre=…eslbot.recovery…",
        Severity.ERROR,
        "Restart=no",
    ),
    "at success only": (
        "Restart=on-success RestartUSec=0 ExecStartPre=…eslbot.recovery…",
        Severity.ERROR,
        "on-success",
    ),
    "slow": (
        "Restart=always RestartUSec=5s ExecStartPre=…eslbot.recovery…",
        Severity.WARNING,
        "after 5s",
    ),
    "no brake": ("Restart=always RestartUSec=0", Severity.WARNING, "without `eslbot recovery`"),
}


@pytest.fixture
def systemctl(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """A systemd of its own that says what it is given."""
    commands = tmp_path / "commands"
    commands.mkdir()
    monkeypatch.setattr("eslbot.doctor.checks.recovery.SYSTEMD", tmp_path)
    monkeypatch.setattr("eslbot.doctor.host.Process.unit", "freeswitch.service")
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")

    def says(script: str) -> None:
        (commands / "systemctl").write_text(f"#!/bin/sh\n{script}\n")
        (commands / "systemctl").chmod(0o755)

    return says


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_that_does_not_start_it_again_is_found(
    site: Installation, systemctl: Callable[[str], None], name: str
) -> None:
    properties, severity, found = UNITS[name]
    lines = "\n".join(["LoadState=loaded", *properties.split()])
    systemctl(f"[ $5 = freeswitch.service ] && cat <<'END'\n{lines}\nEND")
    (told,) = [
        f for c in site.run("recovery") for f in c.findings if f.looked_at == "who starts FreeSWITCH again"
    ]
    assert told.severity is severity
    assert found in told.found
    assert told.remedy or severity is Severity.OK


@pytest.mark.parametrize(
    ("script", "severity", "found"),
    [
        ("echo LoadState=not-found", Severity.WARNING, "there is no freeswitch.service"),
        ("exit 1", Severity.UNKNOWN, "not checked"),
        ("head -c 100000 /dev/urandom", Severity.WARNING, "there is no freeswitch.service"),
    ],
)
def test_a_systemd_that_says_something_else_is_told(
    site: Installation, systemctl: Callable[[str], None], script: str, severity: Severity, found: str
) -> None:
    systemctl(script)
    (told,) = [
        f for c in site.run("recovery") for f in c.findings if f.looked_at == "who starts FreeSWITCH again"
    ]
    assert (told.severity, told.found) == (severity, found)


def test_a_freeswitch_that_is_no_service_is_found(
    site: Installation, systemctl: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    systemctl("exit 1")
    monkeypatch.setattr("eslbot.doctor.examine.listener", lambda _: Process(os.getpid()))
    monkeypatch.setattr("eslbot.doctor.host.Process.unit", None)
    assert "it is no service of systemd's" in [f.found for f in site.bad("recovery")]


def test_crashes_and_loops_of_the_last_day_are_told(site: Installation, tmp_path: Path) -> None:
    file = tmp_path / "freeswitch.json"

    def told(**changes: object) -> list[str]:
        counts = {"restarts": 4, "flushes": 1, "calls": 40, "dropped": 9, "starts": []}
        file.write_text(json.dumps(counts | changes))
        return [f"{f.found} {f.remedy}" for f in site.bad("recovery")]

    assert site.bad("recovery") == []
    (uncounted,) = [
        f for c in site.run("recovery") for f in c.findings if f.looked_at == "FreeSWITCH's crashes"
    ]
    assert (uncounted.severity, str(file) in uncounted.found) == (Severity.NOTE, True)
    now = time.time()
    assert told(last_restart=now - 90_000, last_flush=now - 90_000) == []
    (crash,) = told(last_restart=now - 60, last_flush=now - 90_000)
    assert "4 since the host's boot, with 40 calls up" in crash
    (loop,) = told(last_restart=now, last_flush=now)
    assert "9 calls were dropped" in loop
    assert "#eslbotswitchflushed" in loop
    (problem,) = told(problem="core.db: database is locked")
    assert "core.db: database is locked" in problem
    file.write_text("?")
    assert site.bad("recovery") == []
    (unread,) = [f for c in site.run("recovery") for f in c.findings if f.looked_at == "FreeSWITCH's crashes"]
    assert unread.severity is Severity.UNKNOWN


def test_a_process_that_leaves_core_files_is_found(
    site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one stands for FreeSWITCH and for eslbot."""
    monkeypatch.setattr("eslbot.doctor.examine.listener", lambda _: Process(os.getpid()))
    before = resource.getrlimit(resource.RLIMIT_CORE)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
        of_freeswitch, of_eslbot = site.bad("secret-files")
        assert (of_freeswitch.looked_at, of_eslbot.looked_at) == (
            "core files of FreeSWITCH",
            "core files of eslbot",
        )
        assert "systemctl edit freeswitch: [Service] LimitCORE=0" in of_freeswitch.remedy
        resource.setrlimit(resource.RLIMIT_CORE, (0, before[1]))
        assert site.bad("secret-files") == []
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)


def test_a_secret_that_is_not_there_is_found(site: Installation) -> None:
    site.set("ameyo", token="${ESLBOT_NO_SUCH_VARIABLE}")
    site.path.write_text(tomli_w.dumps(site.tree))
    checked = examine(Request(site.path))
    (found,) = wrong(checked)
    assert "ESLBOT_NO_SUCH_VARIABLE is not set" in found.found
    assert "EnvironmentFiles" in found.remedy
    assert {c.name for c in checked} == set(TITLES)
    assert {c.severity for c in checked if c.name != "configuration"} == {Severity.UNKNOWN}


# -- others' servers ---------------------------------------------------------------------------------------


@contextmanager
def server(handle: Callable[[socket.socket], object], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server whose connections are handled one after the other; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    handle(tls.wrap_socket(connection, server_side=True) if tls else connection)
                except OSError:
                    continue  # the other side did not like us, which is what is tested

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


def certificate(authority: trustme.CA, days: float, name: str = "127.0.0.1") -> ssl.SSLContext:
    """A server's context whose certificate runs out in ``days``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
    authority.issue_cert(name, not_before=datetime.datetime(2020, 1, 1), not_after=end).configure_cert(
        context
    )
    return context


@pytest.mark.parametrize(
    ("days", "name", "severity", "found"),
    [
        (-1.0, "127.0.0.1", Severity.ERROR, "has expired on 20"),
        (5.0, "127.0.0.1", Severity.WARNING, "valid until 20"),
        (90.0, "127.0.0.2", Severity.ERROR, "for another name"),
        (90.0, "127.0.0.1", Severity.OK, "nothing was sent"),
    ],
)
def test_ameyos_certificate_is_looked_at_and_nothing_is_sent(
    site: Installation, tmp_path: Path, days: float, name: str, severity: Severity, found: str
) -> None:
    authority, said = trustme.CA(), []
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with server(lambda c: said.append(c.recv(100)), certificate(authority, days, name)) as port:
        site.set("ameyo", url=f"https://127.0.0.1:{port}", ca_file=str(tmp_path / "ca.pem"))
        (checked,) = site.run("ameyo")
    (told,) = checked.findings
    assert told.severity is severity
    assert found in told.found
    assert b"".join(said) == b""


def test_a_private_authority_that_is_not_named_is_found(site: Installation) -> None:
    with server(lambda c: None, certificate(trustme.CA(), 90)) as port:
        site.set("ameyo", url=f"https://127.0.0.1:{port}")
        (told,) = site.bad("ameyo")
    assert "is not trusted" in told.found
    assert "ameyo.ca_file" in told.remedy


def test_a_host_that_nobody_knows_is_found(site: Installation) -> None:
    site.set("ameyo", url="https://no-such-host.invalid")
    (told,) = site.bad("ameyo")
    assert "DNS does not know no-such-host.invalid" in told.found


def test_ameyo_is_looked_at_by_the_way_that_notifications_go(site: Installation, tmp_path: Path) -> None:
    authority, said = trustme.CA(), []
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with (
        server(lambda c: said.append(c.recv(100)), certificate(authority, 90.0)) as port,
        ConnectProxy(login="eslbot:proxy-password-5c1e") as proxy,
    ):
        site.set("ameyo", url=f"https://127.0.0.1:{port}", ca_file=str(tmp_path / "ca.pem"))
        site.set("ameyo", source_address="127.0.0.2")
        (straight,) = site.run("ameyo")[0].findings
        site.set("ameyo", proxy=f"http://eslbot:proxy-password-5c1e@127.0.0.1:{proxy.port}")
        (through,) = site.run("ameyo")[0].findings
        site.set("ameyo", proxy=f"http://eslbot:another-password@127.0.0.1:{proxy.port}")
        (refused,) = site.run("ameyo")[0].findings
    assert straight.severity is through.severity is Severity.OK
    assert straight.found.startswith("reached at 127.0.0.1, from 127.0.0.2; certificate valid")
    assert through.found.startswith(f"reached through the proxy 127.0.0.1:{proxy.port}, from 127.0.0.2;")
    assert proxy.asked_for == [f"127.0.0.1:{port}"] * 2
    assert proxy.peers == ["127.0.0.2"] * 2
    assert refused.severity is Severity.ERROR
    assert "answered CONNECT with 407" in refused.found
    assert "does not take the user and password in ameyo.proxy" in refused.remedy
    assert "password-" not in repr(refused)
    assert b"".join(said) == b""


def test_an_expired_certificate_behind_a_proxy_is_told_with_its_date(
    site: Installation, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with server(lambda c: None, certificate(authority, -1.0)) as port, ConnectProxy() as proxy:
        site.set("ameyo", url=f"https://127.0.0.1:{port}", ca_file=str(tmp_path / "ca.pem"), proxy=proxy.url)
        (told,) = site.bad("ameyo")
    assert "has expired on 20" in told.found
    assert len(proxy.heads) == 2


def test_a_proxy_that_is_not_there_and_a_source_of_somebody_else_are_found(site: Installation) -> None:
    site.set("ameyo", proxy="http://127.0.0.1:9")
    (told,) = site.bad("ameyo")
    assert "127.0.0.1:9 cannot be connected to" in told.found
    site.set("ameyo", source_address="192.0.2.77")
    (told,) = site.bad("ameyo")
    assert told.severity is Severity.ERROR
    assert told.looked_at.endswith("ameyo.source_address")
    assert "192.0.2.77 is no address of this host" in told.found


def test_whom_ameyo_sees_is_verified_as_far_as_this_host_knows(
    site: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    (none,) = site.run("egress")[0].findings
    assert (none.severity, none.found) == (Severity.NOTE, "none")
    site.set("egress", addresses=["127.0.0.2", "198.51.100.7"])
    own, nat = site.run("egress")[0].findings
    assert (own.severity, own.found) == (Severity.OK, "is this host's own")
    assert (nat.severity, nat.looked_at) == (Severity.UNKNOWN, "egress.addresses 198.51.100.7")
    assert "behind NAT" in nat.why
    # A public address on this very host, which nobody has told Ameyo of.
    monkeypatch.setattr(egress, "_outward", lambda: ip_address("8.8.4.4"))
    (told,) = site.bad("egress")
    assert "leave from 8.8.4.4, which is not in egress.addresses" in told.found
    site.set("ameyo", source_address="127.0.0.2")
    assert site.bad("egress") == []
    site.set("ameyo", source_address="8.8.8.8")
    assert "leave from 8.8.8.8" in site.bad("egress")[0].found
    site.set("ameyo", proxy="http://127.0.0.1:9")
    assert site.bad("egress") == []


def head(connection: socket.socket) -> str:
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(4096)
    return received.decode()


def accept(request: str) -> str:
    key = request.partition("Sec-WebSocket-Key: ")[2].partition("\r\n")[0]
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    return base64.b64encode(digest).decode()


def test_the_bot_sees_a_calls_headers_and_a_polite_close(site: Installation) -> None:
    seen: list[str | bytes] = []

    def bot(connection: socket.socket) -> None:
        request = head(connection)
        answer = f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {accept(request)}\r\n\r\n"
        connection.sendall(answer.encode())
        seen.extend((request, connection.recv(100)))

    with server(bot) as port:
        site.set("bot", url=f"ws://127.0.0.1:{port}/talk?key=1")
        checked = site.run("bot")
    assert wrong(checked) == []
    request, close = seen
    assert isinstance(request, str)
    assert request.startswith("GET /talk?key=1 HTTP/1.1\r\n")
    for line in (
        f"Authorization: {BOT_TOKEN}",
        f"X-Workspace-ID: {WORKSPACE}",
        "X-CRT-Object-ID: eslbot-doctor",
    ):
        assert f"\r\n{line}\r\n" in request
    assert close == b"\x88\x82\x00\x00\x00\x00\x03\xe8"


@pytest.mark.parametrize(
    ("answer", "found", "remedy"),
    [
        (f"HTTP/1.1 401 {BOT_TOKEN} no\r\n\r\n", "refuses the upgrade: HTTP/1.1 401 ******** no", ".headers"),
        ("HTTP/1.1 404 Not Found\r\n\r\n", "404", "path"),
        ("HTTP/1.1 301 Moved\r\n\r\n", "301", "does not follow"),
        ("HTTP/1.1 503 \x1b[31mDown\r\n\r\n", "503", "log"),
        ("HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: no\r\n\r\n", "wrong Sec-WebSocket-Accept", "in between"),
        ("220 mail.example.com ESMTP\r\n\r\n", "does not speak HTTP", "port"),
        ("", "breaks off the upgrade", "log"),
        ("A: b\r\n" * 10000, "headers without end", "port"),
    ],
)
def test_a_bot_that_refuses_the_upgrade_is_found(
    site: Installation, answer: str, found: str, remedy: str
) -> None:
    def bot(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(answer.encode())

    with server(bot) as port:
        site.set("bot", url=f"ws://127.0.0.1:{port}/")
        (told,) = site.bad("bot")
    assert found in told.found
    assert remedy in told.remedy
    assert "\x1b" not in told.found


@pytest.mark.timed
def test_a_bot_that_says_nothing_holds_up_nobody(site: Installation) -> None:
    with server(lambda connection: head(connection) and connection.recv(1)) as port:
        site.set("bot", url=f"ws://127.0.0.1:{port}/")
        site.path.write_text(tomli_w.dumps(site.tree))
        began = time.monotonic()
        (told,) = wrong(examine(Request(site.path, ("bot",), timeout=3.0)))
        assert time.monotonic() - began < 2.9
    assert "timed out" in told.found


def test_a_bot_of_several_urls_that_works_somewhere_is_a_warning(site: Installation) -> None:
    def bot(connection: socket.socket) -> None:
        answer = f"HTTP/1.1 101 Yes\r\nSec-WebSocket-Accept: {accept(head(connection))}\r\n\r\n"
        connection.sendall(answer.encode())

    with server(bot) as port:
        site.set("bot", url=["ws://127.0.0.1:9/", f"ws://127.0.0.1:{port}/"])
        (told,) = site.bad("bot")
    assert told.severity is Severity.WARNING


# -- the service itself --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worker", "page", "found"),
    [
        ("200 OK", "200 OK", []),
        ("503 No", "200 OK", [("/readyz", Severity.WARNING, "draining")]),
        ("503 switch_gone", "200 OK", [("/readyz", Severity.ERROR, "does not greet")]),
        (
            "404 No",
            "404 No",
            [("/readyz", Severity.ERROR, "HTTP 404"), ("/healthz", Severity.ERROR, "HTTP 404")],
        ),
        ("", "", [("/readyz", Severity.ERROR, "no answer"), ("/healthz", Severity.ERROR, "no answer")]),
    ],
)
def test_a_worker_is_asked_whether_it_is_ready_and_the_page_process_whether_it_is_there(
    site: Installation, worker: str, page: str, found: list[tuple[str, Severity, str]]
) -> None:
    def answering(status: str, path: str) -> Callable[[socket.socket], object]:
        def answer(connection: socket.socket) -> None:
            assert head(connection).startswith(f"GET {path} HTTP/1.1\r\n")
            said = f"HTTP/1.1 {status}\r\nContent-Length: {len(status)}\r\n\r\n{status}"
            connection.sendall(said.encode() if status else b"")

        return answer

    with (
        server(lambda connection: None) as listen,
        server(answering(worker, "/readyz")) as health,
        server(answering(page, "/healthz")) as web,
    ):
        site.tree["server"] |= {"listen": f"127.0.0.1:{listen}", "health": f"127.0.0.1:{health}"}
        site.tree["web"] = {"listen": f"127.0.0.1:{web}"}
        site.tree["freeswitch"]["controllers"] = [f"127.0.0.1:{listen}"]
        told = [f for f in site.bad("service") if f.looked_at.startswith("http")]
    assert [(f.looked_at.rpartition("/")[2], f.severity) for f in told] == [
        (path.strip("/"), severity) for path, severity, _ in found
    ]
    for finding, (_, _, text) in zip(told, found, strict=True):
        assert text in finding.found
        assert finding.remedy


# -- the ledger --------------------------------------------------------------------------------------------


def metrics_of(up: str, backlog: str = "7.0") -> bytes:
    return (
        "# HELP eslbot_ledger_up 1 while.\n"
        f'eslbot_ledger_up {up}\neslbot_calls_active{{workspace="x"}} 3.0\n'
        f"eslbot_ledger_backlog_bytes {backlog}\n"
    ).encode()


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (metrics_of("1.0"), None),
        (metrics_of("0.0"), "cannot write to the database; 7 bytes wait"),
        (metrics_of("1.0").partition(b"eslbot_ledger_b")[0], "does not tell 'eslbot_ledger_backlog_bytes'"),
        (metrics_of("x"), "does not tell 'eslbot_ledger_up'"),
        (b"\xff\xfe what", "does not tell 'eslbot_ledger_up'"),
        (None, "no answer"),
    ],
)
def test_the_ledgers_writer_is_asked_how_it_is(
    site: Installation, answer: bytes | None, found: str | None
) -> None:
    journal = site.path.parent / "journal"
    journal.mkdir()
    site.tree["ledger"] = {"url": f"sqlite:///{journal}/calls.db", "journal": str(journal)}

    def page(connection: socket.socket) -> None:
        assert head(connection).startswith("GET /metrics HTTP/1.1\r\n")
        if answer is not None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + answer)

    with server(page) as port:
        site.tree["web"] = {"listen": f"127.0.0.1:{port}"}
        told = site.bad("ledger")
    assert len(told) == (found is not None)
    if found is not None:
        assert found in told[0].found
    assert list(journal.iterdir()) == []


def test_a_driver_that_is_not_installed_is_found(
    site: Installation, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(ledger, "missing_driver", lambda _: "the driver psycopg cannot be used: gone")
    site.set("ledger", url="postgresql+psycopg://u:p@127.0.0.1:9/calls", journal=str(tmp_path))
    (told,) = [f for f in site.bad("ledger") if f.looked_at.startswith("ledger.url")]
    assert told.found == "the driver psycopg cannot be used: gone"
    assert "pip install 'eslbot[postgres]'" in told.remedy


def test_secrets_of_former_tenants_are_for_nobody_else(open_to_all: Installation) -> None:
    site = open_to_all
    site.tree["server"]["key_file"] = str(site.path.parent / "identity.key")
    former = site.path.parent / "tenants"
    former.mkdir(mode=0o700)
    former.chmod(0o700)
    assert str(former) not in [f.looked_at for f in site.bad("secret-files")]
    former.chmod(0o755)
    (told,) = [f for f in site.bad("secret-files") if f.looked_at == str(former)]
    assert f"chmod o-rwx {former}" in told.remedy


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemd with the unit's text below ``lib`` and ``etc``."""
    monkeypatch.setattr(logs, "UNITS", (tmp_path / "etc", tmp_path / "lib"))
    monkeypatch.setattr(logs, "SYSTEMD", tmp_path)
    for folder in ("etc/eslbot.service.d", "lib"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def test_the_log_is_where_the_installation_has_it(
    units: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert logs.log_of(None, "eslbot") == "journalctl -u eslbot"
    unit = units / "lib" / "eslbot.service"
    unit.write_text(
        "[Service]\nStandardOutput=append:/var/log/one.log\nStandardError=append:/var/log/two.log\n"
    )
    assert logs.log_of(None, "eslbot") == "tail -n 100 /var/log/two.log"
    (units / "etc" / "eslbot.service.d" / "own.conf").write_text("StandardError=append:/srv/three.log\n")
    assert logs.log_of(None, "eslbot") == "tail -n 100 /srv/three.log"
    assert logs.log_of(None, "freeswitch") == "journalctl -u freeswitch"
    (units / "lib" / "freeswitch.service").write_text("[Service]\nStandardError=journal\n")
    assert logs.log_of(None, "freeswitch") == "journalctl -u freeswitch"
    monkeypatch.setattr(logs, "SYSTEMD", tmp_path / "none")
    assert logs.log_of(None, "freeswitch") == "its own standard error, wherever its starter has put it"


def test_the_log_of_a_process_is_where_it_writes(units: Path, tmp_path: Path) -> None:
    for target, expected in (
        (tmp_path / "a log", f"tail -n 100 '{tmp_path}/a log'"),
        (Path("/dev/null"), "its own standard error (/dev/null)"),
        (None, "journalctl -u eslbot"),
    ):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            error = open(target, "wb") if target else theirs  # noqa: PTH123, SIM115
            sleeper = subprocess.Popen(["sleep", "60"], stderr=error.fileno())
        try:
            assert logs.log_of(Process(sleeper.pid), "eslbot") == expected
        finally:
            sleeper.kill()
            sleeper.wait()
            error.close()


def test_remedies_point_at_that_log(site: Installation, units: Path) -> None:
    (units / "lib" / "eslbot.service").write_text("StandardError=append:/var/log/eslbot/eslbot.log\n")
    told = [f.remedy for name in ("service", "relay") for f in site.bad(name)]
    assert [remedy for remedy in told if "journalctl" in remedy] == []
    assert [remedy for remedy in told if "tail -n 100 /var/log/eslbot/eslbot.log" in remedy]


def test_a_ledger_that_is_not_there_is_found(site: Installation) -> None:
    url = "postgresql+psycopg://eslbot:secret-of-the-ledger@127.0.0.1:9/calls"
    site.tree["ledger"] = {"url": url, "journal": "/no/such/directory"}
    told = site.bad("ledger")
    assert [f.looked_at.split(" ")[0] for f in told] == ["ledger.journal", "the", "ledger.url"]
    assert "secret-of-the-ledger" not in repr(told)


# -- numbers, and the report --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last", "calls"), [(10000, 10001, 1), (10000, 10002, 2), (10001, 10004, 2), (10001, 10002, 1)]
)
def test_a_call_takes_an_even_port_and_the_next(first: int, last: int, calls: int) -> None:
    assert rtp.capacity(first, last) == calls


@pytest.mark.parametrize(
    ("severities", "code", "strict"),
    [
        ((), 0, 0),
        ((Severity.OK, Severity.NOTE, Severity.UNKNOWN), 0, 0),
        ((Severity.WARNING, Severity.OK), 0, 1),
        ((Severity.ERROR, Severity.WARNING), 1, 1),
    ],
)
def test_the_exit_code_is_the_worst_findings(
    severities: tuple[Severity, ...], code: int, strict: int
) -> None:
    checked = [Checked("page", [Finding(severity, "it", "so")]) for severity in severities]
    assert (exit_code(checked), exit_code(checked, strict=True)) == (code, strict)


def test_what_strangers_wrote_is_one_bounded_line_without_secrets() -> None:
    redaction.protect(frozenset({"token1", "to-ken 2"}))
    assert clean("a\x1b[31m\r\nb  token1 c to%2dken+2") == "a [31m b ******** c ********"
    assert len(clean("x" * 100_000)) == MAX_TEXT


def test_what_is_late_holds_up_nobody() -> None:
    never = threading.Event()
    began = time.monotonic()
    late, done = together([never.wait, lambda: True], began + 0.1)
    assert (late.value, late.error, done.value) == (None, None, True)
    never.set()


def test_a_check_with_a_defect_is_told_as_that(site: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    def defect(_: object) -> str | None:
        raise TypeError("oh")

    monkeypatch.setattr("eslbot.doctor.checks.rtp.sysctl", defect)
    (found,) = site.bad("rtp")
    assert (found.looked_at, found.found) == ("doctor itself", "TypeError: oh")


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, arguments)])


def command(site: Installation, *arguments: str) -> Result:
    site.path.write_text(tomli_w.dumps(site.tree))
    site.switch.holds(load(site.path))
    return run("--config", site.path, *arguments)


@pytest.fixture
def no_service(site: Installation) -> Iterator[None]:
    """Ports of the service that nobody else gets, and where nobody listens."""
    with socket.socket() as listen, socket.socket() as health, socket.socket() as web:
        for taken in (listen, health, web):
            taken.bind(("127.0.0.1", 0))
        site.tree["server"] = {
            "listen": f"127.0.0.1:{listen.getsockname()[1]}",
            "health": f"127.0.0.1:{health.getsockname()[1]}",
        }
        site.tree["web"] = {"listen": f"127.0.0.1:{web.getsockname()[1]}"}
        yield


@pytest.mark.usefixtures("no_service")
def test_the_command_tells_people_and_programs(site: Installation) -> None:
    fine = command(site, "--only", "silence", "--only", "acl")
    assert fine.exit_code == 0
    assert fine.stdout.splitlines()[-1] == "nothing to mend (2 fine, 0 to know, 0 not checked)"
    bad = command(site, "--json", "--only", "service")
    assert bad.exit_code == 1
    document = json.loads(bad.stdout)
    assert (document["version"], document["exit_code"]) == (1, 1)
    (check,) = document["checks"]
    assert check["check"] == "service"
    assert {*check["findings"][0]} == {"severity", "looked_at", "found", "why", "remedy"}


@pytest.mark.usefixtures("no_service")
def test_no_secret_is_told(site: Installation) -> None:
    site.tree["web"]["tokens"] = {"operator": {"token": "secret-of-the-page"}}
    told = command(site, "--json", "--timeout", "5s").output
    assert '"checks"' in told
    for secret in (PASSWORD, AMEYO_TOKEN, BOT_TOKEN, "secret-of-the-page"):
        assert secret not in told


def test_the_command_that_cannot_begin_says_so(site: Installation) -> None:
    unknown_check = command(site, "--only", "slience")
    assert (unknown_check.exit_code, "there is no check slience" in unknown_check.stderr) == (2, True)
    unknown_user = command(site, "--user", "no-such-user")
    assert (unknown_user.exit_code, "no-such-user" in unknown_user.stderr) == (2, True)
    listed = run("--config", site.path, "--list")
    assert listed.exit_code == 0
    assert [line.split(" ")[0] for line in listed.stdout.splitlines()] == list(TITLES)


def test_every_check_is_in_the_document() -> None:
    text = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    assert [name for name in TITLES if f"| `{name}` |" not in text] == []


def test_a_page_without_tls_is_told(site: Installation) -> None:
    site.tree["web"] = {"listen": "0.0.0.0:8085"}
    (told,) = site.bad("page")
    assert "not on loopback" in told.found
    assert ok("a", "b").remedy == ""
