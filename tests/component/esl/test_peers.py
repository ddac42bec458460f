"""Who of this host may speak to the event-socket listener: real connections of real users."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from eslbot.server.peer_credentials import Gone, LocalPeers, Stranger, problem
from tests.support import wire
from tests.support.peer import bounded
from tests.support.processes import ROOT, EslbotService, tree, until
from tests.support.switch import CRT, DID, UUID, WORKSPACE
from tests.support.users import STRANGER, apart, connected_as, needs_root, no_netlink, own_network

#: Whom FreeSWITCH runs as here, and nobody else.
SWITCH = 51235

V4 = ip_address("127.0.0.1")


@contextmanager
def listening(family: int = socket.AF_INET, ip: str = "127.0.0.1") -> Iterator[socket.socket]:
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((ip, 0))
        listener.listen(8)
        listener.settimeout(5)
        yield listener


def judged(listener: socket.socket, user: str | None = str(SWITCH)) -> str:
    """What becomes of the next connection."""
    client, _ = listener.accept()
    with client:
        try:
            LocalPeers(user).let_in(client)
        except Gone:
            return "gone"
        except Stranger as stranger:
            return f"{stranger.uid} refused: {stranger}"
    return "let in"


@needs_root
@pytest.mark.parametrize(
    ("uid", "user", "what"),
    [
        (SWITCH, str(SWITCH), "let in"),
        (STRANGER, str(SWITCH), f"{STRANGER} refused: another user of this host"),
        (0, str(SWITCH), "let in"),
        (STRANGER, "root", f"{STRANGER} refused: another user of this host"),
        (STRANGER, None, f"{STRANGER} refused: another user of this host"),
        (STRANGER, "any", "let in"),
        (0, None, "let in"),
        (STRANGER, "no-such-user-here", f"{STRANGER} refused: another user of this host"),
    ],
)
def test_the_user_and_root_are_let_in(uid: int, user: str | None, what: str) -> None:
    with listening() as listener, connected_as(uid, listener.getsockname()):
        assert judged(listener, user) == what


@needs_root
@pytest.mark.parametrize(
    ("listen", "ip", "speak", "peer"),
    [
        (socket.AF_INET, "127.0.0.1", socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "127.0.0.1", socket.AF_INET6, "::ffff:127.0.0.1"),
        (socket.AF_INET6, "::", socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET6, "::", socket.AF_INET6, "::ffff:127.0.0.1"),
        (socket.AF_INET6, "::1", socket.AF_INET6, "::1"),
    ],
)
def test_ipv4_ipv6_and_one_in_the_others_clothes(listen: int, ip: str, speak: int, peer: str) -> None:
    for uid, what in ((SWITCH, "let in"), (STRANGER, f"{STRANGER} refused: another user of this host")):
        with (
            listening(listen, ip) as listener,
            connected_as(uid, (peer, listener.getsockname()[1]), family=speak),
        ):
            assert judged(listener) == what


@needs_root
def test_another_address_of_loopback_is_this_host_too() -> None:
    with listening() as listener, connected_as(STRANGER, listener.getsockname(), source="127.8.8.8"):
        assert judged(listener).startswith(f"{STRANGER} refused")


@needs_root
def test_who_speaks_and_closes_at_once_is_not_taken_for_root() -> None:
    """The kernel shows a closed socket as root's."""
    with (
        listening() as listener,
        connected_as(STRANGER, listener.getsockname(), says=b"all of it", stays=False),
    ):
        assert judged(listener) == "gone"


@needs_root
def test_who_is_reset_meanwhile_is_gone() -> None:
    with listening() as listener:
        client = socket.create_connection(listener.getsockname())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert judged(listener) == "gone"


@needs_root
def test_who_hides_behind_an_interface_is_refused() -> None:
    """The kernel does not find a socket that is bound to one, when it is asked without."""
    with listening() as listener, connected_as(STRANGER, listener.getsockname(), interface="lo"):
        assert judged(listener) == "None refused: the kernel does not show the other end"


