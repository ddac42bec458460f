"""The looks at what carries calls, at real sockets that answer, hang, refuse and drip."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import tomli_w

from eslbot.config import load
from eslbot.config.model import Address, Config, FreeSwitch, Ledger, Relay, Secret
from eslbot.esl.inbound import why_unreachable
from eslbot.health import probes
from eslbot.health.model import Colour, Component, Finding
from eslbot.health.probes import Findings, ProcessCount, WriterStatus
from eslbot.recovery.state import Recoveries
from tests.support.inbound_switch import PASSWORD, InboundSwitch, Spoiled
from tests.support.processes import tree
from tests.support.tcp import drips, floods, hangs, nobody, peer, says

FREESWITCH, EVENT_SOCKET = Component.FREESWITCH, Component.EVENT_SOCKET
WORKERS, RELAYS, LEDGER = Component.WORKERS, Component.RELAYS, Component.LEDGER
GREETING = b"Content-Type: auth/request\n\n"
#: Seconds that a look may take, all its questions together, and a loaded machine's lateness.
SPARE = 1.5


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "eslbot.toml"
    file.write_text(tomli_w.dumps(tree()))
    found = load(file)
    file.unlink()
    return found


@pytest.fixture
def inbound() -> Iterator[InboundSwitch]:
    with InboundSwitch() as switch:
        yield switch


@pytest.fixture
def asked(config: Config, tmp_path: Path) -> FreeSwitch:
    """Of which a test only changes the address."""
    return replace(
        config.freeswitch,
        event_socket_password=Secret(PASSWORD),
        recovery_file=str(tmp_path / "freeswitch.json"),
    )


def colours(findings: Findings) -> dict[Component, Colour]:
    return {component: found.colour for component, found in findings.items()}


def held(inbound: InboundSwitch, config: Config, spoiled: Spoiled | None = None) -> Address:
    inbound.holds(config, spoiled)
    return Address(config.freeswitch.event_socket.ip, inbound.port)


def test_a_freeswitch_that_is_well(inbound: InboundSwitch, config: Config, asked: FreeSwitch) -> None:
    found = probes.freeswitch(replace(asked, event_socket=held(inbound, config)))
    assert found == {FREESWITCH: Finding(Colour.GREEN), EVENT_SOCKET: Finding(Colour.GREEN)}
    assert inbound.asked == ["status", "fsctl pause_check inbound", "sofia status"]


def test_a_freeswitch_that_is_gone(asked: FreeSwitch) -> None:
    gone = nobody()
    found = probes.freeswitch(replace(asked, event_socket=gone, sip_ip=gone.ip, sip_port=gone.port))
    assert colours(found) == {FREESWITCH: Colour.RED, EVENT_SOCKET: Colour.RED}
    assert f"FreeSWITCH is gone: SIP {gone}: Connection refused" in found[FREESWITCH].why
    assert "systemctl start freeswitch" in found[FREESWITCH].remedy


def test_an_event_socket_that_is_lost_while_sip_is_taken(asked: FreeSwitch) -> None:
    with peer(hangs) as sip:
        found = probes.freeswitch(replace(asked, event_socket=nobody(), sip_ip=sip.ip, sip_port=sip.port))
    assert colours(found) == {FREESWITCH: Colour.AMBER, EVENT_SOCKET: Colour.RED}


@pytest.mark.timed
@pytest.mark.parametrize("behaviour", [hangs, drips(b""), drips(GREETING[:-1])])
def test_a_freeswitch_that_hangs_or_drips_costs_no_more_than_its_time(
    asked: FreeSwitch, behaviour: object
) -> None:
    began = time.monotonic()
    with peer(behaviour) as address:  # type: ignore[arg-type]
        found = probes.freeswitch(replace(asked, event_socket=address))
    assert time.monotonic() - began < probes.TIMEOUT + SPARE
    assert colours(found) == {FREESWITCH: Colour.RED, EVENT_SOCKET: Colour.RED}
    assert "FreeSWITCH hangs" in found[FREESWITCH].why
    assert "KILL" in found[FREESWITCH].remedy


@pytest.mark.parametrize(
    "behaviour",
    [floods, says(b"HTTP/1.1 400 Bad Request\r\n\r\n\n\n"), drips(b"Content-Length: 999999999\n\n", 0.0)],
)
def test_what_is_no_event_socket(asked: FreeSwitch, behaviour: object) -> None:
    with peer(behaviour) as address:  # type: ignore[arg-type]
        found = probes.freeswitch(replace(asked, event_socket=address, sip_ip=None))
    assert colours(found)[EVENT_SOCKET] is Colour.RED
    assert "no event socket" in found[EVENT_SOCKET].why or "hangs" in found[EVENT_SOCKET].why


@pytest.mark.parametrize(("manners", "said"), [("rude", "refuses this host"), (None, "the password")])
def test_a_freeswitch_that_lets_nobody_in_is_not_gone(
    inbound: InboundSwitch, config: Config, asked: FreeSwitch, manners: str | None, said: str
) -> None:
    address = held(inbound, config, Spoiled(manners=manners))
    wrong = replace(asked, event_socket=address, event_socket_password=Secret("another-one"))
    found = probes.freeswitch(wrong)
    assert colours(found) == {FREESWITCH: Colour.UNKNOWN, EVENT_SOCKET: Colour.RED}
    assert said in found[EVENT_SOCKET].why
    assert "another-one" not in str(found)


def test_without_a_password_it_is_said_where_one_is_missing(
    asked: FreeSwitch, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(probes, "event_socket_password", lambda _: _no_password(asked, tmp_path))
    found = probes.freeswitch(replace(asked, event_socket_password=None))
    assert colours(found)[EVENT_SOCKET] is Colour.RED
    assert "event_socket_password is not set" in found[EVENT_SOCKET].why


def _no_password(asked: FreeSwitch, folder: Path) -> Secret:
    from eslbot.freeswitch.password import event_socket_password

    return event_socket_password(replace(asked, event_socket_password=None), str(folder))


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ({"status": "UP 0 years\nFreeSWITCH (Version 1.11) is not ready\n"}, "not ready"),
        ({"fsctl pause_check inbound": "true"}, "paused"),
        (
            {"sofia status": "Name\tType\nexternal profile sip:mod_sofia@x RUNNING (0)"},
            "`ameyo` does not run",
        ),
        ({"sofia status": "ameyo profile sip:mod_sofia@x DOWN (0)"}, "`ameyo` does not run"),
    ],
)
def test_a_freeswitch_that_takes_no_calls_is_red(
    inbound: InboundSwitch, config: Config, asked: FreeSwitch, replies: dict[str, str], said: str
) -> None:
    address = held(inbound, config, Spoiled(replies=replies))
    found = probes.freeswitch(replace(asked, event_socket=address))
    assert colours(found) == {FREESWITCH: Colour.RED, EVENT_SOCKET: Colour.GREEN}
    assert said in found[FREESWITCH].why
    assert found[FREESWITCH].remedy


@pytest.mark.parametrize(
    ("known", "colour", "said"),
    [
        (Recoveries(), Colour.GREEN, ""),
        (Recoveries(restarts=1, last_restart=1.0), Colour.GREEN, ""),
        (Recoveries(restarts=1, last_restart=-20.0), Colour.AMBER, "is back with them"),
        (Recoveries(flushes=1, dropped=7, last_flush=-20.0, last_restart=-20.0), Colour.AMBER, "7 dropped"),
        (None, Colour.AMBER, "restarts are not known"),
    ],
)
def test_its_last_death_is_told_for_ten_minutes(
    inbound: InboundSwitch,
    config: Config,
    asked: FreeSwitch,
    known: Recoveries | None,
    colour: Colour,
    said: str,
) -> None:
    now = time.time()
    text = "nonsense"
    if known is not None:  # negative times are before now
        ago = {name: value for name in ("last_restart", "last_flush") if (value := getattr(known, name))}
        known = replace(known, **{name: now + value if value < 0 else value for name, value in ago.items()})
        text = json.dumps({name: getattr(known, name) for name in known.__slots__})
    Path(asked.recovery_file).write_text(text)
    found = probes.freeswitch(replace(asked, event_socket=held(inbound, config)))[FREESWITCH]
    assert found.colour is colour
    assert said in found.why


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (says(GREETING), ""),
        (says(b"Content-Type: text/rude-rejection\nContent-Length: 3\n\ngo\n"), ""),
        (says(b"SSH-2.0-OpenSSH\r\n\n\n"), "it greets with"),
        (hangs, "no answer to the connection within 0.3 s"),
    ],
)
def test_why_freeswitch_cannot_be_reached(behaviour: object, why: str) -> None:
    def first(connection: object, over: object) -> None:
        if behaviour is hangs:
            hangs(connection, over)  # type: ignore[arg-type]
        else:  # it greets unasked
            connection.sendall(_data(behaviour))  # type: ignore[attr-defined]

    with peer(first) as address:  # type: ignore[arg-type]
        assert why_unreachable(address, 0.3).startswith(why) or not why
        assert bool(why_unreachable(address, 0.3)) is bool(why)


def _data(behaviour: object) -> bytes:
    return behaviour.__closure__[0].cell_contents  # type: ignore[attr-defined, no-any-return]


def test_why_freeswitch_cannot_be_reached_where_nobody_listens() -> None:
    assert why_unreachable(nobody(), 0.3) == "Connection refused"


# -- workers ------------------------------------------------------------------------------------------------


def answer(status: str, word: str) -> bytes:
    body = json.dumps({"status": word}).encode()
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


@pytest.mark.parametrize(
    ("said", "there", "colour", "why"),
    [
        (answer("200 OK", "ready"), 2, Colour.GREEN, ""),
        (answer("200 OK", "ready"), 1, Colour.AMBER, "1 of 2 workers"),
        (answer("200 OK", "ready"), 0, Colour.RED, "no worker takes calls; 2 are configured"),
        (answer("503 Service Unavailable", "draining"), 1, Colour.AMBER, "leaving"),
        (answer("503 Service Unavailable", "draining"), 2, Colour.GREEN, ""),  # a HUP: the others are there
        (answer("503 Service Unavailable", "switch_gone"), 2, Colour.GREEN, ""),  # FreeSWITCH's own colour
        (answer("404 Not Found", "x"), 2, Colour.RED, "answers 404"),
        (b"220 mail\r\n", 2, Colour.RED, "no HTTP"),
        (b"", 2, Colour.RED, "no HTTP"),
        (b"HTTP/1.1 200 OK\r\n\r\n[" + b"[" * 9000, 2, Colour.GREEN, ""),
    ],
)
def test_workers(said: bytes, there: int, colour: Colour, why: str) -> None:
    with peer(says(said)) as address:
        found = probes.workers(address, lambda: ProcessCount(there, 2))[WORKERS]
    assert (found.colour, why in found.why) == (colour, True)
    assert bool(found.remedy) is (colour is not Colour.GREEN)


@pytest.mark.timed
@pytest.mark.parametrize("behaviour", [hangs, drips(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", 0.02)])
def test_workers_that_hang_or_drip(behaviour: object) -> None:
    began = time.monotonic()
    with peer(behaviour) as address:  # type: ignore[arg-type]
        found = probes.workers(address, lambda: ProcessCount(2, 2))[WORKERS]
    assert time.monotonic() - began < probes.TIMEOUT + SPARE
    assert found.colour is Colour.RED if behaviour is hangs else found.colour in (Colour.RED, Colour.GREEN)


def test_workers_that_are_gone() -> None:
    found = probes.workers(nobody(), lambda: ProcessCount(0, 2))[WORKERS]
    assert (found.colour, "Connection refused" in found.why) == (Colour.RED, True)


# -- relays -------------------------------------------------------------------------------------------------


def with_relay(config: Config, listen: Address, processes: int = 2) -> Config:
    return replace(config, relay=Relay(listen, processes))


@pytest.mark.parametrize(
    ("said", "there", "colour", "why"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nrelay\n", 2, Colour.GREEN, ""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nrelay\n", 1, Colour.AMBER, "1 of 2 relays"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nnginx", 2, Colour.RED, "is no relay"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\nrelay", 2, Colour.RED, "is no relay"),
    ],
)
def test_relays(config: Config, said: bytes, there: int, colour: Colour, why: str) -> None:
    with peer(says(said)) as address:
        found = probes.relays(with_relay(config, address), lambda: ProcessCount(there, 2))[RELAYS]
    assert (found.colour, why in found.why) == (colour, True)


@pytest.mark.timed
def test_relays_that_are_gone_or_hang(config: Config) -> None:
    found = probes.relays(with_relay(config, nobody()), lambda: ProcessCount(0, 2))[RELAYS]
    assert (found.colour, "go to agents" in found.why) == (Colour.RED, True)
    began = time.monotonic()
    with peer(hangs) as address:
        found = probes.relays(with_relay(config, address), lambda: ProcessCount(2, 2))[RELAYS]
    assert found.colour is Colour.RED
    assert time.monotonic() - began < probes.TIMEOUT + SPARE


def test_a_relay_alone_is_asked_and_not_counted(config: Config) -> None:
    with peer(says(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nrelay\n")) as address:
        found = probes.relays(with_relay(config, address, processes=0), lambda: ProcessCount(0, 0))[RELAYS]
    assert found.colour is Colour.GREEN
    gone = probes.relays(with_relay(config, nobody(), processes=0), lambda: ProcessCount(0, 0))[RELAYS]
    assert "eslbot-relay" in gone.remedy


def test_a_relay_on_freeswitchs_own_host_is_not_known_from_here(config: Config) -> None:
    elsewhere = Address(type(config.freeswitch.event_socket.ip)("10.0.0.5"), 8021)
    far = replace(config, freeswitch=replace(config.freeswitch, event_socket=elsewhere))
    found = probes.relays(with_relay(far, nobody(), processes=0), lambda: ProcessCount(0, 0))[RELAYS]
    assert found.colour is Colour.UNKNOWN


# -- the ledger ---------------------------------------------------------------------------------------------


def writing(**changes: object) -> WriterStatus:
    return replace(WriterStatus(True, "", 0, time.monotonic()), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "colour", "said"),
    [
        ({}, Colour.GREEN, ""),
        ({"up": False, "why": "disk I/O error"}, Colour.RED, "disk I/O error"),
        ({"beat": -11.0}, Colour.RED, "have not been read for 11 s"),
        ({"backlog": 900, "waiting_since": -5.0}, Colour.GREEN, ""),
        ({"backlog": 900, "waiting_since": -20.0}, Colour.AMBER, "0.9 kB of journals"),
        ({"backlog": 900, "waiting_since": -70.0}, Colour.RED, "waiting for 70 s"),
    ],
)
def test_the_ledger(tmp_path: Path, state: dict[str, object], colour: Colour, said: str) -> None:
    now = time.monotonic()
    ago = {name: now + value if isinstance(value, float) else value for name, value in state.items()}
    found = probes.ledger(Ledger(Secret("sqlite:///x"), str(tmp_path), 1.0), lambda: writing(**ago))[LEDGER]
    assert (found.colour, said in found.why) == (colour, True)
    assert list(tmp_path.iterdir()) == []


def test_no_ledger() -> None:
    assert probes.ledger(None, writing)[LEDGER].colour is Colour.UNKNOWN


def test_a_disk_that_takes_no_facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    found = probes.ledger(Ledger(Secret("sqlite:///x"), str(tmp_path), 1.0), writing)[LEDGER]
    assert (found.colour, "No space left on device" in found.why) == (Colour.RED, True)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_directory_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("")
    found = probes.ledger(Ledger(Secret("sqlite:///x"), str(tmp_path / "journal"), 1.0), writing)[LEDGER]
    assert found.colour is Colour.RED
