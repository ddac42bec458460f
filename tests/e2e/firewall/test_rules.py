"""The rules of ``eslbot conf --firewall`` in a kernel: what reaches a host, of whom, and what does not."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from eslbot.config.model import Address, Config
from eslbot.freeswitch.firewall import text
from tests.support.netns import WHY_NOT, Namespace, cable
from tests.unit.test_freeswitch_configuration import EDGE, config, workspace

pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

HOST, ACME, ZETA, STRANGER, THE_EDGE = (f"198.51.100.{n}" for n in (1, 10, 20, 99, 40))
HOST6, ACME6, STRANGER6 = (f"2001:db8::{n}" for n in ("1", "10", "99"))
SIP, RTP, ODD = 5060, 20000, 9
#: Of acme: 10 INVITEs a second and 20 at one moment.
CPS = 5
ALLOWED = 4 * CPS
SITE = replace(
    config(
        replace(workspace(1, "acme", [ACME, ACME6]), max_cps=CPS, max_calls=16),
        replace(workspace(2, "zeta", ["198.51.100.16/28"]), max_cps=CPS, max_calls=16),
    )
)
OPEN = replace(SITE.server, listen=Address(ip_address("0.0.0.0"), 8084))
PATIENCE = 5.0


class Site:
    """A host and the world."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stack = ExitStack()
        #: Those of one test.
        self.sockets = ExitStack()
        self.host = self._stack.enter_context(Namespace())
        self.world = self._stack.enter_context(Namespace())
        cable(self.host, self.world)
        for end, addresses in (
            (self.host, (HOST, HOST6)),
            (self.world, (ACME, ZETA, STRANGER, THE_EDGE, ACME6, STRANGER6)),
        ):
            for address in addresses:
                bits = ("64", "nodad") if ":" in address else ("24",)
                end.run("ip", "address", "add", f"{address}/{bits[0]}", "dev", "cable", *bits[1:])

    def close(self) -> None:
        self._stack.close()

    def load(self, site: Config) -> None:
        rules = self.folder / "eslbot.nft"
        rules.write_text(text(site))
        self.host.run("nft", "-c", "-f", str(rules))
        self.host.run("nft", "-f", str(rules))

    def counters(self) -> dict[str, int]:
        """Packets."""
        told = self.host.run("nft", "list", "counters", "table", "inet", "eslbot")
        return {name: int(count) for name, count in re.findall(r"counter (\S+) \{\s+packets (\d+)", told)}

    def udp(self, ip: str, port: int = 0, *, of: Namespace | None = None) -> socket.socket:
        with (of or self.world).inside():
            made = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        made.settimeout(PATIENCE)
        made.bind((ip, port))
        self.sockets.callback(made.close)
        return made

    def listener(self, ip: str, port: int) -> socket.socket:
        """Of the host."""
        with self.host.inside():
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.settimeout(PATIENCE)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((ip, port))
        made.listen()
        self.sockets.callback(made.close)
        return made

    def connected(self, ip: str, port: int) -> socket.socket:
        """From an address of the world to the host. Raises OSError."""
        with self.world.inside():
            made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.sockets.callback(made.close)
        made.settimeout(PATIENCE)
        made.bind((ip, 0))
        made.connect((HOST, port))
        return made

    def arrives(self, port: int, sent: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
        """What of these datagrams, by who sent it, gets to the host's port; in their order."""
        six = any(":" in ip for ip, _ in sent)
        host = HOST6 if six else HOST
        with self.udp(host, port, of=self.host) as receiver, self.udp(host, ODD, of=self.host) as end:
            senders = {ip: self.udp(ip) for ip, _ in sent}
            for ip, data in sent:
                senders[ip].sendto(data, (host, port))
            senders[sent[-1][0]].sendto(b"the end", (host, ODD))  # no rule is about that port
            assert end.recv(100) == b"the end"  # and the cable keeps the order
            receiver.setblocking(False)
            arrived = []
            while True:
                try:
                    data, address = receiver.recvfrom(2048)
                except BlockingIOError:
                    return arrived
                arrived.append((address[0], data))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("firewall"))
    yield site
    site.close()


@pytest.fixture
def site(network: Site) -> Iterator[Site]:
    """With rules that have seen nothing yet."""
    network.load(SITE)
    with network.sockets:
        yield network


def request(method: str, before: str = "") -> bytes:
    return f"{before}{method} sip:bot@{HOST} SIP/2.0\r\nCall-ID: 1\r\n\r\n".encode()


