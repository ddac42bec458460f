"""A connection to Ameyo that is opened before it is needed."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import gevent
import pytest
import trustme
from gevent.event import Event as Flag

from eslbot.ameyo.client import MAX_POSTS, AmeyoClient
from eslbot.ameyo.retry import Verdict
from eslbot.sim.addresses import free_port
from tests.support.ameyo_server import AmeyoServer
from tests.support.peer import eventually
from tests.unit.test_ameyo import authority, settings, tls

__all__ = ["authority", "tls"]  # fixtures


@contextmanager
def client_of(url: str, ca_file: str | None = None) -> Iterator[AmeyoClient]:
    client = AmeyoClient(settings(url, ca_file=ca_file))
    try:
        yield client
    finally:
        client.close()


def opened(client: AmeyoClient, server: AmeyoServer) -> None:
    """Have a connection opened, and wait until it is there."""
    before = len(server.connections)
    client.warm()
    eventually(lambda: len(server.connections) == before + 1 and client._connections.one_waits())


def post(client: AmeyoClient) -> Verdict:
    return next(client.notify(b"{}", Flag())).verdict


@pytest.mark.parametrize("tls", ["127.0.0.1"], indirect=True)
def test_a_post_goes_over_the_connection_that_was_opened_before(
    tls: AmeyoServer, authority: tuple[trustme.CA, str]
) -> None:
    with client_of(tls.url, authority[1]) as client:
        opened(client, tls)
        assert tls.requests == []
        assert post(client) is Verdict.ACCEPTED
    assert [request.peer for request in tls.requests] == tls.connections
    assert len(tls.connections) == 1


@pytest.mark.parametrize("tls", ["127.0.0.1"], indirect=True)
def test_session_tickets_that_came_meanwhile_do_not_end_a_connection(
    tls: AmeyoServer, authority: tuple[trustme.CA, str]
) -> None:
    with client_of(tls.url, authority[1]) as client:
        client._connections.open_one(1.0)
        waiting = client._connections._pool.pool.queue[-1]
        assert waiting.sock.version() == "TLSv1.3"
        assert select.select([waiting.sock], [], [], 5)[0], "no tickets came"
        assert client._connections.one_waits()
        assert post(client) is Verdict.ACCEPTED
    assert len(tls.connections) == 1


@pytest.mark.parametrize("tls", ["127.0.0.1"], indirect=True)
def test_until_when_its_certificate_counts_is_told_with_each_connection(
    tls: AmeyoServer, authority: tuple[trustme.CA, str]
) -> None:
    told: list[float] = []
    client = AmeyoClient(settings(tls.url, ca_file=authority[1]), until=told.append)
    try:
        opened(client, tls)
        assert post(client) is Verdict.ACCEPTED  # on that connection
        assert told == [datetime(3000, 1, 1, tzinfo=UTC).timestamp()]  # as trustme makes them
    finally:
        client.close()


def test_without_tls_there_is_no_certificate_to_tell_of() -> None:
    told: list[float] = []
    with AmeyoServer() as server:
        client = AmeyoClient(settings(server.url), until=told.append)
        assert post(client) is Verdict.ACCEPTED
        client.close()
    assert told == []


def test_while_one_waits_no_other_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    with AmeyoServer() as server, client_of(server.url) as client:
        opened(client, server)
        more: list[str] = []
        monkeypatch.setattr(client, "_open_one", lambda: more.append("opened"))
        for _ in range(2):
            client._warm_after = 0.0
            client.warm()
            assert post(client) is Verdict.ACCEPTED
        gevent.idle()  # whatever was spawned has run
        assert more == []
    assert len(server.connections) == 1


def test_one_that_ameyo_has_closed_meanwhile_is_replaced() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    with server, client_of(f"http://127.0.0.1:{server.getsockname()[1]}") as client:
        client.warm()
        eventually(client._connections.one_waits)
        server.accept()[0].close()
        eventually(lambda: not client._connections.one_waits())
        client._warm_after = 0.0
        client.warm()
        eventually(client._connections.one_waits)
        server.accept()[0].close()


def test_not_more_than_one_a_second_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []
    with client_of(f"http://127.0.0.1:{free_port()}") as client:
        monkeypatch.setattr(client._connections, "open_one", tried.append)
        for _ in range(10):
            client.warm()
            gevent.sleep(0)
    assert tried == [1.0]


def test_none_is_opened_beyond_the_bound_of_posts(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[float] = []
    enough = Flag()

    def hold() -> None:
        with client._slots.slot(Flag()) as held:
            assert held
            enough.wait()

    with client_of(f"http://127.0.0.1:{free_port()}") as client:
        monkeypatch.setattr(client._connections, "open_one", tried.append)
        posts = [gevent.spawn(hold) for _ in range(MAX_POSTS)]
        gevent.sleep(0)
        client.warm()
        gevent.sleep(0)
        assert tried == []
        enough.set()
        gevent.joinall(posts, raise_error=True)
        client._warm_after = 0.0
        client.warm()
        gevent.sleep(0)
        assert tried == [1.0]


@pytest.mark.parametrize("ca_file", [None, "/nowhere/ca.pem"])
def test_what_fails_is_for_the_post_to_tell(ca_file: str | None, capfd: pytest.CaptureFixture[str]) -> None:
    scheme = "https" if ca_file else "http"
    with client_of(f"{scheme}://127.0.0.1:{free_port()}", ca_file) as client:
        client.warm()
        gevent.sleep(0.05)
        assert post(client) is Verdict.FAILED
    out = capfd.readouterr()
    assert "Traceback" not in out.out + out.err


def test_nobody_waits_for_one_that_does_not_open(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = Flag()

    def hang(seconds: float) -> None:
        try:
            gevent.sleep(60)
        finally:
            ended.set()

    with client_of(f"http://127.0.0.1:{free_port()}") as client:
        client._settings = settings(client._settings.url, connect_timeout=0.05)
        monkeypatch.setattr(client._connections, "open_one", hang)
        client.warm()
        assert not ended.is_set()
        assert ended.wait(5)
