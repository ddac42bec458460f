"""Which way a notification goes: the address that it leaves from, and the proxy that it goes through."""

from __future__ import annotations

import socket
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import gevent
import pytest
import trustme
from gevent.event import Event as Flag

from eslbot.ameyo.client import MAX_POSTS, AmeyoClient, Attempt
from eslbot.ameyo.proxy import MAX_HEAD, Proxy, ProxyFailed
from eslbot.ameyo.retry import Verdict
from eslbot.config.loader import from_tree
from eslbot.config.model import Secret
from eslbot.config.model import address_in as ip
from eslbot.config.secrets import secrets_of
from eslbot.sim.addresses import free_port
from eslbot.telemetry import redaction
from tests.support.ameyo_server import AmeyoServer, Answer
from tests.support.connect_proxy import ConnectProxy, Manners
from tests.support.patched import run_patched
from tests.support.peer import eventually
from tests.unit.test_ameyo import TOKEN, authority, settings
from tests.unit.test_config import put, small

__all__ = ["authority"]  # a fixture

#: Another address of this host than the usual one.
SOURCE = "127.0.0.2"
PASSWORD = "proxy-password-5c1e77"


@pytest.fixture
def tls(authority: tuple[trustme.CA, str]) -> Iterator[AmeyoServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert("127.0.0.1").configure_cert(context)
    with AmeyoServer(tls=context) as server:
        yield server


def first(url: str, **changes: Any) -> Attempt:
    client = AmeyoClient(settings(url, **changes), jitter=lambda: 0.0)
    try:
        return next(client.notify(b"{}", Flag()))
    finally:
        client.close()


# -- the source -------------------------------------------------------------------------------------------


def test_a_post_leaves_from_the_source_address() -> None:
    with AmeyoServer(Answer(500), Answer()) as server:
        client = AmeyoClient(settings(server.url, source_address=ip(SOURCE)), jitter=lambda: 0.0)
        assert list(client.notify(b"{}", Flag()))[-1].verdict is Verdict.ACCEPTED
        client.close()
        assert first(server.url).verdict is Verdict.ACCEPTED
    assert [request.peer[0] for request in server.requests] == [SOURCE, SOURCE, "127.0.0.1"]


def test_so_does_a_connection_that_is_opened_before_it_is_needed() -> None:
    with AmeyoServer() as server:
        client = AmeyoClient(settings(server.url, source_address=ip(SOURCE)))
        client.warm()
        eventually(lambda: len(server.connections) == 1 and client._connections.one_waits())
        assert next(client.notify(b"{}", Flag())).verdict is Verdict.ACCEPTED
        client.close()
    assert [peer[0] for peer in server.connections] == [SOURCE]
    assert [request.peer for request in server.requests] == server.connections


def test_a_source_that_is_not_this_hosts_is_a_failed_attempt_that_says_so() -> None:
    with AmeyoServer() as server:
        attempt = first(server.url, source_address=ip("192.0.2.77"))
    assert (attempt.verdict, attempt.status) == (Verdict.FAILED, None)
    assert "assign requested address" in attempt.detail
    assert server.connections == []


# -- the proxy --------------------------------------------------------------------------------------------


def test_a_post_goes_through_the_proxy_and_tls_is_ameyos(
    tls: AmeyoServer, authority: tuple[trustme.CA, str]
) -> None:
    proxy_url = "http://eslbot:{}@127.0.0.1:{}"
    with ConnectProxy(login=f"eslbot:{PASSWORD}") as proxy:
        url = Secret(proxy_url.format(PASSWORD, proxy.port))
        attempt = first(tls.url, ca_file=authority[1], proxy=url, source_address=ip(SOURCE))
    assert attempt.verdict is Verdict.ACCEPTED, attempt
    assert proxy.asked_for == [f"127.0.0.1:{tls.port}"]
    assert proxy.peers == [SOURCE]
    assert TOKEN.encode() not in proxy.heads[0]
    assert b"acme.ameyo.app" not in proxy.heads[0]
    assert [request.header("Authorization") for request in tls.requests] == [[TOKEN]]
    assert tls.requests[0].header("Proxy-Authorization") == []


def test_one_tunnel_serves_call_after_call_and_is_opened_before_it_is_needed(
    tls: AmeyoServer, authority: tuple[trustme.CA, str]
) -> None:
    with ConnectProxy() as proxy:
        client = AmeyoClient(settings(tls.url, ca_file=authority[1], proxy=Secret(proxy.url)))
        client.warm()
        eventually(lambda: len(tls.connections) == 1 and client._connections.one_waits())
        for _ in range(2):
            assert next(client.notify(b"{}", Flag())).verdict is Verdict.ACCEPTED
        client.close()
    assert len(proxy.heads) == 1
    assert len(tls.requests) == 2


def test_a_proxy_that_leads_elsewhere_gets_no_token(authority: tuple[trustme.CA, str]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority[0].issue_cert("evil.example.com").configure_cert(context)
    with AmeyoServer(tls=context) as elsewhere, ConnectProxy(to=("127.0.0.1", elsewhere.port)) as proxy:
        attempt = first("https://127.0.0.1:8887", ca_file=authority[1], proxy=Secret(proxy.url))
    assert (attempt.verdict, attempt.status) == (Verdict.FAILED, None)
    assert "certificate" in attempt.detail.lower()
    assert elsewhere.requests == []


def test_the_name_is_the_proxys_to_look_up(tls: AmeyoServer, authority: tuple[trustme.CA, str]) -> None:
    with ConnectProxy(to=("127.0.0.1", tls.port)) as proxy:
        first("https://ameyo.nowhere.invalid:8887", ca_file=authority[1], proxy=Secret(proxy.url))
        first("https://[2001:db8::7]:8887", ca_file=authority[1], proxy=Secret(proxy.url))
    assert proxy.asked_for == ["ameyo.nowhere.invalid:8887", "[2001:db8::7]:8887"]


@pytest.mark.parametrize(
    ("status", "login", "expected"),
    [
        (b"407 Proxy Authentication Required", "", "407; it wants a login: mend ameyo.proxy"),
        (b"407 Proxy Authentication Required", f"u:{PASSWORD}@", "it does not take the user and password"),
        (b"403 Forbidden", "", "have it allow CONNECT to"),
        (b"502 Bad Gateway", "", "it does not reach"),
        (b"302 Found", "", "look whether it is an HTTP proxy that knows CONNECT"),
        (b"101 Switching Protocols", "", "look whether it is an HTTP proxy that knows CONNECT"),
    ],
)
def test_a_refusal_is_told_with_its_remedy_and_is_not_ameyos_status(
    status: bytes, login: str, expected: str
) -> None:
    with ConnectProxy(status=status) as proxy:
        attempt = first("https://127.0.0.1:9", proxy=Secret(f"http://{login}127.0.0.1:{proxy.port}"))
    assert (attempt.verdict, attempt.status) == (Verdict.FAILED, None)
    assert f"the proxy 127.0.0.1:{proxy.port}" in attempt.detail
    assert expected in attempt.detail
    assert PASSWORD not in repr(attempt)


def test_a_proxy_that_is_not_there_is_named() -> None:
    attempt = first("https://127.0.0.1:9", proxy=Secret(f"http://127.0.0.1:{free_port()}"))
    assert attempt.verdict is Verdict.FAILED
    assert "ProxyFailed: the proxy 127.0.0.1:" in attempt.detail
    assert "Connection refused; mend ameyo.proxy" in attempt.detail


def test_a_proxy_whose_name_nobody_knows_is_named() -> None:
    attempt = first("https://127.0.0.1:9", proxy=Secret("http://proxy.nowhere.invalid:3128"))
    assert attempt.verdict is Verdict.FAILED
    assert "the proxy proxy.nowhere.invalid:3128 cannot be reached: its name is not known" in attempt.detail


def _close(client: socket.socket) -> None:
    client.close()


def _writes(data: bytes) -> Manners:
    return lambda client: client.sendall(data)


UNKIND: dict[str, tuple[Callable[[ConnectProxy], Manners], str]] = {
    "drips": (lambda proxy: proxy.drip, "did not answer CONNECT within 0.3 s"),
    "floods": (lambda proxy: proxy.flood, f"answered CONNECT with over {MAX_HEAD} bytes"),
    "says nothing": (lambda proxy: proxy.say_nothing, "did not answer CONNECT within 0.3 s"),
    "closes": (lambda _: _close, "closed the connection at CONNECT"),
    "breaks off": (lambda _: _writes(b"HTTP/1.1 200 OK\r\nX"), "closed the connection at CONNECT"),
    "is no HTTP": (lambda _: _writes(b"SSH-2.0-OpenSSH\r\n"), "what is no HTTP/1.x"),
    "no line": (lambda _: _writes(b"x" * 200), "what is no HTTP/1.x"),
    "speaks first": (lambda _: _writes(b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x01"), "spoke before TLS had begun"),
}


@pytest.mark.parametrize("kind", UNKIND)
def test_an_unkind_proxy_is_bounded_and_told(kind: str) -> None:
    def manners(client: socket.socket) -> None:
        UNKIND[kind][0](proxy)(client)
        client.close()

    with ConnectProxy(manners=manners) as proxy:
        # Where it were not bounded by its own time, the whole POST's would be told.
        attempt = first("https://127.0.0.1:9", proxy=Secret(proxy.url), connect_timeout=0.3, timeout=100.0)
    assert (attempt.verdict, attempt.status) == (Verdict.FAILED, None)
    assert UNKIND[kind][1] in attempt.detail


@pytest.mark.slow
def test_a_proxy_that_holds_a_tenants_posts_holds_no_other_tenants() -> None:
    """In a worker, whose sockets are gevent's: all of the one's slots are taken, and stay so."""
    with ConnectProxy() as silent, AmeyoServer() as server:
        silent._manners = silent.say_nothing
        result = run_patched(
            """
            import gevent
            from gevent.event import Event
            from eslbot.ameyo.client import MAX_POSTS, AmeyoClient
            from eslbot.config.model import Ameyo, Secret

            def client(url, **proxy):
                return AmeyoClient(Ameyo(url, "a", Secret("t"), None, (), {}, 60.0, 60.0, True, **proxy))

            held = client("https://127.0.0.1:9", proxy=Secret(proxy))
            over = Event()
            posts = [gevent.spawn(lambda: list(held.notify(b"{}", over))) for _ in range(MAX_POSTS + 8)]
            gevent.sleep(0)
            verdict = next(client(url).notify(b"{}", Event())).verdict
            result = [verdict, sum(not post.ready() for post in posts)]
            gevent.killall(posts)
            """,
            seconds=120,
            proxy=silent.url,
            url=server.url,
        )
    assert result == ["accepted", MAX_POSTS + 8]


def test_no_connection_is_left_open_at_a_proxy_that_refused() -> None:
    with ConnectProxy(status=b"403 Forbidden") as proxy:
        client = AmeyoClient(settings("https://127.0.0.1:9", proxy=Secret(proxy.url)), jitter=lambda: 1.0)
        over = Flag()
        gevent.spawn_later(0.1, over.set)
        refused = list(islice(client.notify(b"{}", over), 3))
        client.close()
        assert refused
        for ours in proxy._open[: len(refused)]:
            ours.settimeout(5)
            assert ours.recv(1) == b"", "it was closed"


# -- a proxy, by itself -----------------------------------------------------------------------------------


def test_a_url_is_read_with_its_escapes() -> None:
    proxy = Proxy.of(Secret("http://domain%5Cuser:p%40ss%3Aword@[::1]:3128"))
    assert (str(proxy), proxy.host, proxy.port) == ("[::1]:3128", "::1", 3128)
    assert proxy.login is not None
    assert proxy.login.reveal() == "domain\\user:p@ss:word"
    assert "p@ss" not in repr(proxy)
    assert Proxy.of(Secret("http://10.0.0.9:3128")).login is None


def test_a_failure_has_its_remedy_apart() -> None:
    failed = ProxyFailed("what was found", "what mends it")
    assert str(failed) == "what was found; what mends it"
    assert (failed.found, failed.remedy) == ("what was found", "what mends it")


def test_a_login_is_taken_out_of_every_text() -> None:
    url = f"http://eslbot:{PASSWORD}@10.0.0.9:3128"
    config = from_tree(put(small(), "A.proxy", url), {})
    redactor = redaction.Redactor(secrets_of(config))
    login = b64encode(f"eslbot:{PASSWORD}".encode()).decode()
    for text in (url, PASSWORD, f"Proxy-Authorization: Basic {login}"):
        told = redactor.redact(f"it was sent: {text}")
        assert PASSWORD not in told
        assert login[8:] not in told
