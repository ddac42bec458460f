"""Answers that no reader likes: what becomes of them, and that nobody else waits for it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import trustme
from gevent.event import Event as Flag

from eslbot.ameyo.client import AmeyoClient, Attempt
from eslbot.ameyo.retry import Verdict
from eslbot.sim.pbx import AmeyoServer as Ameyo
from tests.support.ameyo_server import AmeyoServer, Answer
from tests.support.patched import run_patched
from tests.support.unkind_ameyo import ACCEPTING, NO_ANSWER, UNKIND, unkind_answer
from tests.unit.test_ameyo import authority, settings

__all__ = ["authority"]  # a fixture

#: CPU seconds for which one greenlet may keep the loop to itself. Not of the clock: on a busy machine those
#: are others' too.
STALL = 0.05

#: A worker's sockets are gevent's. This process's are not, so it all runs in one of its own.
CLIENT = """
import json, time, gevent
from gevent.event import Event
from eslbot.ameyo import client as module
from eslbot.ameyo.notification import notification
from eslbot.config.model import Ameyo, Secret

module.MAX_ANSWER_SECONDS = 30.0  # not for what is accepted

def client(url, timeout=1.0, ca_file=None):
    settings = Ameyo(url, "acme.ameyo.app", Secret("acme-token"), ca_file, (), {}, 3.0, timeout, True)
    return module.AmeyoClient(settings, jitter=lambda: 0.0)

class Loop:
    '''How long it stood still, in this process's CPU time.'''
    longest = 0.0
    def watch(self):
        before = time.process_time()
        while True:
            gevent.sleep(0.001)
            now = time.process_time()
            self.longest = max(self.longest, now - before)
            before = now

def first(client, crt="d444-1"):
    began = time.monotonic()
    attempt = next(client.notify(notification(crt, {}), Event()))
    return [attempt.verdict, attempt.status, time.monotonic() - began, attempt.detail]

loop = Loop()
gevent.spawn(loop.watch)

def stalled():
    '''The longest since it was asked before.'''
    gevent.sleep(0.01)  # until the watch has seen the last of it
    longest, loop.longest = loop.longest, 0.0
    return longest
"""

ONE_BY_ONE = """
result = {}
first(client(url), "warm-up")
for kind in kinds:
    stalled()
    result[kind] = [*first(client(url), kind), stalled()]
"""


def told(outcomes: dict[str, Any], kind: str) -> tuple[str, int | None, float, str, float]:
    verdict, status, seconds, detail, stall = outcomes[kind]
    return verdict, status, seconds, detail, stall


@pytest.fixture(scope="module")
def answered() -> Iterator[Callable[[str], tuple[Any, int]]]:
    """What becomes of a POST to which each kind of answer is given, and how many there were."""
    with Ameyo(tls=False) as ameyo:
        for kind in UNKIND:
            ameyo.script(kind, [unkind_answer(kind)])
        outcomes = run_patched(CLIENT + ONE_BY_ONE, seconds=120, url=ameyo.url, kinds=list(UNKIND))
        assert ameyo.errors == []
        yield lambda kind: (told(outcomes, kind), len(ameyo.requests_for(kind)))


@pytest.mark.parametrize("kind", ACCEPTING)
def test_what_begins_with_a_2xx_is_accepted(kind: str, answered: Callable[[str], Any]) -> None:
    (verdict, status, seconds, detail, stall), posts = answered(kind)
    assert (verdict, status, posts) == (Verdict.ACCEPTED, 200, 1), detail
    assert seconds < 5
    assert stall <= STALL
    assert len(detail) <= 200


@pytest.mark.parametrize("kind", NO_ANSWER)
def test_what_has_no_status_is_no_answer(kind: str, answered: Callable[[str], Any]) -> None:
    (verdict, status, seconds, _, stall), posts = answered(kind)
    assert (verdict, status, posts) == (Verdict.FAILED, None, 1)
    assert seconds < 5
    assert stall <= STALL


def test_a_hundred_of_them_at_one_time_delay_nobody() -> None:
    kinds = ["endless 100 in little", "endless chunks", "endless trailers", "endless gzip members"]
    with Ameyo(tls=False) as unkind, Ameyo(tls=False) as kind:
        for name in kinds:
            unkind.script(name, [unkind_answer(name)], repeat_last=True)
        accepted, stall = run_patched(
            CLIENT
            + """
first(client(kind_url), "warm-up")
stalled()
tenants = {name: client(unkind_url) for name in kinds}
calls = [gevent.spawn(first, tenants[name], name) for name in kinds for _ in range(25)]
others = [first(client(kind_url, timeout=10.0), "other") for _ in range(20)]
gevent.joinall(calls)
result = [sum(other[0] == "accepted" for other in others), stalled()]
""",
            seconds=60,
            unkind_url=unkind.url,
            kind_url=kind.url,
            kinds=kinds,
        )
    assert accepted == 20
    assert stall <= STALL


# -- TLS, where OpenSSL reads -----------------------------------------------------------------------------


def tls_context(authority: trustme.CA, **changes: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    for name, value in changes.items():
        setattr(context, name, value)
    return context


def test_session_tickets_without_end_are_not_read_to_their_end(authority: tuple[trustme.CA, str]) -> None:
    """OpenSSL reads what is no data for as long as there is any, in one call: of 100,000 for 60 ms."""
    context = tls_context(authority[0], num_tickets=30_000)
    with AmeyoServer(tls=context) as server:
        verdicts, stall = run_patched(
            CLIENT
            + """
