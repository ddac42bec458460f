"""SIP by hand: PBXs that write what they like, and switches that answer what a test wants."""

from __future__ import annotations

import itertools
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from eslbot.sim.switch.sip_message import SipMessage

#: Seconds that something may take which does happen.
PATIENCE = 10.0
_numbers = itertools.count(1)

OFFER = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=audio 40000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\n"
)


class _Endpoint:
    """A UDP socket and what came to it."""

    def __init__(self, ip: str, port: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((ip, port))
        self.address: tuple[str, int] = self.socket.getsockname()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()


class Caller(_Endpoint):
    """A PBX that sends requests, whole or mangled, and reads what comes back."""

    def __init__(self, edge: tuple[str, int], ip: str = "127.0.0.1") -> None:
        super().__init__(ip)
        self.edge = edge
        self.socket.settimeout(PATIENCE)

    def request(
        self,
        method: str = "INVITE",
        *headers: str,
        uri: str = "",
        to_tag: str = "",
        call_id: str = "",
        cseq: int = 1,
        body: str = OFFER,
        transport: str = "UDP",
        branch: str = "",
    ) -> bytes:
        """A request; ``headers`` are whole lines."""
        number = next(_numbers)
        here = f"{self.address[0]}:{self.address[1]}"
        length = len(body) if method == "INVITE" else 0
        lines = [
            f"{method} {uri or f'sip:bot@{self.edge[0]}:{self.edge[1]}'} SIP/2.0",
            f"Via: SIP/2.0/{transport} {here};branch={branch or f'z9hG4bK-{here}-{number}'}",
            f'From: "00919990152080|crt-{number}" <sip:caller@{here}>;tag=from{number}',
            f"To: <sip:bot@{self.edge[0]}>{f';tag={to_tag}' if to_tag else ''}",
            f"Call-ID: {call_id or f'{number}-{here}'}",
            f"CSeq: {cseq} {method}",
            f"Contact: <sip:caller@{here}>",
            "Max-Forwards: 70",
            *headers,
            *(["Content-Type: application/sdp"] if length else []),
            f"Content-Length: {length}",
        ]
        return ("\r\n".join([*lines, "", ""]) + (body if length else "")).encode()

    def send(self, message: bytes) -> None:
        """To the edge."""
        self.socket.sendto(message, self.edge)

    def receive(self) -> SipMessage:
        """The next message. Raises TimeoutError."""
        return SipMessage.parse(self.socket.recv(65536))

    def final(self) -> SipMessage:
        """The next final response."""
        while (message := self.receive()).status < 200:
            pass
        return message

    def asks(self, message: bytes) -> SipMessage:
        """Send a request and wait for its final response."""
        self.send(message)
        return self.final()

    def call(self, *headers: str) -> SipMessage:
        """An INVITE, to its final response, which is acknowledged if it is a refusal."""
        invite = self.request("INVITE", *headers)
        answer = self.asks(invite)
        if answer.status >= 300:
            self.send(acknowledgement(SipMessage.parse(invite), answer).pack())
        return answer

    def gets_nothing(self, message: bytes) -> None:
        """Send a request that is not answered: an OPTIONS behind it is, and first."""
        self.send(message)
        probe = self.request("OPTIONS")
        assert self.asks(probe).get("CSeq") == "1 OPTIONS"


def acknowledgement(invite: SipMessage, answer: SipMessage) -> SipMessage:
    """The ACK of a refusal (RFC 3261, 17.1.1.3)."""
    kept = [
        (name, value) for name, value in invite.headers if name in ("Via", "From", "Call-ID", "Max-Forwards")
    ]
    return SipMessage(
        method="ACK", uri=invite.uri, headers=[*kept, ("To", answer.need("To")), ("CSeq", "1 ACK")]
    )


Script = Callable[["FakeSwitch", SipMessage], None]


class FakeSwitch(_Endpoint):
    """A switch that says 200 to OPTIONS and has a script for the INVITEs; everything else gets 200.

    ``requests`` are those it has had but OPTIONS and ACK, repetitions left out.
    """

    def __init__(self, script: Script | None = None, port: int = 0) -> None:
        super().__init__("127.0.0.1", port)
        self.script = script or answer
        self.alive = True
        self.requests: deque[SipMessage] = deque()
        self.arrived: queue.Queue[SipMessage] = queue.Queue()
        self._seen: set[tuple[str, str]] = set()
        self._peer = ("", 0)
        self._thread = threading.Thread(target=self._serve, name="fake switch", daemon=True)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as waker:
            waker.sendto(b"", self.address)
        self._thread.join(PATIENCE)
        self.socket.close()

    def invites(self) -> list[SipMessage]:
        """The INVITEs it has had."""
        return [request for request in list(self.requests) if request.method == "INVITE"]

    def next(self, method: str) -> SipMessage:
        """Wait for the next request of a method; those of others are passed over."""
        while (request := self.arrived.get(timeout=PATIENCE)).method != method:
            pass
        return request

    def respond(self, request: SipMessage, status: int, reason: str, *more: tuple[str, str]) -> None:
        """Send a response to where the request came from."""
        response = SipMessage(status=status, reason=reason)
        for name, value in request.headers:
            if name in ("Via", "From", "Call-ID", "CSeq", "Record-Route"):
                response.headers.append((name, value))
            elif name == "To":
                tag = "" if ";tag=" in value or status == 100 else f";tag=to-{self.address[1]}"
                response.headers.append((name, value + tag))
        response.headers += [("Contact", f"<sip:bot@127.0.0.1:{self.address[1]}>"), *more]
        self.socket.sendto(response.pack(), self._peer)

    def send(self, message: SipMessage, to: tuple[str, int]) -> None:
        """A request of its own."""
        self.socket.sendto(message.pack(), to)

    def _serve(self) -> None:
        while data := self.socket.recvfrom(65536):
            if not data[0]:
                return
            message = SipMessage.parse(data[0])
            if not self.alive or message.status:
                if message.status:
                    self.arrived.put(message)
                continue
            self._peer = data[1]
            if message.method == "OPTIONS":
                self.respond(message, 200, "OK")
                continue
            if message.method != "ACK" and (key := (message.need("Via"), message.method)) not in self._seen:
                self._seen.add(key)
                self.requests.append(message)
            self.arrived.put(message)
            if message.method == "INVITE":
                self.script(self, message)
            elif message.method != "ACK":
                self.respond(message, 200, "OK")


def answer(switch: FakeSwitch, invite: SipMessage) -> None:
    """200."""
    switch.respond(invite, 200, "OK")


def silence(switch: FakeSwitch, invite: SipMessage) -> None:
    """Nothing at all."""


def trying_for_ever(switch: FakeSwitch, invite: SipMessage) -> None:
    """100, and nothing more; 487 when it is cancelled is left out, too."""
    switch.respond(invite, 100, "Trying")


def refuse(status: int, reason: str, *more: tuple[str, str]) -> Script:
    """A final response."""

    def script(switch: FakeSwitch, invite: SipMessage) -> None:
        switch.respond(invite, status, reason, *more)

    return script
