"""What a worker answers about itself: two places, one method, and bounds on everything."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
import structlog
from gevent import socket
from gevent.server import StreamServer

from eslbot.server import probes
from eslbot.server.probes import GREETS, MAX_CONNECTIONS, MAX_HEAD, Presence, Probes
from tests.support.peer import bounded
from tests.support.tcp import all_of, peer


class Worker:
    """Whose probes are asked."""

    def __init__(self) -> None:
        self.controller = SimpleNamespace(draining=False)
        self.switch = SimpleNamespace(is_gone=False)
        self.probes = Probes(self.controller, self.switch)  # type: ignore[arg-type]
        self.server = StreamServer(("127.0.0.1", 0), handle=self.probes.take)
        self.server.start()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.server.server_port), 5)

    def ask(self, request: bytes) -> bytes:
        with self.connect() as sock, bounded(5):
            sock.sendall(request)
            return all_of(sock)

    def get(self, path: str) -> tuple[int, Any]:
        head, _, body = self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}" in head.decode()
        return status(head), json.loads(body)


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.server.stop()


def test_healthz_and_readyz(worker: Worker) -> None:
    assert worker.get("/healthz") == (200, {"status": "ok"})
    assert worker.get("/readyz") == (200, {"status": "ready"})
    worker.controller.draining = True
    assert worker.get("/readyz") == (503, {"status": "draining"})
    worker.controller.draining, worker.switch.is_gone = False, True
    assert worker.get("/readyz") == (503, {"status": "switch_gone"})
    assert worker.get("/healthz") == (200, {"status": "ok"})


@pytest.mark.parametrize("path", ["/", "/metrics", "/readyz/", "//readyz", "/readyz?x", "/api/calls", "*"])
def test_nothing_else_is_here(worker: Worker, path: str) -> None:
    assert worker.get(path)[0] == 404


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "OPTIONS", "TRACE", "get", "CONNECT"])
def test_nothing_but_get(worker: Worker, method: str) -> None:
    answer = worker.ask(f"{method} /readyz HTTP/1.1\r\n\r\n".encode())
    assert status(answer) == 405
    assert b"\r\nAllow: GET\r\n" in answer


def test_a_body_is_not_read(worker: Worker) -> None:
    request = b"POST /readyz HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + b"ffff\r\n" + b"x" * 500_000
    with worker.connect() as sock, bounded(5), pytest.raises(OSError, match=r"reset|Broken pipe"):
        while True:
            sock.sendall(request)


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /readyz\r\n\r\n",
        b"GET  /readyz HTTP/1.1\r\n\r\n",
        b"GET /readyz HTTP/2.0\r\n\r\n",
        b"\x16\x03\x01\x00\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused(worker: Worker, request_: bytes) -> None:
    assert status(worker.ask(request_)) == 400


def test_one_request_a_connection(worker: Worker) -> None:
    answer = worker.ask(b"GET /healthz HTTP/1.1\r\n\r\n" * 3)
    assert answer.count(b"HTTP/1.1") == 1
    assert b"\r\nConnection: close\r\n" in answer


def test_a_head_has_an_end(worker: Worker) -> None:
    start = b"GET /healthz HTTP/1.1\r\nX: "
    fits = start + b"x" * (MAX_HEAD - len(start) - 4) + b"\r\n\r\n"
    assert status(worker.ask(fits)) == 200
    assert status(worker.ask(start + b"x" * MAX_HEAD)) == 431


def test_a_head_has_its_time(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "PATIENCE", 0.1)
    for beginning in (b"", b"GET /healthz HTTP/1.1\r\n"):
        assert worker.ask(beginning) == b""
    with worker.connect() as sock, bounded(5), pytest.raises(OSError, match=r"reset|Broken pipe"):
        while True:  # byte by byte
            sock.sendall(b"G")
            gevent.sleep(0.01)


def test_who_says_nothing_keeps_nobody_out(worker: Worker) -> None:
    silent = [worker.connect() for _ in range(MAX_CONNECTIONS + 5)]
    assert worker.get("/healthz")[0] == 200
    with bounded(5):
        assert silent[0].recv(1) == b""  # the first went first
    assert len(worker.probes._open) <= MAX_CONNECTIONS
    for sock in silent:
        sock.close()
    with bounded(5):
        while worker.probes._open:
            gevent.sleep(0.01)


# -- FreeSWITCH ---------------------------------------------------------------------------------------------


class EventSocket:
    """FreeSWITCH's, which greets, closes at once, or hangs; ``asked`` counts connections."""

    def __init__(self) -> None:
        self.asked = 0
        self.manner = "greets"

    def serve(self, connection: Any, over: threading.Event) -> None:
        self.asked += 1
        if self.manner == "greets":
            connection.sendall(b"Content-Type: auth/request\n\n")
        elif self.manner == "hangs":
            over.wait(30)


def test_freeswitch_is_asked_when_its_word_is_old_and_its_going_and_coming_are_told() -> None:
    event_socket = EventSocket()
    with peer(event_socket.serve) as address, structlog.testing.capture_logs() as lines:
        presence = Presence(address)
        assert [presence.is_gone for _ in range(5)] == [False] * 5
        assert event_socket.asked == 1
        event_socket.manner = "closes"
        presence._until = 0.0
        assert [presence.is_gone for _ in range(5)] == [True] * 5
        assert event_socket.asked == 2
        presence._until = 0.0
        assert presence.is_gone
        event_socket.manner = "greets"
        presence._until = 0.0
        assert not presence.is_gone
    assert [line["event"] for line in lines] == ["switch_gone", "switch_is_back"]
    assert lines[0]["remedy"]


def test_a_freeswitch_that_hangs_is_gone_and_is_asked_by_one_of_those_who_ask() -> None:
    event_socket = EventSocket()
    event_socket.manner = "hangs"
    with peer(event_socket.serve) as address:
        presence = Presence(address)
        asking = [threading.Thread(target=lambda: presence.is_gone) for _ in range(10)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(10)
        assert presence.is_gone
        assert event_socket.asked == 1
    assert GREETS < probes.PATIENCE  # or nobody would hear it
