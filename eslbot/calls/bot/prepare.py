"""Have a relay dial the bot while FreeSWITCH answers the call, so that it is there at the 200.

``GET /prepare`` with the headers of a stream's upgrade makes the call in one of the relay's processes; the
answer's body is the URL of that process, where the stream then goes. Nobody waits for it: what has not come
when the stream is to be started is done without.
"""

from __future__ import annotations

import re
import socket as std_socket
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import gevent
import structlog
from gevent.monkey import get_original

from eslbot.calls.bot.link import Way
from eslbot.config.model import Address
from eslbot.relay import control

log = structlog.get_logger()

#: Python's own: gevent's would make watchers that nobody starts.
_Socket: type[std_socket.socket] = get_original("socket", "socket")
#: gevent's word for a watcher of what can be written.
_WRITE = 2
#: Bytes of an answer: a few headers and a URL.
MAX_BYTES = 4096

#: What every upgrade request has; the key is RFC 6455's own, as nobody will speak WebSocket here.
_UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
_CALL_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
_ANSWER = re.compile(
    rb"HTTP/1\.1 200 [^\r\n]*\r\n(?:[^\r\n]+\r\n)*\r\n(%b)\s*" % control.OWN_URL.pattern.encode()
)


def reachable(listen: Address, switch: str) -> bool:
    """Whether the relay of the FreeSWITCH at ``switch`` is there for us: its loopback may not be ours."""
    return not (listen.ip.is_loopback or listen.ip.is_unspecified) or ip_address(switch).is_loopback


class Preparation:
    """One call's question. It costs no greenlet: what has come is read when it is wanted."""

    def __init__(self, way: Way, listen: Address, call_id: str) -> None:
        self._way = way
        self._socket: std_socket.socket | None = None
        self._writable: Any = None
        try:
            self._request = _request(way, listen, call_id)
            family = std_socket.AF_INET6 if listen.ip.version == 6 else std_socket.AF_INET
            self._socket = _Socket(family, std_socket.SOCK_STREAM)
            self._socket.setblocking(False)
            self._connect(listen)
        except (OSError, ValueError) as error:
            self._give_up(error)

    def way(self) -> Way:
        """The way for the stream; whatever is not known by now is not waited for."""
        own = ""
        try:
            if self._socket is not None and self._writable is None:
                own = _url_in(_received(self._socket))
        except (OSError, ValueError) as error:
            self._give_up(error)
        self.close()
        return replace(self._way, own=own)

    def close(self) -> None:
        """Nobody wants to know it any more."""
        if self._writable is not None:
            self._writable.stop()
            self._writable.close()
            self._writable = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self, listen: Address) -> None:
        assert self._socket is not None
        with suppress(BlockingIOError):  # which is usual; on loopback there is a connection all the same
            self._socket.connect(listen.pair)
        try:
            self._socket.send(self._request)
        except BlockingIOError:
            self._writable = gevent.get_hub().loop.io(self._socket.fileno(), _WRITE)
            self._writable.start(self._send)

    def _send(self) -> None:
        """The relay's host has answered: the connection is there, or is not."""
        self._writable.stop()
        self._writable.close()
        self._writable = None
        assert self._socket is not None
        try:
            self._socket.send(self._request)  # less than any buffer
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """The stream itself says more of a relay that is not there."""
        log.debug("relay_not_prepared", error=str(error))
        self.close()


def _request(way: Way, listen: Address, call_id: str) -> bytes:
    if not _CALL_ID.fullmatch(call_id):
        raise ValueError("a call without a UUID")
    return (
        f"GET /prepare HTTP/1.1\r\nHost: {listen}\r\n{_UPGRADE}"
        f"{control.IDENTITY}: {way.identity}\r\n{control.CALL}: {call_id}\r\n\r\n"
    ).encode("ascii")


def _received(connection: std_socket.socket) -> bytes:
    """What is there, as far as an answer may be long. Raises OSError, also where nothing is."""
    answer = connection.recv(MAX_BYTES)
    with suppress(BlockingIOError):
        while answer and len(answer) <= MAX_BYTES and _ANSWER.fullmatch(answer) is None:
            data = connection.recv(MAX_BYTES)
            if not data:
                break
            answer += data
    return answer


def _url_in(answer: bytes) -> str:
    match = _ANSWER.fullmatch(answer)
    if match is None:
        raise ValueError(f"no URL in {len(answer)} bytes")
    return match[1].decode()
