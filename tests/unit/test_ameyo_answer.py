"""The reader of answers, without a network: any bytes in any pieces, within bounds."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterable

import gevent
import pytest
import urllib3.connection
import urllib3.connectionpool
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util.ssltransport import SSLTransport

from eslbot.ameyo.answer import MAX_LINES, MAX_TEXT, Answer, NoAnswer
from eslbot.ameyo.sockets import AT_ONCE, MAX_BYTES, PIECE, BoundedSocket, TooMuch


class Pieces:
    """A socket that brings these pieces, and its end."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self.read = 0

    def recv(self, size: int) -> bytes:
        piece = self._pieces.pop(0) if self._pieces else b""
        assert len(piece) <= size
        self.read += len(piece)
        return piece


def answer(*pieces: bytes) -> Answer:
    found = Answer(Pieces(pieces))
    found.begin()
    found.read()
    return found


def pieces_of(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


OF_LENGTH = b"HTTP/1.1 503 Later\r\nRETRY-AFTER:  7 \r\nContent-Length: 5\r\n\r\nsorry"
OF_CHUNKS = (
    b"HTTP/1.1 102 Processing\r\nContent-Length: 9\r\n\r\nHTTP/1.1 503 Later\r\nRetry-After: 7\r\n"
    b"Transfer-Encoding: Chunked\r\n\r\n3 ;x\r\nsor\r\n002\r\nry\r\n0\r\nRetry-After: 8\r\n\r\n"
)


@pytest.mark.parametrize("data", [OF_LENGTH, OF_CHUNKS])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_it_does_not_matter_how_it_comes(data: bytes, size: int) -> None:
    found = answer(*pieces_of(data, size))
    assert (found.status, bytes(found.text), found.field("Retry-After")) == (503, b"sorry", "7")
    assert found.whole and found.reusable


@pytest.mark.parametrize("data", [OF_LENGTH, OF_CHUNKS])
def test_wherever_it_breaks_off_the_status_is_there_or_none(data: bytes) -> None:
    final = data.index(b"503") + 4
    for end in range(len(data)):
        if end < final:
            with pytest.raises(NoAnswer):
                answer(data[:end])
        else:
            found = answer(data[:end])
            assert (found.status, found.whole, found.reusable) == (503, False, False)
            assert b"sorry".startswith(bytes(found.text))


@given(st.lists(st.binary(max_size=40) | st.sampled_from(OF_CHUNKS.splitlines(keepends=True)), max_size=60))
def test_any_bytes_are_an_answer_or_none(pieces: list[bytes]) -> None:
    try:
        found = answer(*pieces)
    except NoAnswer as error:
        assert len(str(error)) < 60  # and none of what came
    else:
        assert found.status == 101 or 200 <= found.status <= 999


@given(st.lists(st.binary(max_size=40) | st.sampled_from(OF_CHUNKS.splitlines(keepends=True)), max_size=60))
def test_any_bytes_behind_a_status_leave_it_as_it_is(pieces: list[bytes]) -> None:
    assert answer(b"HTTP/1.1 200 OK\r\n", *pieces).status == 200


def test_a_text_is_read_up_to_its_bound() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    fits = answer(head % MAX_TEXT, *pieces_of(b"x" * MAX_TEXT, 4096))
    assert (len(fits.text), fits.whole, fits.reusable) == (MAX_TEXT, True, True)
    longer = answer(head % (MAX_TEXT + 1), *pieces_of(b"x" * (MAX_TEXT + 1), 4096))
    assert (len(longer.text), longer.whole, longer.reusable) == (MAX_TEXT, False, False)


def test_lines_are_counted_over_the_whole_answer() -> None:
    line = b"X: y\r\n"
    fits = answer(b"HTTP/1.1 204 OK\r\n", line * (MAX_LINES - 2), b"\r\n")
    assert fits.whole
    assert not answer(b"HTTP/1.1 204 OK\r\n", line * (MAX_LINES - 1), b"\r\n").whole
    with pytest.raises(NoAnswer, match="lines"):
        answer(b"HTTP/1.1 100 Continue\r\n\r\n" * MAX_LINES)


@pytest.mark.parametrize("value", ["-2", "+2", "0x2", "2_0", "٢", "2,2", "2, 2", "9" * 19, ""])
def test_a_length_that_is_none_is_no_length(value: str) -> None:
    found = answer(b"HTTP/1.1 200 OK\r\nContent-Length: " + value.encode() + b"\r\n\r\n{}")
    assert (bytes(found.text), found.whole, found.reusable) == (b"{}", True, False)


@pytest.fixture
def pair() -> Iterable[tuple[BoundedSocket, socket.socket]]:
    near, far = socket.socketpair()
    bounded = BoundedSocket(near)
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MAX_BYTES)
    with bounded, far:
        yield bounded, far


def test_no_more_is_read_than_a_question_may_bring(pair: tuple[BoundedSocket, socket.socket]) -> None:
    bounded, far = pair
    for _ in range(2):  # each question anew
        bounded.ask()
        left = MAX_BYTES
        while left:
            far.sendall(bytes(min(left, PIECE + 1)))
            while left:
                got = len(bounded.recv(100_000))
                assert 0 < got <= PIECE
                left -= got
                if left % (PIECE + 1) == MAX_BYTES % (PIECE + 1):
                    break
        far.sendall(b"x")
        with pytest.raises(TooMuch):
            bounded.recv(1)
        bounded.ask()
        assert bounded.recv(1) == b"x"


def test_a_peer_that_always_has_something_lets_the_others_have_their_turn(
    pair: tuple[BoundedSocket, socket.socket],
) -> None:
    bounded, far = pair
    turns: list[int] = []
    far.sendall(bytes(10 * PIECE))

    def count() -> None:
        while True:
            turns.append(1)
            gevent.sleep(0)

    other = gevent.spawn(count)
    for _ in range(AT_ONCE):
        bounded.recv(PIECE)
    assert turns == []
    for expected in range(1, 5):
        bounded.recv(PIECE)
        assert len(turns) == expected
    other.kill()


def test_the_names_that_are_not_in_any_documentation_are_still_there() -> None:
    """What :mod:`eslbot.ameyo.connections` takes of urllib3 beyond what they promise."""
    pool = urllib3.connectionpool.HTTPConnectionPool
    assert list(inspect.signature(pool._get_conn).parameters) == ["self", "timeout"]
    assert list(inspect.signature(pool._put_conn).parameters) == ["self", "conn"]
    connection = urllib3.connection.HTTPConnection("127.0.0.1", 1)
    assert connection._dns_host == "127.0.0.1"
    assert "self._new_conn()" in inspect.getsource(urllib3.connection.HTTPConnection.connect)
    assert "self._new_conn()" in inspect.getsource(urllib3.connection.HTTPSConnection.connect)
    assert "self.socket.recv(" in inspect.getsource(SSLTransport)
    assert list(inspect.signature(SSLTransport).parameters)[:3] == [
        "socket",
        "ssl_context",
        "server_hostname",
    ]
