"""The SIP side: UDP and TCP on one port, server transactions, and one dialog a call (RFC 3261, UAS only).

The only requests of our own are BYE, and the re-INVITE by which a call is taken up whose switch has died.
Timers are those of RFC 3261, table 4: T1 500 ms, T2 4 s, everything given up after 64 × T1.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any, Protocol

from eslbot.sim.events import Emit

from .capture import Capture
from .sip_message import (
    MAX_MESSAGE,
    NO_OFFER,
    MalformedMessage,
    NameAddr,
    Offer,
    SipMessage,
    parameters,
    uri_parts,
)

#: T1 in seconds, and T2 as a multiple of it.
T1 = 0.5
T2 = 8

ALLOW = "INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, INFO, UPDATE, PRACK, NOTIFY"
#: What a PBX may require (sofia-sip with ``enable-100rel`` and without timers).
SUPPORTED = frozenset({"100rel", "path", "replaces"})
USER_AGENT = "eslbot stand-in switch"

#: Bounds: remembered transactions, open TCP connections, and bytes a slow TCP peer may leave unread.
MAX_TRANSACTIONS = 20_000
MAX_CONNECTIONS = 1_000
MAX_UNSENT = 1 << 20

Network = IPv4Network | IPv6Network

#: Requests that are not for the call itself, in one or outside of any (measured).
_ANSWERS = {
    "OPTIONS": (200, "OK"),
    "MESSAGE": (202, "Accepted"),
    "PRACK": (481, "No such response"),
    "NOTIFY": (481, "Subscription Does Not Exist"),
    **dict.fromkeys(("REFER", "SUBSCRIBE", "PUBLISH", "REGISTER"), (405, "Method Not Allowed")),
}

_CONTENT_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*:[ \t]*(\d{1,9})[ \t]*\r$", re.I | re.M)


class Peer(Protocol):
    """Where a message came from, and how to send one back there."""

    transport: str
    host: str
    port: int

    def send(self, data: bytes) -> None:
        """Send one message; a message that cannot be sent is lost, as on a real network."""


class _UdpPeer:
    transport = "udp"

    def __init__(self, transport: asyncio.DatagramTransport, host: str, port: int) -> None:
        self._transport = transport
        self.host, self.port = host, port

    def send(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.sendto(data, (self.host, self.port))


class _TcpPeer:
    transport = "tcp"

    def __init__(self, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        self._writer = writer
        self.host, self.port = host, port

    def send(self, data: bytes) -> None:
        if self._writer.is_closing():
            return
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT:
            self._writer.transport.abort()


class CallHandler(Protocol):
    """What a call wants to hear from its dialog."""

    def cancelled(self) -> None:
        """The PBX sent CANCEL before the answer; it already has its 487."""

    def bye_received(self) -> None:
        """The PBX sent BYE; it already has its 200."""

    def never_acknowledged(self) -> None:
        """No ACK came to our 200 within 64 × T1."""

    def acknowledged(self, ack: SipMessage) -> None:
        """The PBX sent ACK to a 200 of ours, for the first time."""

    def renegotiated(self, request: SipMessage, offer: Offer | None) -> str:
        """The PBX sent a re-INVITE, with an offer or without; returns our SDP."""

    def updated(self, offer: Offer) -> str:
        """The PBX sent UPDATE with an offer; returns our SDP."""

    def informed(self, info: SipMessage) -> None:
        """The PBX sent INFO, of whatever kind."""

    def taken_up(self, answer: Offer | None) -> None:
        """The PBX has answered our re-INVITE with a 200; None where its SDP is none."""

    def not_taken_up(self, status: int) -> None:
        """The PBX has refused our re-INVITE, or (408) not answered it at all; the dialog is over."""


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


class SipCall:
    """The dialog an INVITE made. ``handler`` must be set before control returns to the event loop."""

    def __init__(self, endpoint: SipEndpoint, transaction: ServerTransaction, offer: Offer | None) -> None:
        request = transaction.request
        self.invite, self.peer, self.late = request, transaction.peer, offer is None
        #: Of an INVITE without one: what stands for it until the ACK.
        self.offer = offer or NO_OFFER
        self.call_id = request.need("Call-ID")
        self.sender = NameAddr.parse(request.need("From"), "From")
        self.recipient = NameAddr.parse(request.need("To"), "To")
        self.contact = NameAddr.parse(request.need("Contact"), "Contact")
        self.local_ip = endpoint.local_ip(self.peer.host)
        self.answered = self.ended = False
        self.handler: CallHandler | None = None
        self.local_tag, self.remote_tag = transaction.local_tag, self.sender.params.get("tag", "")
        self._endpoint, self._transaction = endpoint, transaction
        self._unacknowledged: dict[int, ServerTransaction] = {}
        self.remote_cseq = request.cseq()[0]
        self._cseq = 0  # the last of our own
        self._acks: dict[int, bytes] = {}  # by the CSeq of our re-INVITE
        self._routes = [part.strip() for line in request.all("Record-Route") for part in line.split(",")]

    @property
    def key(self) -> tuple[str, str, str]:
        """How a later request finds this dialog."""
        return self.call_id, self.local_tag, self.remote_tag

    def progress(self, sdp: str) -> None:
        """Send ``183 Session Progress``."""
        self._transaction.respond(183, "Session Progress", self._session_headers(), sdp.encode())

    def answer(self, sdp: str) -> None:
        """Send the 200 and repeat it until ACK."""
        self.answered = True
        self._accept(self._transaction, self.invite.cseq()[0], sdp)

    def refuse(self, status: int, reason: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Send a final response other than 2xx; the dialog is over."""
        self._transaction.respond(status, reason, headers)
        self._end()

    def send_bye(self, reason: str) -> None:
        """End an answered call; ``reason`` is the value of the Reason header (RFC 3326)."""
        if self.ended:
            return
        self._end()
        self._cseq += 1
        bye = self._request("BYE", self._cseq)
        bye.headers.append(("Reason", reason))
        self._endpoint.send_request(bye, self._target, self.peer)

    def take_up(self, sdp: str) -> None:
        """Send the re-INVITE of a switch that was restarted; the handler hears what becomes of it.

        Its number is the time in steps of two seconds, as sofia-sip chooses one for a dialog that it does not
        know: two within such a step have the same.
        """
        self._cseq = int(time.time()) // 2 & 0x7FFFFFFF
        invite = self._request("INVITE", self._cseq)
        invite.headers += self._session_headers()
        invite.body = sdp.encode()
        self._endpoint.send_request(invite, self._target, self.peer, self._answered_again)

    def accepted(self, number: int) -> None:
        """A 200 to our re-INVITE, again or for the first time: acknowledge it."""
        if number not in self._acks:
            ack = self._request("ACK", number)
            self._acks[number] = self._endpoint.send_ack(ack, self._target, self.peer)
        else:
            self._endpoint.resend(self._acks[number], self._target, self.peer)

    def _answered_again(self, response: SipMessage | None) -> None:
        if self.ended or self.handler is None:
            return
        if response is not None and response.status < 300:
            self.handler.taken_up(Offer.parse(response.body.decode("utf-8", "replace")))
            return
        self._end()
        self.handler.not_taken_up(response.status if response is not None else 408)

    @property
    def _target(self) -> str:
        return self._routes[0] if self._routes else self.contact.uri

    def _request(self, method: str, number: int) -> SipMessage:
        """A request of our own within the dialog."""
        request = SipMessage(method=method, uri=self.contact.uri)
        local = self.invite.need("To")
        if "tag" not in self.recipient.params:
            local = f"{local};tag={self.local_tag}"
        request.headers = [("Max-Forwards", "70"), *(("Route", route) for route in self._routes)]
        request.headers += [("From", local), ("To", self.invite.need("From")), ("Call-ID", self.call_id)]
        request.headers += [("CSeq", f"{number} {method}"), ("User-Agent", USER_AGENT)]
        return request

    def acknowledged(self, cseq: int, ack: SipMessage) -> None:
        """An ACK to one of our 200s."""
        transaction = self._unacknowledged.pop(cseq, None)
        if transaction is not None:
            transaction.acknowledged()
            if self.handler is not None:
                self.handler.acknowledged(ack)

    def receive(self, transaction: ServerTransaction) -> None:
        """A request inside the dialog."""
        request, handler = transaction.request, self.handler
        number, method = request.cseq()
        if handler is None or number <= self.remote_cseq:
            transaction.respond(500, "Server Internal Error")
            return
        self.remote_cseq = number
        if method == "BYE":
            transaction.respond(200, "OK")
            if not self.answered:
                self._transaction.respond(487, "Request Terminated")
            self._end()
            handler.bye_received()
        elif method == "INVITE" and (self._unacknowledged or not self.answered):
            transaction.respond(500, "Server Internal Error", [("Retry-After", "2")])  # RFC 3261, 14.2
        elif method == "INVITE":
            offer = Offer.parse(request.body.decode("utf-8", "replace")) if request.body else None
            if request.body and offer is None:
                transaction.respond(488, "Not Acceptable Here")
            else:
                self._accept(transaction, number, handler.renegotiated(request, offer))
        elif method == "INFO":
            handler.informed(request)
            transaction.respond(200, "OK")
        elif method == "UPDATE":
            offer = Offer.parse(request.body.decode("utf-8", "replace"))
            if offer is not None:
                sdp = handler.updated(offer).encode()
                transaction.respond(200, "OK", self._session_headers(), sdp)
            else:
                transaction.respond(*((488, "Not Acceptable Here") if request.body else (200, "OK")))
        else:
            transaction.respond(*_ANSWERS.get(method, (501, "Not Implemented")), [("Allow", ALLOW)])

    def cancel(self) -> None:
        """A CANCEL has matched our INVITE."""
        if self.answered or self.ended:
            return
        self._transaction.respond(487, "Request Terminated")
        self._end()
        if self.handler is not None:
            self.handler.cancelled()

    def _accept(self, transaction: ServerTransaction, cseq: int, sdp: str) -> None:
        self._unacknowledged[cseq] = transaction
        transaction.respond(200, "OK", self._session_headers(), sdp.encode(), self._never_acknowledged)

    def _never_acknowledged(self) -> None:
        if not self.ended and self.handler is not None:
            self.handler.never_acknowledged()

    def _session_headers(self) -> list[tuple[str, str]]:
        port = self._endpoint.address[1]
        suffix = ";transport=tcp" if self.peer.transport == "tcp" else ""
        user = uri_parts(self.invite.uri)[0]
        contact = f"<sip:{user + '@' if user else ''}{self.local_ip}:{port}{suffix}>"
        return [("Contact", contact), ("Allow", ALLOW), ("Content-Type", "application/sdp")]

    def _end(self) -> None:
        self.ended = True
        self._endpoint.dialogs.pop(self.key, None)
        if self.answered:
            for transaction in self._unacknowledged.values():
                transaction.acknowledged()  # nothing to wait for any more


