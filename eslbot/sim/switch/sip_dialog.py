"""The dialog that an INVITE makes (RFC 3261, 12): the requests in it, and what a call hears of them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from .sip_message import NO_OFFER, NameAddr, Offer, SipMessage, uri_parts
from .sip_transaction import USER_AGENT, ServerTransaction

if TYPE_CHECKING:
    from .sip import SipEndpoint

ALLOW = "INVITE, ACK, BYE, CANCEL, OPTIONS, MESSAGE, INFO, UPDATE, PRACK, NOTIFY"

#: Requests that are not for the call itself, in one or outside of any (measured).
ANSWERS = {
    "OPTIONS": (200, "OK"),
    "MESSAGE": (202, "Accepted"),
    "PRACK": (481, "No such response"),
    "NOTIFY": (481, "Subscription Does Not Exist"),
    **dict.fromkeys(("REFER", "SUBSCRIBE", "PUBLISH", "REGISTER"), (405, "Method Not Allowed")),
}


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
            transaction.respond(*ANSWERS.get(method, (501, "Not Implemented")), [("Allow", ALLOW)])

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