def network(*commands: str) -> None:
    own_network()
    for command in ("link set lo up", *commands):
        subprocess.run(["ip", *command.split()], check=True, timeout=10)


TWO = (
    "link add d0 type veth peer name e0",
    "link set e0 up",
    "addr add 10.9.9.1/24 dev d0",
    "addr add 10.9.9.2/24 dev d0",
    "link set d0 up",
)


@needs_root
@pytest.mark.parametrize("hidden", [None, "d0"])
def test_another_address_of_this_host_is_this_host_too(hidden: str | None) -> None:
    """`switches` with a network of the hosts' would let a local user in from any of this host's addresses."""

    def others() -> str:
        network(*TWO)
        with (
            listening(ip="10.9.9.1") as listener,
            connected_as(STRANGER, listener.getsockname(), source="10.9.9.2", interface=hidden),
        ):
            return judged(listener)

    why = "the kernel does not show the other end" if hidden else "another user of this host"
    assert apart(others) == f"{None if hidden else STRANGER} refused: {why}"


@needs_root
def test_a_link_local_address_is_of_its_interface() -> None:
    def linked(uid: int) -> str:
        network(
            "link add d0 type veth peer name e0",
            "link set e0 up",
            "link set d0 addrgenmode none",
            "addr add fe80::5/64 dev d0 nodad",
            "link set d0 up",
        )
        place = socket.getaddrinfo("fe80::5%d0", 0)[0][4]
        with socket.socket(socket.AF_INET6) as listener:
            listener.bind(place)
            listener.listen()
            listener.settimeout(5)
            with connected_as(uid, listener.getsockname(), family=socket.AF_INET6):
                return judged(listener)

    assert apart(lambda: linked(SWITCH)) == "let in"
    assert apart(lambda: linked(STRANGER)) == f"{STRANGER} refused: another user of this host"


@needs_root
def test_a_peer_of_another_host_is_asked_of_nobody() -> None:
    """Its user is not this kernel's to know; server.switches alone is about it."""

    def far() -> str:
        network("link add a0 type veth peer name b0", "addr add 10.9.9.1/24 dev a0", "link set a0 up")
        other = os.fork()
        if other == 0:
            try:
                own_network()
                subprocess.run(["sleep", "60"], check=False)
            finally:
                os._exit(0)
        try:
            until(lambda: Path(f"/proc/{other}/ns/net").readlink() != Path("/proc/self/ns/net").readlink())
            subprocess.run(["ip", "link", "set", "b0", "netns", str(other)], check=True, timeout=10)
            enter = ["nsenter", f"--net=/proc/{other}/ns/net"]
            for command in ("addr add 10.9.9.2/24 dev b0", "link set b0 up"):
                subprocess.run([*enter, "ip", *command.split()], check=True, timeout=10)
            with listening(ip="10.9.9.1") as listener:
                speak = (
                    f"import socket; s = socket.create_connection({listener.getsockname()!r}, 5); s.recv(1)"
                )
                with subprocess.Popen([*enter, sys.executable, "-c", speak]):
                    return judged(listener)
        finally:
            os.kill(other, 9)
            os.waitpid(other, 0)

    assert apart(far) == "let in"


def test_a_kernel_that_cannot_be_asked_lets_nobody_in() -> None:
    def silent() -> str:
        no_netlink()
        with listening() as listener, socket.create_connection(listener.getsockname()):
            return judged(listener, str(os.geteuid()))

    assert apart(silent).startswith(
        "None refused: the kernel does not say whose the other end is: [Errno 97]"
    )


