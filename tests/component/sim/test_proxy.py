"""The proxy counts, stalls, swallows, resets and refuses; and /proc tells who has which connection."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from eslbot.sim.addresses import free_port
from eslbot.sim.processes import children, is_alive, serves
from tests.support.proxy import Passage, TcpProxy
from tests.support.sockets import owner


@dataclass
class Between:
    """A connection through a proxy: its two ends, and what the proxy knows of it."""

    proxy: TcpProxy
    client: socket.socket
    server: socket.socket

    @property
    def passage(self) -> Passage:
        return self.proxy.passages[-1]


@pytest.fixture
def between() -> Iterator[Between]:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        proxy = stack.enter_context(TcpProxy(("127.0.0.1", free_port()), listener.getsockname()))
        client = stack.enter_context(socket.create_connection(proxy.address, 5))
        server = stack.enter_context(listener.accept()[0])
        for end in (client, server):
            end.settimeout(5)
        proxy.go_on()  # returns when the proxy's thread has the connection in its books
        yield Between(proxy, client, server)


def nothing_comes(end: socket.socket) -> bool:
    end.settimeout(0.1)
    try:
        return not end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(5)


def test_it_counts_what_it_passes_on(between: Between) -> None:
    between.client.sendall(b"variable_x: crt-1\n")
    assert between.server.recv(100) == b"variable_x: crt-1\n"
    between.server.sendall(b"connect\n\n")
    assert between.client.recv(100) == b"connect\n\n"

    passage = between.proxy.find("crt-1")
    assert passage is between.passage
    assert passage.counts == (18, 9)
    assert between.proxy.find("crt-2") is None
    assert passage.first_from_client is not None and passage.first_from_server is not None
    assert passage.opened <= passage.first_from_client <= passage.first_from_server


def test_one_end_s_going_is_the_other_s(between: Between) -> None:
    between.server.close()

    assert between.client.recv(1) == b""
    assert between.passage.closed is not None
    assert between.passage.closed_by == "server"
    assert between.proxy.open_passages() == []


def test_much_more_than_the_buffers_hold_arrives_whole(between: Between) -> None:
    sent = os.urandom(8 << 20)
    with ExitStack() as stack:
        import threading

        writer = threading.Thread(target=between.client.sendall, args=(sent,))
        writer.start()
        stack.callback(writer.join, 10)
        got = bytearray()
        while len(got) < len(sent):
            got += between.server.recv(1 << 20)
    assert got == sent


def test_a_stall_holds_everything_back_and_loses_nothing(between: Between) -> None:
    between.proxy.stall()
    between.client.sendall(b"up")
    between.server.sendall(b"down")
    assert nothing_comes(between.server) and nothing_comes(between.client)

    between.proxy.go_on()

    assert between.server.recv(10) == b"up"
    assert between.client.recv(10) == b"down"


def test_a_stall_of_some_is_not_one_of_all(between: Between) -> None:
    between.proxy.stall([])
    between.client.sendall(b"up")
    assert between.server.recv(10) == b"up"


def test_what_is_swallowed_is_lost(between: Between) -> None:
    between.proxy.swallow()
    between.client.sendall(b"lost")
    assert nothing_comes(between.server)

    between.proxy.go_on()
    between.client.sendall(b"heard")

    assert between.server.recv(10) == b"heard"


def test_a_reset_reaches_both_sides(between: Between) -> None:
    assert between.proxy.reset() == 1

    for end in (between.client, between.server):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    assert between.passage.closed_by == "proxy"
    assert between.proxy.reset() == 0


def test_it_refuses_and_accepts_again(between: Between) -> None:
    between.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(between.proxy.address, 5)
    between.client.sendall(b"old ones stay")
    assert between.server.recv(100) == b"old ones stay"

    between.proxy.accept()
    socket.create_connection(between.proxy.address, 5).close()


def test_who_has_a_connection_and_who_serves(between: Between) -> None:
    passage = between.passage
    assert owner([os.getpid()], passage.server_address, passage.server_peer) == os.getpid()
    assert owner([1], passage.server_address, passage.server_peer) is None
    # The proxy waits for connections by epoll; the server behind it only listens.
    assert serves(os.getpid(), between.proxy.address)
    assert not serves(os.getpid(), passage.server_address)


def test_a_process_that_has_ended_is_not_alive_even_before_it_is_reaped() -> None:
    pid = os.fork()
    if not pid:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert not is_alive(pid)
        assert pid not in children(os.getpid())
    finally:
        os.waitpid(pid, 0)
    assert is_alive(os.getpid())