tenant = client(url, timeout=10.0, ca_file=ca_file)
tenant._connections._pool
stalled()
result = [[first(tenant)[0] for _ in range(2)], stalled()]
""",
            seconds=60,
            url=server.url,
            ca_file=authority[1],
        )
    assert verdicts == [Verdict.FAILED, Verdict.FAILED]
    assert stall <= STALL


@pytest.mark.parametrize("kind", ["endless headers", "endless chunks", "103 first"])
def test_by_tls_it_is_the_same(kind: str) -> None:
    with Ameyo() as ameyo:
        ameyo.script(kind, [unkind_answer(kind)])
        verdict, status, seconds, _, stall = run_patched(
            CLIENT
            + """
tenant = client(url, timeout=10.0, ca_file=ca_file)
first(tenant, "warm-up")
stalled()
result = [*first(tenant, kind), stalled()]
""",
            url=ameyo.url,
            ca_file=str(ameyo.ca_file),
            kind=kind,
        )
    assert (verdict, status) == (Verdict.ACCEPTED, 200)
    assert seconds < 5
    assert stall <= STALL


@contextlib.contextmanager
def raw(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that does with each connection what ``serve`` does; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):  # the client left, which is its right
                serve(connection)

        threading.Thread(target=run, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_a_handshake_that_drips_is_bounded(authority: tuple[trustme.CA, str]) -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03")  # a ServerHello of 16 kB
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    with raw(drip) as port:
        verdict, status, seconds, detail, stall = run_patched(
            CLIENT
            + """
tenant = client(url, timeout=1.0, ca_file=ca_file)
tenant._connections._pool
stalled()
result = [*first(tenant), stalled()]
""",
            url=f"https://127.0.0.1:{port}",
            ca_file=authority[1],
        )
    assert (verdict, status, detail) == (Verdict.FAILED, None, "no answer within 1 s")
    assert 1.0 <= seconds < 5
    assert stall <= STALL


# -- which connection serves again ------------------------------------------------------------------------

OK = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextlib.contextmanager
def client_of(url: str) -> Iterator[Callable[[], Attempt]]:
    """A client's first attempt, each time it is called."""
    client = AmeyoClient(settings(url), jitter=lambda: 0.0)
    try:
        yield lambda: next(client.notify(b"{}", Flag()))
    finally:
        client.close()


@pytest.mark.parametrize(
    ("answer", "again"),
    [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", True),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\n{}", True),
        ("HTTP/1.1 200\r\ncontent-length:2\r\n\r\n{}", True),
        ("HTTP/1.1 204 No Content\r\n\r\n", True),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1;x=y\r\n}\r\n0\r\nT: x\r\n\r\n",
            True,
        ),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}", True),
        ("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}", False),
        ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\n{}", False),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" + OK.replace("200", "500"), False),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            False,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n0\r\n\r\n", False),
    ],
)
def test_a_connection_serves_again_where_it_is_sure_where_the_answer_ended(answer: str, again: bool) -> None:
    def say(handler: Any) -> None:
        handler.wfile.write(answer.encode())

    with AmeyoServer(Answer(write=say), Answer()) as server, client_of(server.url) as post:
        assert [post().verdict, post().verdict] == [Verdict.ACCEPTED, Verdict.ACCEPTED]
    first, second = (request.peer for request in server.requests)
    assert (first == second) is again


def test_one_that_closes_as_the_post_comes_is_a_failed_attempt_like_another() -> None:
    def leave(handler: Any) -> None:
        handler.close_connection = True

    with AmeyoServer(Answer(), Answer(write=leave), Answer()) as server, client_of(server.url) as post:
        found = [post(), post(), post()]
    assert [attempt.verdict for attempt in found] == [Verdict.ACCEPTED, Verdict.FAILED, Verdict.ACCEPTED]
    assert "closed without an answer" in found[1].detail
    assert len(server.requests) == 3
    assert len({request.peer for request in server.requests}) == 2


def test_what_was_said_before_anybody_asked_answers_nothing() -> None:
    """A time-out that a server tells an idle connection, say; the POST goes over another."""
    said = threading.Event()

    def first_unasked(handler: Any) -> None:
        handler.wfile.write(OK.encode())
        handler.wfile.flush()
        time.sleep(0.1)  # behind the answer, in a segment of its own
        handler.wfile.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        said.set()

    with AmeyoServer(Answer(write=first_unasked), Answer()) as server, client_of(server.url) as post:
        assert post().verdict is Verdict.ACCEPTED
        assert said.wait(5)
        assert (post().verdict, len(server.requests)) == (Verdict.ACCEPTED, 2)


def test_a_text_that_is_packed_is_told_and_not_unpacked() -> None:
    packed = {"Content-Encoding": "gzip"}
    with AmeyoServer(Answer(500, b"\x1f\x8b not gzip", packed)) as server, client_of(server.url) as post:
        attempt = post()
    assert (attempt.verdict, attempt.detail) == (Verdict.FAILED, "(encoded: gzip)")
    assert server.requests[0].header("Accept-Encoding") == ["identity"]


def test_switching_protocols_is_an_answer() -> None:
    def switch(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
        handler.close_connection = True

    with AmeyoServer(Answer(write=switch)) as server, client_of(server.url) as post:
        attempt = post()
    assert (attempt.verdict, attempt.status) == (Verdict.REJECTED, 101)
