"""A worker's answers on ``server.health``: ``GET /healthz`` and ``GET /readyz``.

It is ready where it takes calls and FreeSWITCH, which would bring them, is there.

It runs beside calls, so whatever comes costs them next to nothing: a head of at most 2 kB within a second,
one request a connection, no body, and a few connections at a time. Beyond those the oldest is closed, so that
who says nothing keeps nobody out who asks.
"""

from __future__ import annotations

import json
import socket
import time
from collections import OrderedDict
from http import HTTPStatus
from typing import TYPE_CHECKING

import gevent
import structlog

from eslbot.config.model import Address
from eslbot.esl.inbound import why_unreachable

if TYPE_CHECKING:
    from eslbot.server.controller import Controller

log = structlog.get_logger()

#: Connections of one worker at one time.
MAX_CONNECTIONS = 16
#: Bytes of a request's head, and seconds in which it must be there and the answer be taken.
MAX_HEAD, PATIENCE = 2048, 1.0

#: Seconds that FreeSWITCH has to greet, and for which its word counts.
GREETS, FRESH = 0.6, 1.0

_END = b"\r\n\r\n"


class Probes:
    """Answers for one worker's ``controller``, and for FreeSWITCH, which brings its calls."""

    def __init__(self, controller: Controller, switch: Presence) -> None:
        self._controller, self._switch = controller, switch
        self._open: OrderedDict[gevent.Greenlet[..., None], None] = OrderedDict()

    def take(self, client: socket.socket, address: tuple[str, int]) -> None:
        """One connection, in a greenlet of its own. Raises nothing; closes the socket."""
        me = gevent.getcurrent()
        assert isinstance(me, gevent.Greenlet)
        self._open[me] = None
        if len(self._open) > MAX_CONNECTIONS:
            oldest, _ = self._open.popitem(last=False)
            oldest.kill(block=False)
        try:
            with gevent.Timeout(PATIENCE, False):  # type: ignore[arg-type]  # None would be raised
                client.sendall(self._answer(_head(client)))
        except OSError as error:
            log.debug("probe_gone", error=str(error))
        finally:
            self._open.pop(me, None)
            client.close()

    def _answer(self, head: bytes | None) -> bytes:
        """To a request of this head; None where it was none, or too long."""
        if head is None:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "too_large")
        words = head.partition(b"\r\n")[0].split(b" ")
        if len(words) != 3 or words[2] not in (b"HTTP/1.1", b"HTTP/1.0"):
            return _response(HTTPStatus.BAD_REQUEST, "bad_request")
        method, target, _ = words
        if method != b"GET":
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, "method", "Allow: GET\r\n")
        match target:
            case b"/healthz":
                return _response(HTTPStatus.OK, "ok")
            case b"/readyz":
                if self._controller.draining:
                    return _response(HTTPStatus.SERVICE_UNAVAILABLE, "draining")
                if self._switch.is_gone:
                    return _response(HTTPStatus.SERVICE_UNAVAILABLE, "switch_gone")
                return _response(HTTPStatus.OK, "ready")
        return _response(HTTPStatus.NOT_FOUND, "not_here")


class Presence:
    """Whether FreeSWITCH is there: its event socket greets, whether it would let us in or not.

    It is asked when somebody asks us, and not more often than its word is old; however many ask.
    """

    def __init__(self, event_socket: Address) -> None:
        self._event_socket = event_socket
        self._asks = False
        self._why, self._until = "", 0.0

    @property
    def is_gone(self) -> bool:
        """As it is now, or was a moment ago."""
        if not self._asks and time.monotonic() >= self._until:
            self._asks = True
            try:
                self._heard(why_unreachable(self._event_socket, GREETS))
            finally:
                self._asks = False
        return bool(self._why)

    def _heard(self, why: str) -> None:
        self._until = time.monotonic() + FRESH
        if why and not self._why:
            remedy = (
                "see systemctl status freeswitch and its log; this worker takes its calls when it is back"
            )
            log.error("switch_gone", address=str(self._event_socket), why=why, remedy=remedy)
        elif self._why and not why:
            log.info("switch_is_back", address=str(self._event_socket))
        self._why = why


def _head(client: socket.socket) -> bytes | None:
    """The head of the request; None where it has no end within its bounds. Raises OSError."""
    received = b""
    while (end := received.find(_END)) < 0:
        data = client.recv(MAX_HEAD + 1 - len(received))
        if not data:
            raise ConnectionAbortedError("closed before its request was whole")
        received += data
        if len(received) > MAX_HEAD:
            return None
    return received[:end]


def _response(status: HTTPStatus, word: str, header: str = "") -> bytes:
    body = json.dumps({"status": word}) + "\n"
    return (
        f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\n{header}"
        f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{body}"
    ).encode()
