"""The bot is dialled while the call is being answered, where that costs the call nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import gevent
import pytest
from gevent import socket
from gevent.server import StreamServer

from eslbot.calls.bot import Preparation, Way, reachable
from eslbot.config.model import Address, Relay, loopback
from eslbot.relay.control import CALL, IDENTITY
from tests.component.esl.conftest import House
from tests.support.switch import INVITE, SIGNER, Channel

OWN = "ws://127.0.0.1:40123/"


class Door:
    """A relay's listener, as far as it is asked to prepare."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answer: Callable[[socket.socket], None] = said(OWN)
        self.server = StreamServer(("127.0.0.1", 0), self._take)
        self.server.start()
        self.listen = loopback(self.server.server_port)

    def _take(self, client: socket.socket, _: object) -> None:
        with client:
            request = b""
            while b"\r\n\r\n" not in request and (data := client.recv(4096)):
                request += data
            self.requests.append(request.decode())
            self.answer(client)


def said(
    body: str, status: str = "200 OK", headers: str = "Server: x\r\n"
) -> Callable[[socket.socket], None]:
    answer = f"HTTP/1.1 {status}\r\n{headers}\r\n{body}".encode()
    return lambda client: client.sendall(answer)


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.server.stop(timeout=0)


def call(house: House, door: Door, *, silent: bool = False) -> Channel:
    """A call, answered after a tenth of a second; until its stream was asked for."""
    house.relay = Relay(listen=door.listen)
    channel = house.call()
    channel.relay.silent = silent
    complete = channel.complete

    def later(application: str, event_uuid: str) -> None:
        gevent.spawn_later(0.1, complete, application, event_uuid)

    channel.complete = later  # type: ignore[method-assign]
    channel.wait(lambda: channel.starts)
    return channel


def test_the_stream_goes_where_the_call_is_prepared(house: House, door: Door) -> None:
    channel = call(house, door)
    assert channel.starts[0]["url"] == OWN
    (request,) = door.requests
    line, *lines = request.split("\r\n")
    headers = dict(header.split(": ", 1) for header in lines if header)
    assert line == "GET /prepare HTTP/1.1"
    assert SIGNER.verify(headers[CALL], headers[IDENTITY]) == INVITE
    assert headers["Upgrade"] == "websocket" and headers["Sec-WebSocket-Version"] == "13"


def test_a_process_that_is_gone_since_is_left_for_another(house: House, door: Door) -> None:
    channel = call(house, door)
    channel.on_start = lambda number: (
        channel.refuse_stream() if number == 1 else channel.relay.stream_up(number)
    )
    channel.lose_stream()
    channel.wait(lambda: len(channel.starts) == 3)
    assert [start["url"] for start in channel.starts] == [OWN, OWN, f"ws://{door.listen}/"]


def test_a_process_that_is_late_has_the_call_all_the_same(
    house: House, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eslbot.calls.bot.link.STATE_DUE", 0.1)
    channel = call(house, door, silent=True)
    channel.wait(lambda: len(channel.starts) == 3)
    assert [start["url"] for start in channel.starts] == [OWN, OWN, f"ws://{door.listen}/"]


@pytest.mark.parametrize(
    "answer",
    [
        said("not a URL"),
        said("http://127.0.0.1:40123/"),
        said("ws://127.0.0.1:40123/evil mono 8000"),
        said("ws://127.0.0.1:40123/\r\nx"),
        said("no_identity", "403 Forbidden"),
        said(OWN, headers="X: " + "x" * 8192 + "\r\n"),
        lambda client: None,
        lambda client: client.sendall(b"\0" * 100_000),
    ],
)
def test_whatever_else_a_relay_says_is_done_without(
    house: House, door: Door, answer: Callable[[socket.socket], None]
) -> None:
    door.answer = answer
    assert call(house, door).starts[0]["url"] == f"ws://{door.listen}/"


@pytest.mark.timed
def test_nobody_waits_for_it(house: House, door: Door) -> None:
    door.answer = lambda client: gevent.sleep(30)
    began = time.monotonic()
    channel = call(house, door)
    assert channel.starts[0]["url"] == f"ws://{door.listen}/"
    assert len(door.requests) == 1
    assert time.monotonic() - began < 1


def test_nobody_is_there(house: House, door: Door) -> None:
    door.server.stop(timeout=0)
    assert call(house, door).starts[0]["url"] == f"ws://{door.listen}/"


def test_a_late_offer_is_not_prepared(house: House, door: Door) -> None:
    """The ACK may take longer than a relay keeps what nobody has come for."""
    house.relay = Relay(listen=door.listen)
    channel = house.call({"endpoint_disposition": "RECEIVED_NOSDP"})
    channel.wait(lambda: channel.starts)
    assert "eslbot_late_offer" in channel.variables
    assert door.requests == []


@pytest.mark.parametrize("call_id", ["", "x\r\nX-Evil: 1", "a b", "x" * 65])
def test_a_call_id_is_no_way_into_the_request(door: Door, call_id: str) -> None:
    preparation = Preparation(Way.to(door.listen, "token"), door.listen, call_id)
    gevent.sleep(0.05)  # in which a request that must not go out would
    assert preparation.way().own == ""
    assert door.requests == []


@pytest.mark.parametrize(
    ("listen", "switch", "expected"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("0.0.0.0", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.5", False),
        ("0.0.0.0", "10.0.0.5", False),
        ("10.0.0.5", "10.0.0.5", True),
    ],
)
def test_a_loopback_of_another_host_is_not_asked(listen: str, switch: str, expected: bool) -> None:
    assert reachable(Address(ip_address(listen), 8086), switch) is expected


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1", "ws://127.0.0.1:8086/"),
        ("0.0.0.0", "ws://127.0.0.1:8086/"),
        ("10.0.0.5", "ws://10.0.0.5:8086/"),
    ],
)
def test_what_listens_everywhere_is_found_on_freeswitchs_own_host(listen: str, url: str) -> None:
    assert Way.to(Address(ip_address(listen), 8086), "token").url == url
