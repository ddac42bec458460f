"""What a service tells of its calls, and peers that are none."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from eslbot.admin.live_calls import CannotCount, living_calls
from eslbot.config.model import Address, loopback

METRICS = """\
# HELP eslbot_calls_active Calls that a worker holds now.
# TYPE eslbot_calls_active gauge
eslbot_calls_active{workspace="acme"} 3.0
eslbot_calls_active{workspace="zeta"} 0.0
eslbot_calls_active{pid="7",workspace="acme"} 1.0
eslbot_calls_limit{workspace="acme"} 200.0
"""


@contextmanager
def answering(*pieces: bytes, pause: float = 0.0) -> Iterator[Address]:
    """A server that sends these, with a pause behind each, and then holds the connection."""
    over = threading.Event()

    def serve() -> None:
        connection, _ = server.accept()
        with connection:
            for piece in pieces:
                connection.sendall(piece)
                if over.wait(pause):
                    return
            if pause:
                over.wait()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield loopback(server.getsockname()[1])
        over.set()
        thread.join(5)


def http(text: str, status: str = "200 OK") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()


def test_calls_are_added_up_by_tenant() -> None:
    with answering(http(METRICS)) as web:
        found = living_calls(web)
    assert (found["acme"], found["zeta"], found.get("eta", 0)) == (4, 0, 0)


@pytest.mark.parametrize(
    ("piece", "expected"),
    [
        (http("", "503 Service Unavailable"), "answers 503"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer"),
        (b"", "does not answer"),
        (b"\x00" * 70000, "does not answer"),
    ],
)
def test_what_is_no_answer_says_so(piece: bytes, expected: str) -> None:
    with answering(piece) as web, pytest.raises(CannotCount, match=expected):
        living_calls(web)


def test_nobody_there_is_said_at_once() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(CannotCount, match="Connection refused"):
            living_calls(loopback(held.getsockname()[1]))


@pytest.mark.parametrize("piece", [b"", b"HTTP/1.1 200 OK\r\n"])
def test_one_that_hangs_is_not_waited_for(piece: bytes) -> None:
    with answering(piece, pause=60) as web, pytest.raises(CannotCount):
        living_calls(web, patience=0.2)


def test_one_that_dribbles_is_not_waited_for() -> None:
    began = time.monotonic()
    dribble = [b"HTTP/1.1 200 OK\r\n", *[b"X: 1\r\n"] * 200]
    with answering(*dribble, pause=0.05) as web, pytest.raises(CannotCount, match=r"within 0\.3 s"):
        living_calls(web, patience=0.3)
    assert time.monotonic() - began < 8  # the dribble alone takes 10
