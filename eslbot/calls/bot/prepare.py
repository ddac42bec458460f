"""Have a relay dial the bot while FreeSWITCH answers the call, so that it is there at the 200.

``GET /prepare`` with the headers of a stream's upgrade makes the call in one of the relay's processes; the
answer's body is the URL of that process, where the stream then goes. Nobody waits for it: what has not come
when the stream is to be started is done without.
"""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address

import structlog
from gevent import Timeout, socket

from eslbot.calls.bot.link import Way
from eslbot.config.model import Address
from eslbot.relay import control
from eslbot.runtime.greenlets import spawn

log = structlog.get_logger()

#: Seconds after which nobody wants the answer any more: a 200 that took so long needs no bot at once.
DUE = 2.0
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
    """One call's."""

    def __init__(self, way: Way, listen: Address, call_id: str) -> None:
        self._way = way
        self._asking = spawn(_ask, way, listen, call_id)

    def way(self) -> Way:
        """The way for the stream; whatever is not known by now is not waited for."""
        told = self._asking.value if self._asking.ready() else None
        self._asking.kill(block=False)
        return replace(self._way, own=told or "")


def _ask(way: Way, listen: Address, call_id: str) -> str | None:
    try:
        with Timeout(DUE, TimeoutError(f"no answer within {DUE:g} s")):
            return _url_in(_exchange(way, listen, call_id))
    except (OSError, ValueError) as error:  # the stream itself says more of a relay that is not there
        log.debug("relay_not_prepared", error=str(error))
        return None


def _exchange(way: Way, listen: Address, call_id: str) -> bytes:
    if not _CALL_ID.fullmatch(call_id):
        raise ValueError("a call without a UUID")
    request = (
        f"GET /prepare HTTP/1.1\r\nHost: {listen}\r\n{_UPGRADE}"
        f"{control.IDENTITY}: {way.identity}\r\n{control.CALL}: {call_id}\r\n\r\n"
    )
    with socket.create_connection(listen.pair) as connection:
        connection.sendall(request.encode("ascii"))
        answer = b""
        while len(answer) <= MAX_BYTES and _ANSWER.fullmatch(answer) is None:
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
