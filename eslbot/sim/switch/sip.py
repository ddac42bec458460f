"""The SIP side: UDP and TCP on one port, server transactions, and one dialog a call (RFC 3261, UAS only).

The only requests of our own are BYE, and the re-INVITE by which a call is taken up whose switch has died.
Timers are those of RFC 3261, table 4: T1 500 ms, T2 4 s, everything given up after 64 × T1.
"""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from eslbot.sim.events import Emit

from .capture import Capture
from .sip_dialog import ALLOW, ANSWERS, SipCall
from .sip_message import MAX_MESSAGE, MalformedMessage, NameAddr, Offer, SipMessage, parameters, uri_parts
from .sip_peers import Peer, TcpPeer, UdpPeer, read_framed
from .sip_transaction import T1, T2, ServerTransaction

#: What a PBX may require (sofia-sip with ``enable-100rel`` and without timers).
SUPPORTED = frozenset({"100rel", "path", "replaces"})

#: Bounds: remembered transactions, and open TCP connections.
MAX_TRANSACTIONS = 20_000
MAX_CONNECTIONS = 1_000

Network = IPv4Network | IPv6Network


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, endpoint: SipEndpoint) -> None:
        self._endpoint = endpoint

    def datagram_received(self, data: bytes, address: tuple[str | Any, int]) -> None:
        self._endpoint.datagram(data, str(address[0]), address[1])


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
            self._receive(data, UdpPeer(self._udp, host, port))

    def restore(
        self, invite: SipMessage, peer: tuple[str, int], local_tag: str, remote_cseq: int, offer: Offer
    ) -> SipCall:
        """The dialog of a call that another process has answered; over UDP."""
        assert self._udp is not None
        transaction = ServerTransaction(self, ("", "", local_tag), invite, UdpPeer(self._udp, *peer))
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
                return UdpPeer(self._udp, host, port or 5060)
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
        peer = TcpPeer(writer, host, port)
        try:
            while (data := await read_framed(reader)) is not None:
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
            peer = UdpPeer(self._udp, peer.host, port or 5060)
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
                transaction.respond(*ANSWERS.get(method, (501, "Not Implemented")), [("Allow", ALLOW)])
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


def _dialog_key(request: SipMessage) -> tuple[str, str, str]:
    sender = NameAddr.parse(request.need("From"), "From")
    recipient = NameAddr.parse(request.need("To"), "To")
    return request.need("Call-ID"), recipient.params.get("tag", ""), sender.params.get("tag", "")


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
