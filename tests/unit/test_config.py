"""The configuration file: what loads, what every mistake is told as, and what never shows."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import ValidationError
from picows.url import parse_url

from eslbot.config import Address, Config, ConfigError, Relay, Secret, load
from eslbot.config.fields import BotUrl
from eslbot.config.model import OwnRecordings, Recordings
from eslbot.config.secrets import secrets_of
from eslbot.config.show import show
from eslbot.config.urls import MASK

ROOT = Path(__file__).parents[2]
ACME = "2b37ba17-7b20-4b3e-b138-1161e351d5c5"

#: DESIGN section 5, as it stands there.
DESIGN = """
[server]
listen   = "127.0.0.1:8084"      # outbound event socket; the protocol has no password, so:
switches = ["127.0.0.1/32"]      # only these FreeSWITCH hosts may connect
workers  = 2
max_calls = 1000                 # per worker

[freeswitch]                     # what `eslbot conf` renders; every key has a sensible default
sip_ip = "10.0.0.5"              # default: the host's own address
sip_port = 5060
external_ip = "35.227.95.16"     # behind 1:1 NAT: announced in SIP and SDP
rtp_ports = "10000-60000"
event_socket = "127.0.0.1:8021"
event_socket_password = "${FS_PASSWORD}"
controllers = ["127.0.0.1:8084"] # the eslbot listeners a call may be handed to, in order

[relay]                          # beside FreeSWITCH; every key has a sensible default
listen = "127.0.0.1:8086"        # mod_audio_stream connects here
processes = 1
directory = "/var/lib/eslbot/lines"   # line files: the relay writes, FreeSWITCH reads

[web]
listen = "127.0.0.1:8085"        # the page process: the call page, /metrics /healthz /readyz

[ledger]                         # comes with its own issue
url = "sqlite:////var/lib/eslbot/calls.db"    # or postgresql+psycopg://…

[workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5]
name    = "acme"
sources = ["203.0.113.10", "203.0.113.64/28"]
max_calls = 200
max_duration = "30m"

[workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5.bot]
url = "wss://bot.example.com/stream"           # a list: tried in order
protocol = "eslbot"                            # or "twilio", "exotel", "plivo"
sample_rate = 8000                             # or 16000, 24000
connect_timeout = "3s"
first_audio_timeout = "10s"
headers = { Authorization = "${ACME_BOT_TOKEN}" }

