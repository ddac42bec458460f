"""The page's server against those who send too much, too slowly, or take nothing."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from eslbot.web import live, recordings, server
from tests.support.fake_ledger import FakeLedger, row
from tests.support.page import TOKENS, PageService, page_tree, recordings_of
from tests.support.recordings import CALL, about, record
from tests.support.tcp import all_of

AUTHORIZATION = f"Authorization: Bearer {TOKENS['operator']}\r\n"


@pytest.fixture
def ledger() -> FakeLedger:
    return FakeLedger()


@pytest.fixture
def service(tmp_path: Path, ledger: FakeLedger) -> Iterator[PageService]:
    with PageService(tmp_path, page_tree(tmp_path / "journal"), ledger) as service:
        yield service


def connect(service: PageService) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.web_port), 10)


def exchange(service: PageService, request: bytes) -> bytes:
    with connect(service) as sock:
        sock.sendall(request)
        return all_of(sock)


def get(path: str, header: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n".encode()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_answers(service: PageService) -> None:
    head, _, body = exchange(service, get("/healthz")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Server:" not in head
    assert json.loads(body) == {"status": "ok"}


@pytest.mark.timed
@pytest.mark.parametrize(
    "cookie",
    ["=" * 7900, "a=" * 3950, "a=a=" * 1975, ";" * 7900, '"' * 7900, 'a="' + "\\" * 7890, "\\" * 7900],
    ids=["equals", "pairs", "doubled", "empty", "quotes", "escapes", "backslashes"],
)
def test_no_cookie_costs_time(service: PageService, cookie: str) -> None:
    """http.cookies took 2.7 s for the first of them, on the machine where this takes half a millisecond."""
    request = get("/api/session", f"Cookie: {cookie}\r\n")
    before = time.process_time()
    for _ in range(10):
        assert status(exchange(service, request)) == 401
    assert (time.process_time() - before) / 10 < 0.1


@pytest.mark.timed
@pytest.mark.parametrize(
    "path", ["/api/calls?" + "&" * 7000, "/api/calls?" + "a=%41&" * 1300, "/" + "%2f" * 2600]
)
def test_no_target_costs_time(service: PageService, path: str) -> None:
    before = time.process_time()
    for _ in range(10):
        assert status(exchange(service, get(path, AUTHORIZATION))) in (400, 404)
    assert (time.process_time() - before) / 10 < 0.1


@pytest.mark.parametrize("path", ["//metrics", "///", "/%2fmetrics", "//x/../metrics"])
def test_a_place_has_one_spelling(service: PageService, path: str) -> None:
    """Or a proxy that keeps people from /metrics lets them pass."""
    assert status(exchange(service, get(path))) == 404


def test_a_head_over_its_bound_is_refused(service: PageService) -> None:
    assert status(exchange(service, get("/healthz", f"Cookie: {'=' * server.MAX_HEAD}\r\n"))) == 431
    endless = b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 20_000
    assert status(exchange(service, endless)) == 431


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n",
        b"POST /sign-in HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"400\r\n"
        + b"x" * 0x400
        + b"\r\n"
        b"1000\r\n" + b"x" * 0x1000 + b"\r\n",
    ],
    ids=["length", "chunked"],
)
def test_a_body_over_its_bound_is_refused(service: PageService, request_: bytes) -> None:
    assert status(exchange(service, request_)) == 413


BROKEN = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET\r\n\r\n",
]


@pytest.mark.parametrize("request_", BROKEN, ids=range(len(BROKEN)))
def test_what_is_no_request_is_refused(service: PageService, request_: bytes) -> None:
    assert status(exchange(service, request_)) == 400


def test_pipelined_requests_are_few(service: PageService) -> None:
    one = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    with connect(service) as sock:
        sock.sendall(one * 4)
        got = b""
        while got.count(b'{"status":"ok"}') < 4:
            got += sock.recv(65536)
    answered = exchange(service, one * 10_000).count(b"HTTP/1.1 200 OK")
    assert answered < 8192 // len(one)
    assert status(exchange(service, get("/healthz"))) == 200


def test_a_request_that_does_not_come_is_not_waited_for(
    service: PageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_TIMEOUT", 0.3)
    beginnings = [b"", b"GET / HTTP/1.1\r\n", b"POST /sign-in HTTP/1.1\r\nContent-Length: 20\r\n\r\ntoken"]
    for beginning in beginnings:
        with connect(service) as sock:
            sock.sendall(beginning)
            assert all_of(sock) == b""
    with connect(service) as sock:  # byte by byte, without an end
        for byte in b"GET / HTTP/1.1\r\n" + b"X" * 4000:
            try:
                sock.send(bytes([byte]))
            except OSError:
                break
            time.sleep(0.002)
        else:
            pytest.fail("it was heard out")


def test_an_idle_connection_is_closed(service: PageService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "IDLE_TIMEOUT", 0.3)
    with connect(service) as sock:
        sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert all_of(sock).endswith(b'{"status":"ok"}\n')


def test_connections_that_say_nothing_keep_nobody_out(
    service: PageService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 10)
    silent = [connect(service) for _ in range(30)]
    assert status(exchange(service, get("/healthz"))) == 200
    assert silent[0].recv(1) == b""  # the first went first
    for sock in silent:
        sock.close()


def stream(service: PageService) -> socket.socket:
    sock = connect(service)
    sock.sendall(get("/api/live", AUTHORIZATION))
    assert sock.recv(12) == b"HTTP/1.1 200"
    return sock


def test_streams_do_not_take_all_threads(service: PageService) -> None:
    streams = [stream(service) for _ in range(live.MAX_STREAMS)]
    assert status(exchange(service, get("/api/live", AUTHORIZATION))) == 503
    assert status(exchange(service, get("/healthz"))) == 200
    assert status(exchange(service, get("/api/calls", AUTHORIZATION))) == 200
    for sock in streams:
        sock.close()
    until(lambda: service.services.streams.count == 0)
    stream(service).close()


def test_a_browser_that_takes_nothing_is_cut_off(
    service: PageService, ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STALL_TIMEOUT", 0.5)
    monkeypatch.setattr(live, "EVENT_INTERVAL", 0.0)
    ledger.put(*(row(number, reason="x" * 500) for number in range(5000)))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", service.web_port))
        sock.sendall(get("/api/live", AUTHORIZATION))
        until(lambda: service.services.streams.count == 1)
        until(lambda: service.services.streams.count == 0)


@pytest.mark.timed
def test_its_end_is_quick_and_ends_streams(service: PageService) -> None:
    sock = stream(service)
    began = time.monotonic()
    service.stop()
    assert time.monotonic() - began < 3
    all_of(sock)
    service.start()
    assert status(exchange(service, get("/healthz"))) == 200


def test_an_export_to_a_browser_that_takes_it_slowly_has_its_time(
    service: PageService, ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds a thread, and its session's one export, while the browser takes a little now and then."""
    ledger.put(*(row(number, reason="x" * 5000) for number in range(3000)))

    def another() -> int:
        answer = exchange(service, get("/api/calls.csv?prefix=none", AUTHORIZATION))
        return status(answer) if answer else 0  # it may have been cut off itself

    with connect(service) as sock:
        sock.sendall(get("/api/calls.csv", AUTHORIZATION))
        assert sock.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert another() == 429
        monkeypatch.setattr(server, "ANSWER_TIMEOUT", 0.0)
        until(lambda: sock.recv(1000) and another() == 200, 20)
        assert len(all_of(sock)) < 14_000_000


