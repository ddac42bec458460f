"""Sockets whose peer is not trusted: bounded bytes, and a turn for other greenlets in between.

A gevent socket does not switch while its other end has something ready. One that always has would never let
the loop turn: no other call would go on, no time-out would fire, and the arbiter would kill the worker.
OpenSSL does the same one floor below: it reads records that are no data (session tickets, key updates) for as
long as there are any, in one call. So it does not get the socket; it is fed what was read from it.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

import gevent
from gevent.socket import socket as GeventSocket
from urllib3.util.ssltransport import SSLTransport

#: Bytes that are read between two questions, TLS and all: the longest text that is cared for, twice.
MAX_BYTES = 128 * 1024
#: Bytes of one read. What they cost to understand is how long the loop stands still, at most.
PIECE = 4096
#: Pieces that are read in one go: no usual answer has more, and a turn of the loop costs it time.
AT_ONCE = 2


class TooMuch(OSError):
    """The peer sent more bytes than are read."""


class BoundedSocket(GeventSocket):
    """``connected``'s connection, which it takes over."""

    def __init__(self, connected: socket.socket) -> None:
        timeout = connected.gettimeout()
        super().__init__(connected.family, connected.type, connected.proto, connected.detach())
        self.settimeout(timeout)
        self.ask()

    def ask(self) -> None:
        """Begin a new answer: the bounds count from here."""
        self._left = MAX_BYTES
        self._pieces = 0

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Up to ``size`` bytes, and not more than a piece. Raises TooMuch."""
        if self._left <= 0:
            raise TooMuch(f"more than {MAX_BYTES} bytes")
        if self._pieces >= AT_ONCE:
            gevent.sleep(0)
        data = super().recv(min(size, PIECE, self._left), flags)
        self._left -= len(data)
        self._pieces += 1
        return data


class FedContext(ssl.SSLContext):
    """A TLS context whose sockets are read by us: OpenSSL is fed the bytes."""

    def wrap_socket(self, sock: socket.socket, *_: Any, server_hostname: Any = None, **__: Any) -> Any:
        """As urllib3 does for TLS within TLS."""
        return SSLTransport(sock, self, server_hostname)
