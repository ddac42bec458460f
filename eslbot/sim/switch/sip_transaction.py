"""A request and the responses to it (RFC 3261, 17.2)."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .sip_message import SipMessage, parameters
from .sip_peers import Peer

if TYPE_CHECKING:
    from .sip import SipEndpoint
    from .sip_dialog import SipCall

#: T1 in seconds, and T2 as a multiple of it.
T1 = 0.5
T2 = 8

USER_AGENT = "eslbot stand-in switch"


class ServerTransaction:
    """One request and the last response to it, which a retransmission gets again."""

    def __init__(
        self, endpoint: SipEndpoint, key: tuple[str, str, str], request: SipMessage, peer: Peer
    ) -> None:
        self.request, self.peer = request, peer
        self.local_tag = uuid.uuid4().hex[:13]
        self.final = 0
        self.call: SipCall | None = None  # the one an INVITE made
        self._endpoint, self._key = endpoint, key
        self._last: bytes = b""
        self._timer: asyncio.TimerHandle | None = None
        self._interval = endpoint.t1
        self._give_up = 0.0
        self._on_silence: Callable[[], None] | None = None

    def respond(
        self,
        status: int,
        reason: str,
        headers: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        on_silence: Callable[[], None] | None = None,
    ) -> None:
        """Send a response. A final one to an INVITE is repeated until ACK; ``on_silence`` runs where none
        comes."""
        if self.final:
            return
        response = SipMessage(status=status, reason=reason, body=body)
        response.headers = [*self._echoed(status), ("User-Agent", USER_AGENT), *headers]
        self._last = response.pack()
        self.resend()
        if status < 200:
            return
        self.final = status
        loop = asyncio.get_running_loop()
        self._give_up = loop.time() + 64 * self._endpoint.t1
        self._on_silence = on_silence
        if self.request.method == "INVITE":
            if self.peer.transport == "udp":
                self._timer = loop.call_later(self._interval, self._repeat)
            else:
                self._timer = loop.call_at(self._give_up, self._silence)
        else:
            self._timer = loop.call_at(self._give_up, self.forget)

    def resend(self) -> None:
        """Answer a retransmission of the request."""
        if self._last:
            self.peer.send(self._last)
            self._endpoint.copy(self._last, self.peer, sent=True)

    def acknowledged(self) -> None:
        """ACK has come: stop repeating, keep answering late retransmissions for a while."""
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(64 * self._endpoint.t1, self.forget)

    def forget(self) -> None:
        """Drop this transaction."""
        self._stop_timer()
        self._endpoint.transactions.pop(self._key, None)

    def _repeat(self) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() >= self._give_up:
            self._silence()
            return
        self.resend()
        self._interval = min(2 * self._interval, T2 * self._endpoint.t1)
        self._timer = loop.call_at(min(loop.time() + self._interval, self._give_up), self._repeat)

    def _silence(self) -> None:
        self.forget()
        if self._on_silence is not None:
            self._on_silence()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _echoed(self, status: int) -> list[tuple[str, str]]:
        headers: list[tuple[str, str]] = []
        for name, value in self.request.headers:
            key = name.lower()
            if key == "via":
                headers.append((name, value if headers else _received(value, self.peer)))
            elif key == "to" and status > 100 and "tag" not in parameters(value[value.rfind(">") + 1 :]):
                headers.append((name, f"{value};tag={self.local_tag}"))
            elif key in ("from", "to", "call-id", "cseq") or (key == "record-route" and 100 < status < 300):
                headers.append((name, value))
        return headers


def _received(via: str, peer: Peer) -> str:
    """The top Via with ``received`` and ``rport`` filled in (RFC 3581, section 4)."""
    head, *rest = via.split(";")
    kept = [f"rport={peer.port}" if part.strip().lower() == "rport" else part for part in rest]
    return ";".join([head, *kept, f"received={peer.host}"])