[workspaces.2b37ba17-7b20-4b3e-b138-1161e351d5c5.ameyo]
url = "https://management.ameyo.app:8887"
tenant_host = "acme.ameyo.app"
token = "${ACME_AMEYO_TOKEN}"                  # environment, or ${file:/run/secrets/acme}
ca_file = "/etc/ssl/ameyo.pem"                 # optional
bot_properties = ["agent_group", "summary"]
properties = { DID = "{did}", campaign = "support" }
"""
ENVIRONMENT = {
    "FS_PASSWORD": "fs-password-5d1f",
    "ACME_BOT_TOKEN": "Bearer bot-token-91ab",
    "ACME_AMEYO_TOKEN": "ameyo-token-77c2",
}

#: The least that is valid of ``[edge]``.
EDGE = {"sip_ip": "10.0.0.4", "switches": ["10.0.0.5:5060"]}

Tree = dict[str, Any]
Read = Callable[..., Config]


def small() -> Tree:
    """The least that is valid."""
    return {
        "server": {},
        "freeswitch": {},
        "web": {},
        "workspaces": {
            ACME: {
                "name": "acme",
                "sources": ["203.0.113.10"],
                "bot": {"url": "wss://bot.example.com/stream"},
                "ameyo": {
                    "url": "https://management.ameyo.app:8887",
                    "tenant_host": "acme.ameyo.app",
                    "token": "t0ken",
                },
            }
        },
    }


def put(tree: Tree, key: str, value: Any) -> Tree:
    """``tree`` with ``value`` at a dotted key; W, B and A stand for the workspace, its bot and its ameyo."""
    short = {
        "W": ["workspaces", ACME],
        "B": ["workspaces", ACME, "bot"],
        "A": ["workspaces", ACME, "ameyo"],
        "R": ["workspaces", ACME, "recording"],
    }
    first, *rest = key.split(".")
    path = [*short.get(first, [first]), *rest]
    at = tree
    for name in path[:-1]:
        at = at.setdefault(name, {})
    at[path[-1]] = value
    return tree


def full(key: str) -> str:
    for short, long in {"W": "", "B": ".bot", "A": ".ameyo", "R": ".recording"}.items():
        if key.split(".")[0] == short:
            return f"workspaces.{ACME}{long}{key[1:]}"
    return key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config")


@pytest.fixture(scope="module")
def read(folder: Path) -> Read:
    def read(content: str | Tree, environment: dict[str, str] | None = None) -> Config:
        path = folder / "eslbot.toml"
        text = content if isinstance(content, str) else tomli_w.dumps(content)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return load(path, ENVIRONMENT if environment is None else environment)

    return read


def problems(read: Read, content: str | Tree, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(content, environment)
    return caught.value.problems


# -- what is valid ----------------------------------------------------------------------------------------


def test_the_designs_example_loads_as_it_is(read: Read) -> None:
    config = read(DESIGN)
    assert config.server.listen == Address(ip_address("127.0.0.1"), 8084)
    assert config.server.switches == (ip_network("127.0.0.1/32"),)
    assert (config.server.workers, config.server.max_calls) == (2, 1000)
    switch = config.freeswitch
    assert (str(switch.sip_ip), switch.sip_port, str(switch.external_ip)) == (
        "10.0.0.5",
        5060,
        "35.227.95.16",
    )
    assert switch.rtp_ports == (10000, 60000)
    assert config.relay == Relay(Address(ip_address("127.0.0.1"), 8086), 1, "/var/lib/eslbot/lines")
    assert switch.event_socket_password == Secret("fs-password-5d1f")
    assert [str(controller) for controller in switch.controllers] == ["127.0.0.1:8084"]
    assert (str(config.web.listen), str(config.server.health)) == ("127.0.0.1:8085", "127.0.0.1:8083")
    acme = config.workspaces[ACME]
    assert (acme.id, acme.name, acme.max_calls, acme.max_duration) == (ACME, "acme", 200, 1800.0)
    assert acme.sources == (ip_network("203.0.113.10/32"), ip_network("203.0.113.64/28"))
    assert acme.bot.urls == ("wss://bot.example.com/stream",)
    assert (acme.bot.sample_rate, acme.bot.protocol) == (8000, "eslbot")
    assert (acme.bot.connect_timeout, acme.bot.first_audio_timeout) == (3.0, 10.0)
    assert acme.bot.headers["Authorization"].reveal() == "Bearer bot-token-91ab"
    assert (acme.ameyo.url, acme.ameyo.tenant_host) == ("https://management.ameyo.app:8887", "acme.ameyo.app")
    assert acme.ameyo.token.reveal() == "ameyo-token-77c2"
    assert acme.ameyo.bot_properties == ("agent_group", "summary")
    assert acme.ameyo.properties == {"DID": "{did}", "campaign": "support"}
    assert acme.ameyo.ca_file == "/etc/ssl/ameyo.pem"


def test_the_operator_is_told_of_a_ca_file_that_is_not_here(read: Read) -> None:
    (ca_file,) = read(DESIGN.replace("/etc/ssl/ameyo.pem", "/nowhere/ameyo.pem")).warnings
    assert "ameyo.ca_file: /nowhere/ameyo.pem" in ca_file


def test_every_key_but_a_few_has_a_default(read: Read) -> None:
    config = read(small())
    assert str(config.server.listen) == "127.0.0.1:8084"
    assert str(config.server.health) == "127.0.0.1:8083"
    assert (config.server.workers, config.server.max_calls) == (2, 1000)
    assert config.freeswitch.event_socket_password is None
    assert [str(controller) for controller in config.freeswitch.controllers] == ["127.0.0.1:8084"]
    acme = config.workspaces[ACME]
    assert (acme.max_calls, acme.max_cps, acme.max_duration) == (200, 30, 1800.0)
    assert (acme.bot.sample_rate, acme.bot.protocol, acme.bot.headers) == (8000, "eslbot", {})
    assert acme.bot.proxy is None
    assert config.relay == Relay(Address(ip_address("127.0.0.1"), 8086), 1, "/var/lib/eslbot/lines")
    assert (acme.hold_sound, acme.bot.reconnect) == ("silence", False)
    assert (acme.ameyo.bye_timeout, acme.ameyo.renotify) == (60.0, False)
    assert config.freeswitch.media_timeout == 300.0
    assert (str(config.freeswitch.capture), acme.nat) == ("127.0.0.1:8087", False)
    assert config.server.switch_user is None
    assert config.warnings == ()


@pytest.mark.parametrize(
    ("server", "told"),
    [
        ({"switch_user": "freeswitch"}, False),
        ({"switch_user": "997"}, False),
        ({}, False),
        ({"switch_user": "any"}, True),
        ({"switch_user": "any", "listen": "10.0.0.21:8084", "switches": ["10.0.0.5"]}, False),
        ({"switch_user": "any", "listen": "10.0.0.21:8084", "switches": ["10.0.0.0/24"]}, True),
        ({"switch_user": "any", "listen": "10.0.0.21:8084", "switches": ["10.0.0.5", "127.0.0.1"]}, True),
        ({"switch_user": "any", "listen": "[::]:8084", "switches": ["10.0.0.5"]}, True),
    ],
)
def test_a_listener_that_local_users_can_speak_to_is_told(read: Read, server: Tree, told: bool) -> None:
    config = read(small() | {"server": server})
    assert config.server.switch_user == server.get("switch_user")
    assert ["switch_user: any" in warning for warning in config.warnings] == [True] * told


def test_a_listener_on_every_address_is_reached_by_loopback(read: Read) -> None:
    config = read(put(small(), "server.listen", "0.0.0.0:9999"))
    assert [str(controller) for controller in config.freeswitch.controllers] == ["127.0.0.1:9999"]


def test_bot_urls_may_be_a_list_in_order(read: Read) -> None:
    config = read(put(small(), "B.url", ["wss://one.example.com/", "wss://two.example.com/"]))
    assert config.workspaces[ACME].bot.urls == ("wss://one.example.com/", "wss://two.example.com/")


@pytest.mark.parametrize(
    "url",
    [
        *["wss://my_bot/", "wss://[::1]:8443/", "WSS://Bot.Example.com", "wss://bot?key=x", "wss://bot:443"],
        *["wss://10.0.0.7/a//b?c=d&e=%20f", "wss://bot./", "wss://[fe80::1]/"],
    ],
)
def test_a_bots_url_is_dialled_as_it_was_checked(read: Read, url: str) -> None:
    (checked,) = read(put(small(), "B.url", url)).workspaces[ACME].bot.urls
    dialled = parse_url(checked)
    parts = urlsplit(url)
    assert dialled.is_secure and (dialled.username, dialled.password) == (None, None)
    assert (dialled.host, dialled.port) == (parts.hostname, parts.port or 443)
    assert dialled.resource_name == (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@pytest.mark.slow
@given(
    st.text(st.sampled_from("wsWS:/?#[]@!$&'()*+,;=%aB.-_09 \t\n\x00é"), max_size=24).map("wss://".__add__)
    | st.text(max_size=24)
)
def test_what_the_check_lets_in_is_dialled_as_it_stands(text: str) -> None:
    try:
        url = BotUrl().deserialize(text)
    except ValidationError:
        return
    parts, dialled = urlsplit(url), parse_url(url)
    assert (dialled.host, dialled.username) == (parts.hostname, None)
    assert dialled.resource_name == (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


@pytest.mark.parametrize("never", [0, "0s", "0ms"])
def test_a_bot_may_wait_for_the_caller(read: Read, never: Any) -> None:
    config = read(put(small(), "B.first_audio_timeout", never))
    assert config.workspaces[ACME].bot.first_audio_timeout == 0
    assert read(unmasked(show(config))).workspaces[ACME].bot == config.workspaces[ACME].bot


def test_a_proxy_and_the_password_in_it_are_secrets(read: Read) -> None:
    config = read(put(small(), "B.proxy", "socks5://user:p%40ssword@10.0.0.9:1080"))
    assert "ssword" not in show(config) and "10.0.0.9" not in show(config)
    assert {"p%40ssword", "p@ssword", "socks5://user:p%40ssword@10.0.0.9:1080"} <= secrets_of(config)


def test_the_way_to_ameyo_and_the_password_in_it(read: Read) -> None:
    tree = put(small(), "egress.addresses", ["35.227.95.16", "35.227.95.17", "35.227.95.16"])
    put(
        put(tree, "A.source_address", "10.0.0.21"), "A.proxy", "http://eslbot:${PROXY_PASSWORD}@10.0.0.9:3128"
    )
    config = read(tree, {"PROXY_PASSWORD": "proxy-password-5c1e"})
    ameyo = config.workspaces[ACME].ameyo
    assert [str(address) for address in config.egress.addresses] == ["35.227.95.16", "35.227.95.17"]
    assert (str(ameyo.source_address), ameyo.proxy) == (
        "10.0.0.21",
        Secret("http://eslbot:proxy-password-5c1e@10.0.0.9:3128"),
    )
    assert "proxy-password-5c1e" in secrets_of(config)
    assert "proxy-password-5c1e" not in show(config) + repr(config)
    again = tomllib.loads(show(config))
    assert again["egress"] == {"addresses": ["35.227.95.16", "35.227.95.17"]}
    assert again["workspaces"][ACME]["ameyo"]["source_address"] == "10.0.0.21"
    assert again["workspaces"][ACME]["ameyo"]["proxy"] == MASK
    assert (read(small()).egress.addresses, "egress" in tomllib.loads(show(read(small())))) == ((), False)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"A.proxy": "http://10.0.0.9:3128", "A.url": "http://a", "A.insecure": True}, "A.proxy: goes"),
        ({"A.source_address": "::1", "A.url": "https://10.0.0.3:8887"}, "A.source_address: ::1 cannot reach"),
        ({"A.source_address": "::1", "A.proxy": "http://10.0.0.9:3128"}, "cannot reach the proxy"),
        ({"A.source_address": "10.0.0.1", "A.url": "https://[::1]:8887"}, "cannot reach the url"),
    ],
)
def test_ways_that_lead_nowhere_are_told(read: Read, keys: Tree, problem: str) -> None:
    tree = small()
    for key, value in keys.items():
        put(tree, key, value)
    (found,) = problems(read, tree)
    assert problem.replace("A.", full("A.")) in found


def test_keys_of_earlier_versions_are_told_and_not_read(read: Read) -> None:
    tree = put(put(small(), "freeswitch.temp_dir", ["${NOWHERE}"]), "B.playback", 1)
    assert read(tree).warnings == (
        "freeswitch.temp_dir: is no longer needed, and not read; take it out",
        f"workspaces.{ACME}.bot.playback: is no longer needed, and not read; take it out",
    )
    assert tree["freeswitch"] == {"temp_dir": ["${NOWHERE}"]}, "what was read is not changed"
    assert "temp_dir" not in show(read(tree)) and "playback" not in show(read(tree))


@pytest.mark.parametrize(
    ("protocol", "rate", "problem"),
    [
        ("twilio", 16000, "expected 8000 with protocol = 'twilio', got 16000"),
        ("plivo", 24000, "expected 8000 or 16000 with protocol = 'plivo', got 24000"),
        ("exotel", 24000, None),
        ("eslbot", 24000, None),
    ],
)
def test_each_protocol_has_its_rates(read: Read, protocol: str, rate: int, problem: str | None) -> None:
    tree = put(put(small(), "B.protocol", protocol), "B.sample_rate", rate)
    if problem is None:
        assert read(tree).workspaces[ACME].bot.sample_rate == rate
    else:
        assert problems(read, tree) == [f"workspaces.{ACME}.bot.sample_rate: {problem}"]


def test_who_may_hear_recordings(read: Read) -> None:
    tokens = {
        "ops": {"token": "x" * 16},
        "qa": {"token": "y" * 16, "recordings": True, "workspaces": ["acme"]},
    }
    config = read(put(small(), "web.tokens", tokens))
    assert [(token.name, token.numbers, token.recordings) for token in config.web.tokens] == [
        ("ops", False, False),
        ("qa", False, True),
    ]
    shown = tomllib.loads(show(config))["web"]["tokens"]["qa"]
    assert (shown["numbers"], shown["recordings"], shown["workspaces"]) == (False, True, ["acme"])


def test_a_relay_of_ones_own_place(read: Read) -> None:
    table = {"listen": "10.0.0.1:9", "processes": 0, "directory": "/dev/shm/lines/"}
    config = read(put(small(), "relay", table))
    assert config.relay == Relay(Address(ip_address("10.0.0.1"), 9), 0, "/dev/shm/lines")
    assert read(unmasked(show(config))).relay == config.relay


@pytest.mark.parametrize("address", ["127.0.0.1:9083", "127.0.0.2:8083", "[::1]:8083"])
def test_workers_tell_how_they_are_on_loopback(read: Read, address: str) -> None:
    config = read(put(small(), "server.health", address))
    assert str(config.server.health) == address
    assert tomllib.loads(show(config))["server"]["health"] == address


def test_a_pbx_behind_nat_and_where_copies_of_sip_go(read: Read) -> None:
    tree = put(put(small(), "W.nat", True), "freeswitch.capture", "127.0.0.2:9060")
    config = read(put(put(tree, "freeswitch.db", "/srv/db/"), "freeswitch.recovery_file", "/srv/word.json"))
    assert (config.freeswitch.db, config.freeswitch.recovery_file) == ("/srv/db", "/srv/word.json")
    assert (config.workspaces[ACME].nat, str(config.freeswitch.capture)) == (True, "127.0.0.2:9060")
    shown = tomllib.loads(show(config))
    assert shown["workspaces"][ACME]["nat"] is True
    assert shown["freeswitch"]["capture"] == "127.0.0.2:9060"
    assert (shown["freeswitch"]["db"], shown["freeswitch"]["recovery_file"]) == ("/srv/db", "/srv/word.json")


@pytest.mark.parametrize("sound", ["silence", "tone", "/srv/sounds/hold-8k_1.wav"])
def test_what_the_customer_hears_while_waiting(read: Read, sound: str) -> None:
    config = read(put(put(small(), "W.hold_sound", sound), "B.reconnect", True))
    acme = config.workspaces[ACME]
    assert (acme.hold_sound, acme.bot.reconnect) == (sound, True)
    shown = tomllib.loads(show(config))["workspaces"][ACME]
    assert (shown["hold_sound"], shown["bot"]["reconnect"]) == (sound, True)


def test_how_long_a_pbx_may_be_silent_and_a_handed_off_call_may_stay(read: Read) -> None:
    tree = put(put(small(), "freeswitch.media_timeout", "24h"), "A.bye_timeout", "1500ms")
    config = read(put(tree, "A.renotify", True))
    ameyo = config.workspaces[ACME].ameyo
    assert (config.freeswitch.media_timeout, ameyo.bye_timeout, ameyo.renotify) == (86400.0, 1.5, True)
    shown = tomllib.loads(show(config))
    assert shown["freeswitch"]["media_timeout"] == "86400s"
    shown = shown["workspaces"][ACME]["ameyo"]
    assert (shown["bye_timeout"], shown["renotify"]) == ("1.5s", True)


def test_clear_text_is_taken_where_it_is_asked_for(read: Read) -> None:
    tree = put(put(small(), "B.url", "ws://bot:8080/"), "B.insecure", True)
    put(put(tree, "A.url", "http://127.0.0.1:1/"), "A.insecure", True)
    acme = read(tree).workspaces[ACME]
    assert (acme.bot.urls, acme.ameyo.url) == (("ws://bot:8080/",), "http://127.0.0.1:1")


def test_the_environment_and_files_are_put_in(read: Read, folder: Path) -> None:
    (folder / "secret").write_text("from-the-file\n")
    tree = put(small(), "A.token", f"${{file:{folder / 'secret'}}}")
    put(tree, "B.headers", {"Authorization": "Bearer ${TOKEN}", "X-Two": "${A}${B}"})
    put(tree, "A.tenant_host", "${HOST}.ameyo.app")
    acme = read(tree, {"TOKEN": "abc", "A": "1", "B": "2", "HOST": "tenant"}).workspaces[ACME]
    assert acme.ameyo.token.reveal() == "from-the-file"
    assert acme.ameyo.tenant_host == "tenant.ameyo.app"
    assert {name: value.reveal() for name, value in acme.bot.headers.items()} == {
        "Authorization": "Bearer abc",
        "X-Two": "12",
    }


def test_what_a_reference_stands_for_is_not_expanded_again(read: Read) -> None:
    tree = put(small(), "A.token", "${OUTER}")
    token = read(tree, {"OUTER": "${INNER}", "INNER": "no"}).workspaces[ACME].ameyo.token
    assert token.reveal() == "${INNER}"


def test_the_process_environment_is_the_default(
    read: Read, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESLBOT_TEST_TOKEN", "from-the-environment")
    path = folder / "environment.toml"
    path.write_text(tomli_w.dumps(put(small(), "A.token", "${ESLBOT_TEST_TOKEN}")))
    assert load(path).workspaces[ACME].ameyo.token.reveal() == "from-the-environment"


def test_workspace_ids_are_found_in_lower_case(read: Read) -> None:
    tree = small()
    tree["workspaces"] = {ACME.upper(): tree["workspaces"][ACME]}
    config = read(tree)
    assert list(config.workspaces) == [ACME]
    assert config.workspaces[ACME].id == ACME


def test_sources_of_all_workspaces_make_the_acl(read: Read) -> None:
    tree = small()
    other = json.loads(json.dumps(tree["workspaces"][ACME]))
    other.update(name="other", sources=["203.0.113.10", "10.0.0.0/8", "2001:db8::/32"])
    tree["workspaces"]["11111111-1111-1111-1111-111111111111"] = other
    assert [str(n) for n in read(tree).sources] == ["10.0.0.0/8", "203.0.113.10/32", "2001:db8::/32"]


@pytest.mark.parametrize(
    ("ip", "known"),
    [
        ("203.0.113.10", True),
        ("::ffff:203.0.113.10", True),
        ("203.0.113.11", False),
        ("", False),
        ("nonsense", False),
        ("203.0.113.10 ", False),
    ],
)
def test_a_workspace_knows_its_own_sources(read: Read, ip: str, known: bool) -> None:
    assert read(small()).workspaces[ACME].knows_source(ip) is known


# -- what is not ------------------------------------------------------------------------------------------

#: A table of [tracing].
OTLP = {"endpoint": "https://otel.example.com/v1/traces"}

MISTAKES: list[tuple[str, Any, str]] = [
    ("server.listen", "127.0.0.1", 'an IP address and a port like "127.0.0.1:8084"'),
    ("server.listen", "localhost:8084", "an IP address and a port"),
    ("server.listen", "::1:8084", "an IP address and a port"),
    ("server.listen", "127.0.0.1:0", "a port from 1 to 65535"),
    ("server.listen", "127.0.0.1:65536", "a port from 1 to 65535"),
    ("server.listen", "127.0.0.1:" + "9" * 5000, "a port from 1 to 65535"),
    ("server.listen", "127.0.0.1:٨٠", "an IP address and a port"),
    ("server.listen", 8084, "in quotes, got 8084"),
    ("server.switches", ["10.0.0.1/8"], "did you mean '10.0.0.0/8'"),
    ("server.switches", ["10.0.0.0/33"], "an address or a CIDR block"),
    ("server.switches", [], "expected 1 to 256 entries"),
    ("server.switch_user", "", "a user's name, or its number in quotes"),
    ("server.switch_user", "free switch", "a user's name, or its number in quotes"),
    ("server.switch_user", "12345678901", "a user's name, or its number in quotes"),
    ("server.switch_user", 997, "a user's name, or its number in quotes"),
    ("server.switches", "127.0.0.1/32", "expected a list in [ ]"),
    ("server.workers", 0, "a whole number from 1 to 64, got 0"),
    ("server.workers", "2", "a whole number from 1 to 64"),
    ("server.workers", True, "a whole number from 1 to 64"),
    ("server.workers", 1.5, "a whole number from 1 to 64"),
    ("server.max_calls", float("inf"), "a whole number from 1 to 20000"),
    ("server.max_calls", float("nan"), "a whole number from 1 to 20000"),
    ("server.max_calls", -1, "a whole number from 1 to 20000"),
    (
        "server.worker",
        2,
        "not a known key; known here: health, key_file, listen, max_calls, switch_user, switches, workers",
    ),
    ("freeswitch.sip_ip", "10.0.0.256", "an IP address like"),
    ("freeswitch.sip_port", 65536, "a whole number from 1 to 65535"),
    ("freeswitch.external_ip", "example.com", "an IP address like"),
    ("freeswitch.rtp_ports", "60000-10000", "1024 <= first < last <= 65535"),
    ("freeswitch.rtp_ports", "80-90", "1024 <= first < last <= 65535"),
    ("freeswitch.rtp_ports", "10000", 'a range of ports like "10000-60000"'),
    ("freeswitch.rtp_ports", "10000-66000", "1024 <= first < last <= 65535"),
    ("freeswitch.event_socket", "8021", "an IP address and a port"),
    ("relay.directory", "tmp", "an absolute path"),
    ("relay.directory", "/tmp/a b", "an absolute path"),
    ("relay.directory", "/tmp/a\n", "an absolute path"),
    ("relay.directory", "/" + "a" * 200, "at most 200 characters"),
    ("relay.processes", -1, "a whole number from 0 to 64"),
    ("relay.processes", 65, "a whole number from 0 to 64"),
    ("server.health", "0.0.0.0:8083", "an address of loopback like 127.0.0.1:8083, got '0.0.0.0:8083'"),
    ("server.health", "10.0.0.5:8083", "an address of loopback"),
    ("server.health", "[::]:8083", "an address of loopback"),
    ("server.health", "8083", "an IP address and a port"),
    ("server.health", "127.0.0.1:8084", "is server.listen already; each needs its own"),
    ("web.listen", "127.0.0.1:8083", "is server.health already"),
    ("relay.listen", "127.0.0.1:8083", "is server.health already"),
    ("relay.listen", "8086", "an IP address and a port"),
    ("relay.listen", "[::1]:8086", "an IPv4 address: mod_audio_stream connects to no other"),
    ("relay.listen", "[::]:8086", "an IPv4 address: mod_audio_stream connects to no other"),
    ("relay.listen", "127.0.0.1:8084", "is server.listen already"),
    ("relay.listen", "127.0.0.1:8085", "is web.listen already"),
    ("freeswitch.controllers", ["127.0.0.1"], "an IP address and a port"),
    ("egress.addresses", ["35.227.95.0/24"], "an IP address like"),
    ("egress.addresses", ["0.0.0.0"], "an address of one host, got 0.0.0.0"),
    ("egress.addresses", [], "expected 1 to 256 entries"),
    ("egress.address", ["35.227.95.16"], "not a known key; known here: addresses"),
    ("A.source_address", "eth0", "an IP address like"),
    ("A.source_address", "::", "an address of one host, got ::"),
    ("A.source_address", "224.0.0.1", "an address of one host, got 224.0.0.1"),
    ("A.proxy", "https://10.0.0.9:3128", "an http:// URL with a port"),
    ("A.proxy", "socks5://10.0.0.9:1080", "an http:// URL with a port"),
    ("A.proxy", "http://10.0.0.9", "an http:// URL with a port"),
    ("A.proxy", "http://10.0.0.9:3128/path", "an http:// URL with a port"),
    ("A.proxy", "http://user:pass#word@10.0.0.9:3128", "an http:// URL with a port"),
    ("freeswitch.media_timeout", "999ms", "expected 1 to 86400 seconds"),
    ("freeswitch.capture", "8087", "an IP address and a port"),
    ("freeswitch.db", "run/db", "an absolute path"),
    ("freeswitch.db", "/run/a b", "an absolute path"),
    ("freeswitch.recovery_file", "/run/$(x)", "an absolute path"),
    ("freeswitch.recovery_file", 3, "a path in quotes"),
    ("freeswitch.recovery_file", "/etc/passwd", "that ends in .json, got '/etc/passwd'"),
    ("freeswitch.recovery_file", "/run/x.json/", "that ends in .json, got '/run/x.json/'"),
    ("W.nat", "yes", "expected true or false"),
    ("freeswitch.media_timeout", "25h", "expected 1 to 86400 seconds"),
    ("freeswitch.media_timeout", 300, 'a duration like "500ms", "3s", "30m" or "1h"'),
    ("web.listen", "127.0.0.1:8084", "is server.listen already"),
    ("web.port", 1, "is not a known key; known here: listen"),
    ("W.name", "a b", "expected 1 to 64 of letters"),
    ("W.name", "acme\n", "expected 1 to 64 of letters"),
    ("W.name", "", "expected 1 to 64 of letters"),
    ("W.sources", ["203.0.113.300"], "an address or a CIDR block"),
    ("W.sources", [203], "in quotes, got 203"),
    ("W.max_calls", 0, "a whole number from 1 to 100000"),
    ("W.max_cps", 0, "a whole number from 1 to 10000"),
    ("W.max_cps", 2.5, "a whole number from 1 to 10000"),
    ("W.max_duration", "30", 'a duration like "500ms", "3s", "30m" or "1h"'),
    ("W.max_duration", 30, "a duration like"),
    ("W.max_duration", "30 m", "a duration like"),
    ("W.max_duration", "-3s", "a duration like"),
    ("W.max_duration", "25h", "expected 1 to 86400 seconds"),
    ("W.max_duration", "10ms", "expected 1 to 86400 seconds"),
    ("B.url", "https://bot.example.com/", "a URL like wss://host.example.com/"),
    ("B.url", "ws://bot.example.com/", "use wss://, or say insecure = true in the same table"),
    ("B.url", "WS://bot.example.com/", "use wss://, or say insecure = true in the same table"),
    ("B.url", "wss://a..b/", "a host name or an address"),
    ("B.url", "wss://" + "a" * 64 + "/", "a host name or an address"),
    ("B.url", "wss://bot/a;b", "has characters that a URL must escape"),
    ("B.url", "wss://bot/#a", "has characters that a URL must escape"),
    ("B.url", "wss://user:pass@bot/", "credentials do not belong in a URL"),
    ("B.url", "wss://bot/a b", "has characters that a URL must escape"),
    ("B.url", "wss://bot/${}", "is neither ${NAME} nor ${file:/path}"),
    ("B.url", "wss://bot:0/", "a URL like wss://"),
    ("B.url", "wss://bot:99999/", "a URL like wss://"),
    ("B.url", "wss://", "a URL like wss://"),
    ("B.url", "wss://bot/" + "x" * 2000, "up to 2,000 characters"),
    ("B.url", [], "one URL or a list of 1 to 8"),
    ("B.sample_rate", 44100, "expected 8000, 16000 or 24000, got 44100"),
    ("B.sample_rate", "8000", "expected 8000, 16000 or 24000"),
    ("B.protocol", "sip", "expected one of eslbot, twilio, exotel, plivo, got 'sip'"),
    ("B.proxy", "proxy.example.com:3128", "a URL with a port"),
    ("B.proxy", "http://proxy.example.com", "a URL with a port"),
    ("B.proxy", "ftp://proxy.example.com:21", "a URL with a port"),
    ("B.proxy", "socks5://:1080", "a URL with a port"),
    ("B.proxy", "http://proxy:3128/path", "a URL with a port"),
    ("B.reconnect", "yes", "expected true or false"),
    ("W.hold_sound", "music", 'expected "silence", "tone" or an absolute path of a sound file'),
    ("W.hold_sound", "silence_stream://-1", 'expected "silence", "tone" or an absolute path'),
    ("W.hold_sound", "/a/${file:/nowhere}", "/nowhere cannot be read"),
    ("W.hold_sound", "/hold music.wav", 'expected "silence", "tone" or an absolute path'),
    ("W.hold_sound", "/hold.wav\n", 'expected "silence", "tone" or an absolute path'),
    ("W.hold_sound", "tone ", 'expected "silence", "tone" or an absolute path'),
    ("B.connect_timeout", "0s", "expected 0.1 to 60 seconds"),
    ("B.first_audio_timeout", "11m", "expected 0, or 0.1 to 600 seconds"),
    ("B.first_audio_timeout", 1, 'a duration like "500ms", "3s", "30m" or "1h"'),
    ("B.first_audio_timeout", False, 'a duration like "500ms", "3s", "30m" or "1h"'),
    ("B.headers", {"X Y": "z"}, "the name of an HTTP header"),
    ("B.headers", {"X-A\r\nX-B": "z"}, "the name of an HTTP header"),
    ("B.headers", {"x-crt-object-id": "z"}, "is set by eslbot"),
    ("B.headers", {"HOST": "z"}, "is set by eslbot"),
    ("B.headers", {"Authorization": "a\r\nX-B: c"}, "printable ASCII"),
    ("B.headers", {"Authorization": ""}, "is empty"),
    ("B.headers", "x", "expected a table like"),
    ("B.insecure", "yes", "expected true or false"),
    ("A.bye_timeout", "0s", "expected 1 to 3600 seconds"),
    ("A.bye_timeout", "61m", "expected 1 to 3600 seconds"),
    ("A.renotify", "no", "expected true or false, without quotes"),
    ("A.url", "http://a.example.com", "use https://, or say insecure = true in the same table"),
    ("A.url", "HTTP://a.example.com", "use https://, or say insecure = true in the same table"),
    ("A.url", "ftp://a.example.com", "a URL like https://host.example.com/"),
    ("A.url", "https://a.example.com/?tenant=acme", "cannot have a query"),
    ("A.url", "https://a.example.com/#x", "has characters that a URL must escape"),
    ("A.tenant_host", "https://acme", "a host name like"),
    ("A.tenant_host", "acme\r\nX-A: b", "a host name like"),
    ("A.token", "", "is empty"),
    ("A.token", " t", "without white space around it"),
    ("A.token", "täglich", "printable ASCII"),
    ("A.token", "a\nb", "printable ASCII"),
    ("A.token", "${NOT_THERE}", "the environment variable NOT_THERE is not set"),
    ("A.token", "${file:/not/there}", "/not/there cannot be read: No such file or directory"),
    ("A.token", "${file:/dev/zero}", "holds over 16384 bytes"),
    ("A.token", "${file:/proc}", "cannot be read: Is a directory"),
    ("A.token", "${file:/a\0b}", "is not a path"),
    ("A.token", "${not a name}", "is neither ${NAME} nor ${file:/path}"),
    ("A.bot_properties", "summary", "expected a list in [ ]"),
    ("A.bot_properties", [""], "expected a name of 1 to 64 printable characters"),
    ("A.bot_properties", ["n"] * 65, "expected at most 64 names"),
    ("A.properties", {"a": "{nope}"}, "{nope} is not known; known are {did}"),
    ("A.properties", {"a": 3}, "expected a text in quotes"),
    ("A.properties", {"a": "x" * 1025}, "expected at most 1,024 characters"),
    ("A.timeout", "3m", "expected 0.1 to 120 seconds"),
    ("A.password", "x", "is not a known key"),
    ("ledger.url", 3, "expected"),
    ("ledger.url", "sqlite:///calls.db", "an absolute path behind sqlite:///"),
    ("ledger.url", "postgresql://localhost/calls", "expected postgresql+psycopg://"),
    ("ledger.url", "postgresql+psycopg://localhost", "expected"),
    ("ledger.url", "mysql://localhost/calls", "expected"),
    ("ledger.journal", "journal", "an absolute path of at most 1000 characters"),
    ("ledger.retention", "30s", "expected 3600 to"),
    ("logs.mask_numbers", "yes", "expected true or false"),
    ("B.headers", {"Traceparent": "00-1-1-00"}, "is set by eslbot or the WebSocket protocol itself"),
    ("tracing", {"endpoint": "https://otel.example.com/v1/traces"}, "add a [ledger] table"),
    ("tracing", {}, "is missing; expected the collector's URL"),
    ("tracing", {**OTLP, "endpoint": "http://127.0.0.1:4318/v1/traces"}, "say insecure = true"),
    ("tracing", {**OTLP, "endpoint": "otel.example.com"}, "a URL like https://"),
    ("tracing", {**OTLP, "share": 1.5}, "expected a number from 0 to 1, got 1.5"),
    ("tracing", {**OTLP, "share": "all"}, "expected a number from 0 to 1, without quotes"),
    ("tracing", {**OTLP, "headers": ["a"]}, "expected a table like { Authorization"),
    ("tracing", {**OTLP, "headers": {"a b": "x"}}, "a b"),
    ("tracing", {**OTLP, "service_name": ""}, "expected 1 to 64 of letters"),
    ("web.tokens", {"ops": {"token": "short"}}, "expected at least 16 characters"),
    ("web.tokens", {"ops": {}}, "is missing; expected a token of at least 16 characters"),
    ("web.tokens", {"ops": {"token": "x" * 16, "recordings": "yes"}}, "expected true or false"),
    (
        "web.tokens",
        {"ops": {"token": "x" * 16, "workspaces": ["nobody"]}},
        "no workspace of the name 'nobody'",
    ),
    ("workspaces", {}, "expected at least one workspace"),
    ("workspaces", 3, "expected tables named by workspace id"),
    ("workspaces.acme", {}, "expected a workspace id (a UUID like"),
    ("edge", {"switches": ["10.0.0.5:5060"]}, "is missing; expected the edge's own address"),
    ("edge", {"sip_ip": "10.0.0.4"}, "is missing; expected FreeSWITCH's SIP addresses"),
    ("edge", {**EDGE, "switches": []}, "expected 1 to 256 entries"),
    ("edge", {**EDGE, "switches": ["10.0.0.5"]}, "an IP address and a port"),
    ("edge", {**EDGE, "switches": ["[::1]:5060"]}, "cannot be reached from 10.0.0.4"),
    ("edge", {**EDGE, "switches": ["10.0.0.5:5060", "10.0.0.5:5060"]}, "is there twice"),
    ("recording.directory", "relative", "expected an absolute path"),
    ("recording.keep", "1s", "expected 3600 to"),
    ("recording.max_bytes", "50", 'expected a size like "500MB" or "50GB", or a number of bytes'),
    ("recording.max_bytes", True, "expected a size like"),
    ("recording.min_free", -1, "expected a size like"),
    ("recording.min_free", "1 EB", "expected a size like"),
    ("W.record", 1.01, "expected true, false or a share of calls from 0.0 to 1.0, got 1.01"),
    ("W.record", -0.1, "expected true, false or a share"),
    ("W.record", "yes", "expected true, false or a share"),
    ("W.record", float("nan"), "expected true, false or a share"),
    ("R.announcement", "hello.wav", 'expected "beep" or the absolute path of a WAV file'),
    ("R.announcement", 1, "expected a text in quotes"),
    ("R.keep", "0s", "expected 3600 to"),
    ("R.key", "abc", "expected the 64 hex digits that `openssl rand -hex 32` prints"),
    ("R.key", "g" * 64, "expected the 64 hex digits"),
    ("R.key", 1, "expected the 64 hex digits"),
    ("R.old_keys", ["0f" * 31], "expected the 64 hex digits"),
    ("R.old_keys", "0f" * 32, "expected a list in [ ]"),
    ("R.secret", "x", "is not a known key; known here: announcement, keep, key, old_keys"),
    ("edge", {**EDGE, "inner_port": 5060}, "is sip_port already"),
    ("edge", {**EDGE, "addresses": ["10.0.0.9"]}, "expected sip_ip (10.0.0.4) to be among"),
    (
        "wrong",
        1,
        "is not a known key; known here: edge, egress, freeswitch, ledger, logs, recording, relay, server, "
        "tracing, web, workspaces",
    ),
]


@pytest.mark.parametrize(
    ("key", "value", "expected"), MISTAKES, ids=[f"{k}={str(v)[:30]!r}" for k, v, _ in MISTAKES]
)
def test_a_mistake_is_named_by_its_key_with_what_was_expected(
    read: Read, key: str, value: Any, expected: str
) -> None:
    found = problems(read, put(small(), key, value))
    matching = [problem for problem in found if problem.startswith(full(key)) and expected in problem]
    assert matching, found
    if key != "workspaces.acme":  # an empty table has more than one problem
        assert len(found) == 1, "one mistake must be told once"


KEYS = {
    "server": ["listen", "health", "switches", "workers", "max_calls", "switch_user"],
    "freeswitch": [
        "sip_ip",
        "sip_port",
        "external_ip",
        "rtp_ports",
        "event_socket",
        "event_socket_password",
        "controllers",
        "media_timeout",
    ],
    "web": ["listen", "tokens"],
    "ledger": ["url", "journal", "retention"],
    "relay": ["listen", "processes", "directory"],
    "logs": ["mask_numbers"],
    "recording": ["directory", "keep", "max_bytes", "min_free"],
    "R": ["announcement", "keep", "key", "old_keys"],
    "W": [
        "name",
        "sources",
        "max_calls",
        "max_cps",
        "max_duration",
        "hold_sound",
        "record",
        "recording",
        "bot",
        "ameyo",
    ],
    "B": [
        "url",
        "sample_rate",
        "protocol",
        "proxy",
        "connect_timeout",
        "first_audio_timeout",
        "reconnect",
        "headers",
        "insecure",
    ],
    "A": [
        "url",
        "tenant_host",
        "token",
        "ca_file",
        "bot_properties",
        "properties",
        "connect_timeout",
        "timeout",
        "bye_timeout",
        "renotify",
        "insecure",
        "source_address",
        "proxy",
    ],
    "egress": ["addresses"],
}


@pytest.mark.parametrize("key", [f"{table}.{key}" for table, keys in KEYS.items() for key in keys])
@pytest.mark.parametrize("value", [[[1]], 1979.5, {"x": {"y": 1}}], ids=["list", "float", "table"])
def test_a_wrong_type_says_what_was_expected(read: Read, key: str, value: Any) -> None:
    found = problems(read, put(small(), key, value))
    assert all(problem.startswith(full(key)) for problem in found), found
    assert any("expected" in problem or "not a known key" in problem for problem in found), found


@pytest.mark.parametrize(
    "key", ["W.name", "W.sources", "W.bot", "W.ameyo", "B.url", "A.url", "A.tenant_host"]
)
def test_what_is_missing_is_named(read: Read, key: str) -> None:
    tree = small()
    table = {"W": tree["workspaces"][ACME]}
    table |= {"B": table["W"]["bot"], "A": table["W"]["ameyo"]}
    del table[key[0]][key[2:]]
    (problem,) = problems(read, tree)
    assert problem.startswith(f"{full(key)}: is missing; expected ")


def test_what_is_recorded_and_how(read: Read, tmp_path: Path) -> None:
    config = read(small())
    assert config.recording == Recordings()
    assert (config.recording.keep, config.recording.max_bytes) == (30 * 86400, 50 * 10**9)
    (acme,) = config.workspaces.values()
    assert (acme.record, acme.recording, acme.recording.keys) == (0.0, OwnRecordings(), ())
    tree, old_key = small(), tmp_path / "old-key"
    for key, value in {
        "recording.directory": "/srv/recordings/",
        "recording.keep": "7d",
        "recording.max_bytes": "1.5 TB",
        "recording.min_free": 0,
        "W.record": 0.25,
        "R.announcement": "/srv/hello there.wav",
        "R.keep": "90d",
        "R.key": "${KEY}",
        "R.old_keys": ["${file:" + str(old_key) + "}"],
    }.items():
        put(tree, key, value)
    old_key.write_text("A1" * 32 + "\n")
    config = read(tree, {"KEY": "0f" * 32})
    assert config.recording == Recordings("/srv/recordings", 7 * 86400.0, 1_500_000_000_000, 0)
    (acme,) = config.workspaces.values()
    assert (acme.record, acme.recording.keep) == (0.25, 90 * 86400.0)
    assert acme.recording.sealing_key == b"\x0f" * 32
    assert acme.recording.keys == (b"\x0f" * 32, b"\xa1" * 32)
    shown = show(config)
    assert "0f0f" not in shown and "A1A1" not in shown
    assert tomllib.loads(shown)["workspaces"][ACME]["record"] == 0.25
    assert {"0f" * 32, "A1" * 32} <= secrets_of(config)


@pytest.mark.parametrize(("written", "share"), [(True, 1.0), (False, 0.0), (1, 1.0), (0, 0.0), (0.1, 0.1)])
def test_a_share_of_calls(read: Read, written: bool | float, share: float) -> None:
    (acme,) = read(put(small(), "W.record", written)).workspaces.values()
    assert acme.record == share


def test_no_bound_of_bytes(read: Read) -> None:
    config = read(put(small(), "recording.max_bytes", 0))
    assert config.recording.max_bytes is None
    assert tomllib.loads(show(config))["recording"]["max_bytes"] == 0


def test_an_announcement_that_cannot_be_read_is_a_warning(read: Read) -> None:
    tree = put(put(small(), "R.announcement", "/nowhere.wav"), "W.record", True)
    (warning,) = read(tree).warnings
    assert warning.startswith(f"{full('R.announcement')}: /nowhere.wav cannot be read on this host")
    assert read(put(tree, "W.record", False)).warnings == ()
    assert read(put(put(tree, "W.record", True), "R.announcement", "beep")).warnings == ()


def test_all_mistakes_are_told_in_one_run(read: Read) -> None:
    tree = small()
    mistakes = [
        ("server.workers", 0),
        ("server.colour", "red"),
        ("server.switches", ["nonsense"]),
        ("freeswitch.rtp_ports", "1-2"),
        ("freeswitch.event_socket_password", "${NO_PASSWORD}"),
        ("web.listen", "here"),
        ("W.sources", ["10.0.0.1/8", "203.0.113.10", "10.0.0.300"]),
        ("W.max_duration", "long"),
        ("B.url", ["wss://a..b/", "${NO_URL}", "ws://c/"]),
        ("B.headers", {"X Y": "z", "Host": "h"}),
        ("A.url", "http://clear.example.com"),
        ("A.token", "${NO_TOKEN}${NO_OTHER}"),
        ("A.properties", {"a": "{nope}", "b": 1}),
    ]
    for key, value in mistakes:
        put(tree, key, value)
    tree["workspaces"]["not-a-uuid"] = small()["workspaces"][ACME] | {"name": "other"}
    found = problems(read, tree)
    for beginning in [
        "server.workers: ",
        "server.colour: ",
        "server.switches.0: ",
        "freeswitch.rtp_ports: ",
        "freeswitch.event_socket_password: the environment variable NO_PASSWORD",
        "web.listen: ",
        f"workspaces.{ACME}.sources.0: ",
        f"workspaces.{ACME}.sources.2: ",
        f"workspaces.{ACME}.max_duration: ",
        f"workspaces.{ACME}.bot.url.0: ",
        f"workspaces.{ACME}.bot.url.1: the environment variable NO_URL",
        f"workspaces.{ACME}.bot.url: 'ws://c/'",
        f"workspaces.{ACME}.bot.headers.X Y: ",
        f"workspaces.{ACME}.bot.headers.Host: ",
        f"workspaces.{ACME}.ameyo.url: ",
        f"workspaces.{ACME}.ameyo.token: the environment variable NO_TOKEN",
        f"workspaces.{ACME}.ameyo.token: the environment variable NO_OTHER",
        f"workspaces.{ACME}.ameyo.properties.a: ",
        f"workspaces.{ACME}.ameyo.properties.b: ",
        "workspaces.not-a-uuid: ",
    ]:
        assert [problem for problem in found if problem.startswith(beginning)], (beginning, found)
    assert len(found) == 20, found


def test_two_workspaces_need_two_names_and_two_ids(read: Read) -> None:
    tree = small()
    tree["workspaces"]["11111111-1111-1111-1111-111111111111"] = tree["workspaces"][ACME]
    (problem,) = problems(read, tree)
    assert (
        problem == f"workspaces.11111111-1111-1111-1111-111111111111.name: 'acme' is also the name of {ACME}"
    )
    tree = small()
    tree["workspaces"][ACME.upper()] = tree["workspaces"][ACME] | {"name": "other"}
    (problem,) = problems(read, tree)
    assert problem.startswith(f"workspaces.{ACME.upper()}: this workspace id is there twice")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a = ", "is not valid TOML"),
        ("[server]\n[server]\n", "is not valid TOML"),
        ("a = " + "9" * 5000, "is not valid TOML"),
        ("a = " + "[" * 5000, "is nested too deeply"),
        (f"[{'.'.join('a' * 5000)}]", "is nested too deeply"),
        ("", "workspaces: is missing; expected at least one"),
        ('a = "\udc80"', "is not UTF-8 text (byte 5)"),
    ],
)
def test_a_file_that_is_no_configuration_is_told_in_a_line(read: Read, content: str, expected: str) -> None:
    (problem,) = problems(read, content)
    assert expected in problem


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for path, expected in [
        (tmp_path / "none", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ]:
        with pytest.raises(ConfigError, match=expected) as caught:
            load(path)
        assert str(path) in str(caught.value)


def test_a_file_of_megabytes_is_some_other_file(tmp_path: Path) -> None:
    path = tmp_path / "large.toml"
    path.write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="is it the right file"):
        load(path)


_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_text, inner, max_size=3),
    max_leaves=5,
).filter(lambda value: "None" not in repr(value))


@given(
    st.sampled_from([f"{table}.{key}" for table, keys in KEYS.items() for key in keys])
    | _text.map("W.".__add__),
    _values,
)
def test_whatever_stands_in_a_key_the_answer_is_a_configuration_or_a_list_of_problems(
    read: Read, key: str, value: Any
) -> None:
    try:
        config = read(put(small(), key, value))
    except ConfigError as error:
        assert error.problems
        assert all(": " in problem for problem in error.problems)
    else:
        again = read(unmasked(show(config)))
        assert show(again) == show(config)


@given(st.binary(max_size=200))
def test_whatever_bytes_a_file_holds_the_answer_is_no_traceback(folder: Path, content: bytes) -> None:
    path = folder / "bytes.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        load(path, {})


@given(st.floats(0.1, 60, allow_nan=False), st.sampled_from([("ms", 1000), ("s", 1), ("m", 1 / 60)]))
def test_durations_are_seconds(read: Read, seconds: float, unit: tuple[str, float]) -> None:
    number = f"{seconds * unit[1]:.6f}"
    if not 0.1 <= float(number) / unit[1] <= 60:
        return
    config = read(put(small(), "B.connect_timeout", number + unit[0]))
    assert config.workspaces[ACME].bot.connect_timeout == pytest.approx(seconds, abs=1e-4)


# -- what never shows -------------------------------------------------------------------------------------


def unmasked(text: str) -> str:
    return text.replace(MASK, "s")


def test_secrets_show_nowhere_but_on_the_wire(read: Read) -> None:
    config = read(DESIGN)
    for secret in ENVIRONMENT.values():
        for text in (repr(config), str(config), show(config), f"{config.workspaces[ACME].ameyo.token}"):
            assert secret not in text
        assert secret.split()[-1] not in show(config)
    assert show(config).count(MASK) == 3


def test_where_spans_go(read: Read) -> None:
    assert read(small()).tracing is None
    headers = {"Authorization": "Bearer 0123456789"}
    tree = put(put(small(), "tracing", {**OTLP, "headers": headers, "share": 0.1}), "ledger", {})
    config = read(tree)
    assert config.tracing is not None
    assert (config.tracing.endpoint, config.tracing.share) == (OTLP["endpoint"], 0.1)
    assert (config.tracing.service_name, config.tracing.insecure) == ("eslbot", False)
    assert config.tracing.headers["Authorization"].reveal() == "Bearer 0123456789"
    assert "0123456789" in secrets_of(config)
    assert "0123456789" not in show(config) and "0123456789" not in repr(config)
    assert read(unmasked(show(config))).tracing is not None


def test_spans_need_opentelemetry(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eslbot.config.schemas.service.find_spec", lambda name: None)
    (problem,) = problems(read, put(put(small(), "tracing", OTLP), "ledger", {}))
    assert problem.startswith("tracing.endpoint: needs OpenTelemetry") and "eslbot[tracing]" in problem
    assert read(small()).tracing is None  # and nobody else does


def test_a_secret_is_itself_only_when_revealed() -> None:
    secret = Secret("abc")
    assert (repr(secret), str(secret), format(secret)) == (MASK, MASK, MASK)
    assert secret.reveal() == "abc"
    assert secret == Secret("abc")
    assert secret != Secret("abd")
    assert secret != "abc"


def test_what_check_prints_is_a_configuration_again(read: Read) -> None:
    config = read(DESIGN)
    again = read(unmasked(show(config)))
    assert tomllib.loads(show(again)) == tomllib.loads(show(config))
    assert again.server == config.server
    assert again.workspaces[ACME].sources == config.workspaces[ACME].sources


def test_an_edge_is_all_there_is_for_freeswitch(read: Read) -> None:
    assert (read(small()).edge, read(small()).edges) == (None, ())
    assert [str(n) for n in read(small()).sip_peers] == ["203.0.113.10/32"]
    edges = {**EDGE, "external_ip": "35.227.95.16", "addresses": ["10.0.0.4", "10.0.0.14"]}
    for table, peers in ((EDGE, ["10.0.0.4/32"]), (edges, ["10.0.0.4/32", "10.0.0.14/32"])):
        config = read(put(small(), "edge", table))
        assert [str(network) for network in config.sip_peers] == peers
        assert [str(network) for network in config.sources] == ["203.0.113.10/32"]
        assert config.edge is not None
        assert (config.edge.sip_port, config.edge.inner_port) == (5060, 5070)
        again = read(unmasked(show(config)))
        assert again.edge == config.edge


#: Every key that takes a text, where a secret could land by mistake.
TEXT_KEYS = [
    *["server.listen", "freeswitch.sip_ip", "freeswitch.rtp_ports", "freeswitch.event_socket"],
    *["freeswitch.event_socket_password", "relay.directory", "web.listen", "W.name", "W.max_duration"],
    *[
        "B.url",
        "B.protocol",
        "B.proxy",
        "B.connect_timeout",
        "B.headers.X-A",
        "A.url",
        "A.tenant_host",
        "A.token",
    ],
    *["A.properties.k", "A.timeout"],
]
LIST_KEYS = ["server.switches", "freeswitch.controllers", "W.sources", "B.url", "A.bot_properties"]


@given(
    st.sampled_from(TEXT_KEYS) | st.sampled_from(LIST_KEYS).map("[]".__add__),
    st.sampled_from(["${S}", "wss://${S}/", "https://h/${S}", "x${S}y", "${S}${S}"]),
    st.text(st.sampled_from("QZ%'\"\\\n\tü~@ß𝕏{}$"), min_size=9, max_size=20),
)
def test_no_error_quotes_what_a_reference_stands_for(
    read: Read, key: str, template: str, secret: str
) -> None:
    value: Any = template
    if key.startswith("[]"):
        key, value = key[2:], [template]
    try:
        read(put(small(), key, value), {"S": secret})
    except ConfigError as error:
        text = "\n".join(error.problems)
        parts = {secret, secret.lower(), repr(secret)[1:-1], json.dumps(secret)[1:-1], secret.strip()}
        shown = [part for part in parts if len(part) > 3 and part in text]
        assert not shown, text


@pytest.mark.parametrize("value", [12345678, ["12345678"], {"a": "12345678"}])
@pytest.mark.parametrize("key", ["A.token", "B.headers.Authorization", "freeswitch.event_socket_password"])
def test_no_error_quotes_a_secret_of_the_wrong_type(read: Read, key: str, value: Any) -> None:
    for problem in problems(read, put(small(), key, value)):
        assert "12345678" not in problem


@pytest.mark.parametrize("token", ["s3cret\nline", "s3crét", " s3cret"])
def test_no_error_quotes_a_secret_that_is_not_fit(read: Read, token: str) -> None:
    for problem in problems(read, put(small(), "A.token", token)):
        assert not re.search("s3cr", problem)