class SipEndpoint:
    """The listening sockets and everything that arrives on them."""

    def __init__(
        self,
        listen: tuple[str, int],
        allow: Sequence[Network],
        on_call: Callable[[SipCall], None],
        emit: Emit,
        t1: float = T1,
        capture: Capture | None = None,
    ) -> None:
        self.address = listen
        self.t1 = t1
        self.transactions: dict[tuple[str, str, str], ServerTransaction] = {}
        self.dialogs: dict[tuple[str, str, str], SipCall] = {}
        self._requests: dict[str, asyncio.TimerHandle] = {}
        #: Who waits for the final response to a request of ours, by its branch.
        self._waiting: dict[str, Callable[[SipMessage | None], None]] = {}
        self._allow, self._on_call, self._emit, self._capture = list(allow), on_call, emit, capture
        self._udp: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Bind UDP and TCP to one address; port 0 becomes one that is free for both."""
        loop = asyncio.get_running_loop()
        host, port = self.address
        for attempt in range(20):
            self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), (host, port))
            bound = self._udp.get_extra_info("sockname")[1]
            try:
                self._tcp = await asyncio.start_server(self._connected, host, bound, limit=MAX_MESSAGE)
            except OSError:
                self._udp.close()
                if port or attempt == 19:
                    raise
            else:
                self.address = (host, bound)
                return

    def close(self) -> None:
        """Close both sockets and every connection, forget every transaction."""
        for transaction in list(self.transactions.values()):
            transaction.forget()
        for timer in self._requests.values():
            timer.cancel()
        self._requests.clear()
        self._waiting.clear()
        if self._udp is not None:
            self._udp.close()
        if self._tcp is not None:
            self._tcp.close()
        for writer in list(self._writers):
            writer.close()

    def copy(self, message: bytes, peer: Peer, *, sent: bool) -> None:
        """Copy a message that went to ``peer``, or came from it."""
        if self._capture is not None:
            ours, theirs = (self.local_ip(peer.host), self.address[1]), (peer.host, peer.port)
            self._capture.copy(message, peer.transport, *((ours, theirs) if sent else (theirs, ours)))

    def local_ip(self, remote: str) -> str:
        """Our own address as ``remote`` sees it."""
        if not ip_address(self.address[0]).is_unspecified:
            return self.address[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((remote, 9))  # chooses a route, sends nothing
            return str(probe.getsockname()[0])

    def datagram(self, data: bytes, host: str, port: int) -> None:
        """One UDP datagram."""
        if self._udp is not None and data.strip(b"\r\n\0"):  # empty ones are keep-alives
            self._receive(data, _UdpPeer(self._udp, host, port))

    def restore(
        self, invite: SipMessage, peer: tuple[str, int], local_tag: str, remote_cseq: int, offer: Offer
    ) -> SipCall:
        """The dialog of a call that another process has answered; over UDP."""
        assert self._udp is not None
        transaction = ServerTransaction(self, ("", "", local_tag), invite, _UdpPeer(self._udp, *peer))
        transaction.local_tag, transaction.final = local_tag, 200
        call = SipCall(self, transaction, offer)
        call.answered, call.remote_cseq = True, remote_cseq
        self.dialogs[call.key] = call
        return call

    def send_ack(self, ack: SipMessage, target: str, peer: Peer) -> bytes:
        """Send an ACK to a 200, and return it: it is sent again at each repetition of that."""
        data = self._addressed(ack, peer, "z9hG4bK" + uuid.uuid4().hex)
        self.resend(data, target, peer)
        return data

    def resend(self, data: bytes, target: str, peer: Peer) -> None:
        """Send a message once, where ``target`` says."""
        self._to(target, peer).send(data)

    def _addressed(self, request: SipMessage, peer: Peer, branch: str) -> bytes:
        ours = f"{self.local_ip(peer.host)}:{self.address[1]}"
        request.headers.insert(0, ("Via", f"SIP/2.0/{peer.transport.upper()} {ours};rport;branch={branch}"))
        return request.pack()

    def _to(self, target: str, peer: Peer) -> Peer:
        if peer.transport == "udp" and self._udp is not None:
            _, host, port = uri_parts(target.partition("<")[2].partition(">")[0] or target)
            if _is_ip(host):
                return _UdpPeer(self._udp, host, port or 5060)
        return peer

    def send_request(
        self,
        request: SipMessage,
        target: str,
        peer: Peer,
        answered: Callable[[SipMessage | None], None] = lambda response: None,
    ) -> None:
        """Send a request of our own where ``target`` says, repeated over UDP until a response.

        ``answered`` gets the final one, or None where there is none in time.
        """
        branch = "z9hG4bK" + uuid.uuid4().hex
        peer = self._to(target, peer)
        data = self._addressed(request, peer, branch)
        self._waiting[branch] = answered
        peer.send(data)
        self.copy(data, peer, sent=True)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + 64 * self.t1

        def repeat(interval: float) -> None:
            if loop.time() >= give_up:
                del self._requests[branch]
                self._emit(
                    "request_unanswered", {"method": request.method, "call_id": request.get("Call-ID")}
                )
                self._waiting.pop(branch)(None)
                return
            if peer.transport == "udp":
                peer.send(data)
            following = min(2 * interval, T2 * self.t1)
            self._requests[branch] = loop.call_at(min(loop.time() + following, give_up), repeat, following)

        self._requests[branch] = loop.call_later(self.t1, repeat, self.t1)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = writer.get_extra_info("peername")[:2]
        if len(self._writers) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._writers.add(writer)
        peer = _TcpPeer(writer, host, port)
        try:
            while (data := await _read_framed(reader)) is not None:
                self._receive(data, peer)
        except (MalformedMessage, ConnectionError) as error:
            # Framing is lost for good: RFC 3261, 18.3 leaves only closing.
            self._emit("malformed", {"source": f"{host}:{port}", "transport": "tcp", "error": str(error)})
        finally:
            self._writers.discard(writer)
            writer.close()

    def _receive(self, data: bytes, peer: Peer) -> None:
        self.copy(data, peer, sent=False)
        try:
            message = SipMessage.parse(data)
            if message.status:
                self._response(message, peer)
            else:
                self._request(message, peer)
        except MalformedMessage as error:
            source = f"{peer.host}:{peer.port}"
            self._emit("malformed", {"source": source, "transport": peer.transport, "error": str(error)})

    def _response(self, response: SipMessage, peer: Peer) -> None:
        if response.status < 200:
            return
        branch = parameters(response.need("Via")).get("branch", "")
        number, method = response.cseq()
        if method == "INVITE":
            self._acknowledge(response, number, branch, peer)
        timer = self._requests.pop(branch, None)
        if timer is not None:
            timer.cancel()
            self._waiting.pop(branch)(response)

    def _acknowledge(self, response: SipMessage, number: int, branch: str, peer: Peer) -> None:
        sender, recipient = (NameAddr.parse(response.need(name), name) for name in ("From", "To"))
        call = self.dialogs.get(
            (response.need("Call-ID"), sender.params.get("tag", ""), recipient.params.get("tag", ""))
        )
        if response.status < 300:
            if call is not None:
                call.accepted(number)
            return
        ack = SipMessage(method="ACK", uri=recipient.uri)  # RFC 3261, 17.1.1.3
        ack.headers = [(name, response.need(name)) for name in ("From", "To", "Call-ID")]
        ack.headers += [("CSeq", f"{number} ACK"), ("Max-Forwards", "70")]
        peer.send(self._addressed(ack, peer, branch))

    def _request(self, request: SipMessage, peer: Peer) -> None:
        number, method = request.cseq()
        via, call_id = request.need("Via"), request.need("Call-ID")
        if method != request.method:
            raise MalformedMessage("CSeq and request line name different methods")
        branch = parameters(via).get("branch") or f"{call_id}|{number}"
        sent_by = via.partition(";")[0].split()[-1]
        related = (branch, sent_by, "INVITE")
        key = (branch, sent_by, method)
        if peer.transport == "udp" and "rport" not in parameters(via) and self._udp is not None:
            _, _, port = uri_parts("sip:" + sent_by)  # RFC 3261, 18.2.2
            peer = _UdpPeer(self._udp, peer.host, port or 5060)
        if method == "ACK":
            self._ack(request, number, related)
        elif key in self.transactions:
            self.transactions[key].resend()
        elif len(self.transactions) >= MAX_TRANSACTIONS:
            self._emit(
                "refused", {"status": "dropped", "call_id": call_id, "reason": "too many transactions"}
            )
        else:
            transaction = self.transactions[key] = ServerTransaction(self, key, request, peer)
            if not any(ip_address(peer.host) in network for network in self._allow):
                self._refuse(transaction, 403, "Forbidden")
            else:
                self._dispatch(transaction, method, related)

    def _ack(self, request: SipMessage, number: int, related: tuple[str, str, str]) -> None:
        transaction = self.transactions.get(related)
        if transaction is not None and transaction.final >= 300:
            transaction.acknowledged()
            return
        call = self.dialogs.get(_dialog_key(request))
        if call is not None:
            call.acknowledged(number, request)

    def _dispatch(self, transaction: ServerTransaction, method: str, related: tuple[str, str, str]) -> None:
        request = transaction.request
        try:
            dialog = _dialog_key(request)
            inside = bool(dialog[1])
            if method == "CANCEL":
                cancelled = self.transactions.get(related)
                known = cancelled is not None and cancelled.call is not None
                transaction.respond(*((200, "OK") if known else (481, "Call/Transaction Does Not Exist")))
                if cancelled is not None and cancelled.call is not None:
                    cancelled.call.cancel()
            elif foreign := _foreign_extension(request):
                transaction.respond(420, "Bad Extension", [("Unsupported", foreign)])
            elif inside and dialog in self.dialogs:
                self.dialogs[dialog].receive(transaction)
            elif inside or method in ("BYE", "INFO"):
                transaction.respond(481, "Call/Transaction Does Not Exist")
            elif method == "INVITE":
                self._invite(transaction)
            elif method == "OPTIONS":
                transaction.respond(200, "OK", [("Allow", ALLOW), ("Accept", "application/sdp")])
            else:
                transaction.respond(*_ANSWERS.get(method, (501, "Not Implemented")), [("Allow", ALLOW)])
        except MalformedMessage as error:
            self._refuse(transaction, 400, str(error))

    def _invite(self, transaction: ServerTransaction) -> None:
        transaction.respond(100, "Trying")
        sdp = transaction.request.body.decode("utf-8", "replace")
        if sdp and not sdp.startswith("v="):
            self._refuse(transaction, 400, "Bad Session Description")
            return
        offer = Offer.parse(sdp)
        if sdp and (offer is None or not _is_ip(offer.address)):
            self._refuse(transaction, 488, "Not Acceptable Here")
            return
        call = transaction.call = SipCall(self, transaction, offer)
        self.dialogs[call.key] = call
        self._on_call(call)

    def _refuse(self, transaction: ServerTransaction, status: int, reason: str) -> None:
        transaction.respond(status, reason)
        peer, request = transaction.peer, transaction.request
        fields: dict[str, Any] = {"status": status, "reason": reason, "method": request.method}
        self._emit(
            "refused", {**fields, "call_id": request.get("Call-ID"), "source": f"{peer.host}:{peer.port}"}
        )


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, endpoint: SipEndpoint) -> None:
        self._endpoint = endpoint

    def datagram_received(self, data: bytes, address: tuple[str | Any, int]) -> None:
        self._endpoint.datagram(data, str(address[0]), address[1])


async def _read_framed(reader: asyncio.StreamReader) -> bytes | None:
    """One message from a stream (RFC 3261, 18.3), or None at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        while head == b"\r\n\r\n":  # keep-alive (RFC 5626, 3.5.1)
            head = await reader.readuntil(b"\r\n\r\n")
        head = head.lstrip(b"\r\n")
        match = _CONTENT_LENGTH.search(head)
        if match is None or int(match[1]) > MAX_MESSAGE:
            raise MalformedMessage("no usable Content-Length over TCP")
        return head + await reader.readexactly(int(match[1]))
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise MalformedMessage("message too long") from None


def _dialog_key(request: SipMessage) -> tuple[str, str, str]:
    sender = NameAddr.parse(request.need("From"), "From")
    recipient = NameAddr.parse(request.need("To"), "To")
    return request.need("Call-ID"), recipient.params.get("tag", ""), sender.params.get("tag", "")


def _received(via: str, peer: Peer) -> str:
    """The top Via with ``received`` and ``rport`` filled in (RFC 3581, section 4)."""
    head, *rest = via.split(";")
    kept = [f"rport={peer.port}" if part.strip().lower() == "rport" else part for part in rest]
    return ";".join([head, *kept, f"received={peer.host}"])


def _foreign_extension(request: SipMessage) -> str:
    """What of ``Require`` we do not have (RFC 3261, 8.2.2.3)."""
    required = [tag.strip() for line in request.all("Require") for tag in line.split(",")]
    return ", ".join(tag for tag in required if tag and tag.lower() not in SUPPORTED)


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