# -- recordings ---------------------------------------------------------------------------------------------

SOUND = f"/api/calls/{CALL}/recording/1"
HEARER = f"Authorization: Bearer {TOKENS['hearer']}\r\n"
RANGE = "Range: bytes=0-\r\n"


@pytest.fixture
def sound(service: PageService) -> bytes:
    """What there is to be heard: more than any buffer takes."""
    directory = recordings_of(service.journal)
    record(directory, about(), 0.5)
    (file,) = directory.rglob("*.flac")
    data = os.urandom(1 << 20) * 8
    file.write_bytes(data)
    return data


@contextmanager
def slow(service: PageService, request: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Browsers that have asked, and take the head of the answer and nothing else."""
    service.take_little()
    with ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.settimeout(20)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", service.web_port))
            sock.sendall(request)
            assert sock.recv(12) in (b"HTTP/1.1 206", b"HTTP/1.1 200", b"HTTP/1.1 429")
        yield socks


@pytest.mark.parametrize("at_once", [1, 6], ids=["one by one", "pipelined"])
def test_players_that_take_nothing_hold_no_thread(service: PageService, sound: bytes, at_once: int) -> None:
    asked = f"GET {SOUND} HTTP/1.1\r\nHost: x\r\n{HEARER}{RANGE}\r\n".encode() * at_once
    with slow(service, asked, server.THREADS + 5) as socks:
        assert status(exchange(service, get("/healthz"))) == 200
        assert status(exchange(service, get(SOUND, HEARER + RANGE))) == 206
        # And each gets all of its piece, however late.
        taken = b""
        while len(taken) < recordings.RANGE_SIZE and (data := socks[0].recv(65536)):
            taken += data
        _, _, body = taken.partition(b"\r\n\r\n")
        assert body == sound[: len(body)] and len(body) > recordings.RANGE_SIZE - 4096


def test_downloads_that_are_not_taken_hold_a_few_threads(service: PageService, sound: bytes) -> None:
    with slow(service, get(SOUND, HEARER), server.THREADS + 5):
        assert status(exchange(service, get("/healthz"))) == 200
        assert status(exchange(service, get(SOUND, HEARER))) == 429
        assert status(exchange(service, get(SOUND, HEARER + RANGE))) == 206


def test_a_download_to_a_browser_that_takes_it_slowly_has_its_time(
    service: PageService, sound: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another() -> int:
        answer = exchange(service, get(SOUND, HEARER + "Range: bytes=0-1,3-4\r\n"))  # which is all of it
        return status(answer) if answer else 0  # it may have been cut off itself

    with slow(service, get(SOUND, HEARER), 1) as (sock,):
        assert another() == 429
        monkeypatch.setattr(server, "ANSWER_TIMEOUT", 0.0)
        until(lambda: sock.recv(1000) and another() == 200, 20)
        assert len(all_of(sock)) < len(sound)