@pytest.mark.timed
def test_it_costs_no_call_anything() -> None:
    """Some 20 µs were measured; what is to be noticed here is a scan of the host's sockets."""
    with listening() as listener, socket.create_connection(listener.getsockname()):
        client, _ = listener.accept()
        peers = LocalPeers(str(os.geteuid()))
        with client:
            peers.let_in(client)
            began = time.thread_time()
            for _ in range(100):
                peers.let_in(client)
            assert (time.thread_time() - began) / 100 < 0.001


# -- at the start -----------------------------------------------------------------------------------------


def test_what_cannot_be_enforced_is_told_with_its_key() -> None:
    assert problem(None, V4) is None
    assert problem("any", V4) is None
    assert problem(str(os.geteuid()), V4) is None
    assert problem("root", ip_address("::1")) is None
    assert "this host has no user 'no-such-user-here'" in (problem("no-such-user-here", V4) or "")
    assert "server.switch_user: '65534' is uid 65534" in (problem("65534", V4) or "")


def test_serve_does_not_start_where_the_kernel_cannot_be_asked(tmp_path: Path) -> None:
    service = EslbotService(tmp_path, tree(switch_user=str(os.geteuid())))
    done = subprocess.run(
        service.command(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        preexec_fn=no_netlink,
    )
    assert done.returncode == 2, done.stderr
    assert (
        "server.switch_user: the kernel cannot be asked whose a connection is (SOCK_DIAG: [Errno 97]"
        in done.stderr
    )
    assert "allow AF_NETLINK" in done.stderr


# -- the service ------------------------------------------------------------------------------------------

NOBODYS = UUID[:-4] + "beef"
#: What FreeSWITCH would say of an answered call, and of its bot's wish to be done, to whoever speaks as it.
FORGED = wire.reply(
    "+OK",
    {
        "Event-Name": "CHANNEL_DATA",
        "Unique-ID": NOBODYS,
        "Answer-State": "answered",
        "variable_sip_from_display": f"{DID}|{CRT}",
        "variable_sip_network_ip": "127.0.0.1",
        "variable_sip_h_X-Workspace-ID": WORKSPACE,
    },
)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EslbotService]:
    """A service whose FreeSWITCH is this process."""
    folder = tmp_path_factory.mktemp("guarded")
    with EslbotService(folder, tree(switch_user=str(os.geteuid()))) as service:
        yield service
    assert "Traceback" not in service.log


def test_freeswitchs_own_user_is_served(guarded: EslbotService) -> None:
    with bounded(20):
        call = guarded.call()
        call.wait_stage("talking")
        call.hang_up()
        call.wait_closed()
    assert guarded.metric("eslbot_calls_total") == 1


@needs_root
@pytest.mark.parametrize("stays", [True, False])
def test_another_local_user_gets_not_a_word(guarded: EslbotService, stays: bool) -> None:
    counters = ("eslbot_peers_refused_total", "eslbot_connections_without_call_total")
    before = {name: guarded.metric(name) for name in counters}
    with connected_as(STRANGER, ("127.0.0.1", guarded.port), says=FORGED, stays=stays):
        until(lambda: sum(guarded.metric(name) for name in counters) == sum(before.values()) + 1)
    if stays:
        assert guarded.metric("eslbot_peers_refused_total") == before["eslbot_peers_refused_total"] + 1
        assert f'"uid": {STRANGER}, "expected": "{os.geteuid()}"' in guarded.log
        assert "set server.switch_user to its user" in guarded.log
    assert NOBODYS not in guarded.log
    assert guarded.metric("eslbot_calls_active") == 0


def test_a_port_probe_is_no_stranger(guarded: EslbotService) -> None:
    before: dict[str, Any] = {}
    for name in ("eslbot_peers_refused_total", "eslbot_connections_without_call_total"):
        before[name] = guarded.metric(name)
    guarded.connect().close()
    until(
        lambda: (
            guarded.metric("eslbot_connections_without_call_total")
            > before["eslbot_connections_without_call_total"]
        )
    )
    assert guarded.metric("eslbot_peers_refused_total") == before["eslbot_peers_refused_total"]