def test_one_tenants_flood_of_invites_leaves_another_ones(site: Site) -> None:
    flood = [(ACME, request("INVITE"))] * 400
    calls = [(ZETA, request("INVITE"))] * ALLOWED
    arrived = site.arrives(SIP, [*flood[:200], *calls, *flood[200:]])
    of_acme = sum(ip == ACME for ip, _ in arrived)
    assert (arrived.count(calls[0]), len(arrived) - of_acme) == (ALLOWED, ALLOWED)
    assert ALLOWED <= of_acme <= ALLOWED + 10  # what comes in during the test, of 10 a second
    assert (site.counters()["over_acme"], site.counters()["over_zeta"]) == (400 - of_acme, 0)


@pytest.mark.parametrize("before", ["\r\n", "\n\n\r\n", " ", "x", "\0"])
def test_what_is_no_other_request_is_charged_as_an_invite_is(site: Site, before: str) -> None:
    arrived = site.arrives(SIP, [(ACME, request("INVITE", before))] * 100)
    assert ALLOWED <= len(arrived) <= ALLOWED + 10


def test_who_has_spent_the_budget_of_invites_may_still_end_calls(site: Site) -> None:
    more = [request(method) for method in ("ACK", "BYE", "CANCEL", "INFO", "OPTIONS", "UPDATE", "PRACK")]
    more += [b"SIP/2.0 200 OK\r\nCall-ID: 1\r\n\r\n", b"\r\n\r\n", b"\0"]
    arrived = site.arrives(SIP, [*([(ACME, request("INVITE"))] * 100), *((ACME, data) for data in more)])
    assert [data for _, data in arrived if data != request("INVITE")] == more


def test_those_are_bounded_too(site: Site) -> None:
    allowed = 2 * (20 * CPS + 16)
    arrived = site.arrives(SIP, [(ACME, request("INFO"))] * 1000)
    assert allowed <= len(arrived) <= allowed + 116
    assert site.counters()["flood_acme"] == 1000 - len(arrived)


def test_of_strangers_nothing_is_served_but_the_403(site: Site) -> None:
    others = [
        "OPTIONS",
        "INFO",
        "MESSAGE",
        "BYE",
        "REGISTER",
        "UPDATE",
        "CANCEL",
        "SUBSCRIBE",
        "NOTIFY",
        "REFER",
    ]
    told = [(STRANGER, request(method)) for method in (*others, "INVITE", "ACK")]
    told += [
        (STRANGER, request("INVITE", "\r\n")),
        (STRANGER, b"\r\n\r\n"),
        (STRANGER, b"SIP/2.0 200 OK\r\n\r\n"),
    ]
    assert site.arrives(SIP, told) == [(STRANGER, request("INVITE")), (STRANGER, request("ACK"))]
    assert site.counters()["strangers_sip"] == len(told) - 2


def test_not_even_that_where_it_floods(site: Site) -> None:
    arrived = site.arrives(SIP, [(STRANGER, request("INVITE"))] * 200 + [(ACME, request("INVITE"))])
    assert 20 <= len(arrived) - 1 <= 30
    assert arrived[-1] == (ACME, request("INVITE"))


def test_ipv6_is_no_way_around(site: Site) -> None:
    told = [(ACME6, request("BYE")), (STRANGER6, request("BYE")), (STRANGER6, request("INVITE"))]
    assert site.arrives(SIP, told) == [told[0], told[2]]
    arrived = site.arrives(SIP, [(ACME6, request("INVITE"))] * 200)
    assert len(arrived) <= ALLOWED + 10


def test_both_versions_spend_one_budget(site: Site) -> None:
    site.arrives(SIP, [(ACME, request("INVITE"))] * 200)
    assert len(site.arrives(SIP, [(ACME6, request("INVITE"))] * 200)) <= 10


def test_rtp_of_strangers_stays_outside(site: Site) -> None:
    told = [(STRANGER, b"\x80\x00"), (ACME, b"\x80\x00"), (STRANGER, b"\x80\x00"), (ZETA, b"\x80\x00")]
    assert site.arrives(RTP, told) == [told[1], told[3]]
    assert site.counters()["strangers_rtp"] == 2


def test_answers_to_this_hosts_own_questions_come_in(site: Site) -> None:
    """A resolver asks from such a port."""
    with site.udp(HOST, RTP, of=site.host) as asking, site.udp(STRANGER, 53) as server:
        asking.sendto(b"question", (STRANGER, 53))
        assert server.recv(100) == b"question"
        server.sendto(b"answer", (HOST, RTP))
        assert asking.recv(100) == b"answer"


