"""A PBX that floods, and one that only calls, by hand and over UDP: what becomes of the latter's calls?"""

from __future__ import annotations

import itertools
import selectors
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from eslbot.sim.switch.sip_message import SipMessage

#: When an INVITE without any response is sent again (RFC 3261, 17.1.1.2), in seconds since the first time.
REPEATED = (0.5, 1.5, 3.5, 7.5, 15.5, 31.5)
_numbers = itertools.count(1)


@dataclass
class Attempt:
    """One call of a PBX's."""

    invite: bytes
    began: float
    repeated: int = 0
    provisional: bool = False
    status: int = 0
    #: From the first INVITE to the final response.
    seconds: float = 0.0


@dataclass
class FloodingPbx:
    """Sends INVITEs, repeats those without any response, acknowledges, and says BYE to what is up."""

    socket: socket.socket
    switch: tuple[str, int]
    workspace: str
    display: str = "00919990152080|crt-{number}"
    repeats: bool = True
    attempts: dict[str, Attempt] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.socket.setblocking(False)
        self.here = "{}:{}".format(*self.socket.getsockname()[:2])

    def call(self) -> None:
        """One more INVITE."""
        number = next(_numbers)
        body = (
            f"v=0\r\no=- 1 1 IN IP4 {self.here.rpartition(':')[0]}\r\ns=-\r\n"
            f"c=IN IP4 {self.here.rpartition(':')[0]}\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"
        )
        call_id = f"flood-{number}@{self.here}"
        lines = [
            f"INVITE sip:bot@{self.switch[0]}:{self.switch[1]} SIP/2.0",
            f"Via: SIP/2.0/UDP {self.here};branch=z9hG4bK-flood-{number}",
            f'From: "{self.display.format(number=number)}" <sip:caller@{self.here}>;tag=f{number}',
            f"To: <sip:bot@{self.switch[0]}>",
            f"Call-ID: {call_id}",
            "CSeq: 1 INVITE",
            f"Contact: <sip:caller@{self.here}>",
            "Max-Forwards: 70",
            f"X-Workspace-ID: {self.workspace}",
            "Content-Type: application/sdp",
            f"Content-Length: {len(body)}",
        ]
        invite = ("\r\n".join([*lines, "", ""]) + body).encode()
        self.attempts[call_id] = Attempt(invite, time.monotonic())
        self._send(invite)

    def _send(self, message: bytes) -> None:
        try:
            self.socket.sendto(message, self.switch)
        except BlockingIOError:  # as if it were lost on the way
            return

    def turn(self) -> None:
        """Read what has come, and repeat what is due."""
        while True:
            try:
                data = self.socket.recv(65536)
            except BlockingIOError:
                break
            self._take(SipMessage.parse(data))
        if self.repeats:
            now = time.monotonic()
            for attempt in self.attempts.values():
                due = attempt.repeated < len(REPEATED) and now - attempt.began >= REPEATED[attempt.repeated]
                if due and not (attempt.status or attempt.provisional):
                    attempt.repeated += 1
                    self._send(attempt.invite)

    def _take(self, message: SipMessage) -> None:
        attempt = self.attempts.get(message.get("Call-ID") or "")
        if message.method or attempt is None or not message.need("CSeq").endswith("INVITE"):
            return
        if message.status < 200:
            attempt.provisional = True
            return
        if not attempt.status:
            attempt.status, attempt.seconds = message.status, time.monotonic() - attempt.began
        invite = SipMessage.parse(attempt.invite)
        self._send(self._within(invite, message, "ACK", "1" if message.status >= 300 else "2").pack())
        if message.status < 300:
            self._send(self._within(invite, message, "BYE", "3").pack())

    def _within(self, invite: SipMessage, answer: SipMessage, method: str, branch: str) -> SipMessage:
        via = invite.need("Via") if branch == "1" else f"{invite.need('Via')}-{branch}"
        contact = (answer.get("Contact") or f"<{invite.uri}>").partition("<")[2].partition(">")[0]
        return SipMessage(
            method=method,
            uri=invite.uri if branch == "1" else contact,
            headers=[
                ("Via", via),
                ("From", invite.need("From")),
                ("To", answer.need("To")),
                ("Call-ID", invite.need("Call-ID")),
                ("CSeq", f"{2 if method == 'BYE' else 1} {method}"),
                ("Max-Forwards", "70"),
            ],
        )

    def statuses(self) -> Counter[int]:
        """Of all calls; 0 is no final response."""
        return Counter(attempt.status for attempt in self.attempts.values())


def run(plan: Sequence[tuple[FloodingPbx, float, float, int]], patience: float) -> None:
    """PBXs, each with the seconds to wait, INVITEs a second, and how many of them; in one thread.

    Until everything has a final response, or for ``patience`` seconds after the last INVITE.
    """
    began = time.monotonic()
    last = max(wait + count / rate for _, wait, rate, count in plan)
    with selectors.DefaultSelector() as selector:
        for pbx, *_ in plan:
            selector.register(pbx.socket, selectors.EVENT_READ)
        while (now := time.monotonic() - began) < last + patience:
            selector.select(0.002)
            for pbx, wait, rate, count in plan:
                while len(pbx.attempts) < count and now >= wait + len(pbx.attempts) / rate:
                    pbx.call()
                pbx.turn()
            if now > last and not any(pbx.statuses()[0] for pbx, *_ in plan):
                return