def test_tcp_of_strangers_is_refused_at_once(site: Site) -> None:
    listener = site.listener(HOST, SIP)
    with pytest.raises(ConnectionRefusedError):
        site.connected(STRANGER, SIP)
    ours = site.connected(ACME, SIP)
    ours.sendall(request("OPTIONS"))
    accepted, address = listener.accept()
    assert (address[0], accepted.recv(2048)) == (ACME, request("OPTIONS"))


def test_tcp_is_slowed_down_and_loses_nothing(site: Site) -> None:
    listener = site.listener(HOST, SIP)
    sending = site.connected(ACME, SIP)
    sending.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    accepted, _ = listener.accept()
    accepted.settimeout(30)
    invite = request("INVITE")
    began = time.monotonic()
    for _ in range(ALLOWED + 10):
        sending.sendall(invite)
    received, first = b"", 0.0
    while received.count(b"INVITE") < ALLOWED + 10:
        received += accepted.recv(65536)
        first = first or time.monotonic() - began
    assert received == invite * (ALLOWED + 10)
    assert first < 1.0
    assert site.counters()["over_acme"] > 0


def test_many_bytes_over_tcp_are_bounded_whatever_is_in_them(site: Site) -> None:
    """Requests behind each other in one segment are not seen: their bytes are."""
    listener = site.listener(HOST, SIP)
    sending = site.connected(ACME, SIP)
    accepted, _ = listener.accept()
    sending.setblocking(False)
    deadline = time.monotonic() + 1.5
    received = 0
    accepted.setblocking(False)
    while time.monotonic() < deadline:
        for step in (lambda: sending.send(b"x" * 65536), lambda: accepted.recv(1 << 20)):
            try:
                done = step()
            except BlockingIOError:
                continue
            if isinstance(done, bytes):
                received += len(done)
        time.sleep(0.001)
    assert 0 < received < 3_000 * (ALLOWED + 2.5 * 10)
    assert site.counters()["flood_acme"] > 0


def test_event_sockets_are_for_the_switches(site: Site) -> None:
    site.load(
        replace(
            SITE, server=replace(OPEN, switches=(SITE.workspaces[next(iter(SITE.workspaces))].sources[0],))
        )
    )
    for port in (8021, 8084):
        site.listener("0.0.0.0", port)
        with pytest.raises(ConnectionRefusedError):
            site.connected(STRANGER, port)
    with pytest.raises(ConnectionRefusedError):
        site.connected(ACME, 8021)
    site.connected(ACME, 8084)
    assert site.counters()["event_sockets"] == 3
    with site.host.inside():  # itself
        for ip in ("127.0.0.1", HOST):
            socket.create_connection((ip, 8021), PATIENCE).close()


def test_behind_an_edge_sip_is_the_edges_and_rtp_the_pbxs(site: Site) -> None:
    site.load(
        replace(SITE, edge=replace(EDGE, sip_ip=ip_address(THE_EDGE), addresses=(ip_address(THE_EDGE),)))
    )
    told = [(ACME, request("BYE")), (THE_EDGE, request("BYE")), (STRANGER, request("BYE"))]
    assert site.arrives(SIP, told) == [told[1]]
    flood = [(THE_EDGE, request("INVITE"))] * 300  # the edge keeps to the budgets
    assert site.arrives(SIP, flood) == flood
    told = [(THE_EDGE, b"\x80\x00"), (ACME, b"\x80\x00")]
    assert site.arrives(RTP, told) == [told[1]]


def test_rules_are_replaced_in_one_step_and_leave_others_alone(site: Site) -> None:
    site.host.run(
        "nft", "add table inet theirs; add chain inet theirs input { type filter hook input priority 0; }"
    )
    site.load(SITE)
    assert "table inet theirs" in site.host.run("nft", "list", "tables")
    assert site.host.run("nft", "list", "tables").count("eslbot") == 1
    site.host.run("nft", "delete", "table", "inet", "theirs")


@pytest.mark.parametrize("name", ["accept", "2b", "a.b-c_d", "drop", "x" * 64, "Z-"])
def test_every_name_of_a_workspace_is_one_of_nftables_too(site: Site, name: str) -> None:
    both = [workspace(1, name, [ACME, "203.0.113.1"]), workspace(2, "shared_1", [ACME, "::/0"])]
    site.load(config(*both))
    assert {f"over_{name}", "over_shared_1", "over_shared/1"} <= site.counters().keys()


def test_a_thousand_tenants_are_loaded_and_cost_one_look(site: Site) -> None:
    many = [replace(workspace(1, f"w{n}", [f"10.{n >> 8}.{n & 255}.0/28"]), id=f"0-{n}") for n in range(1000)]
    site.load(config(*many, workspace(2, "acme", [ACME])))
    assert len(site.arrives(SIP, [(ACME, request("OPTIONS"))] * 3)) == 3
