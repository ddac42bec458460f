"""A PBX by hand, in blocking style: raw SIP over UDP or TCP, and RTP that may be as odd as a test wants.

What SIPp would tidy up (headers, retransmissions, SDP) is here as the test writes it.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import uuid4

from eslbot.audio import g711
from eslbot.sim.audio import heard, tone
from eslbot.sim.bot import BotCall
from eslbot.sim.rtp import FRAME_SAMPLES, RtpPacket
from eslbot.sim.switch.sip_message import NameAddr, SipMessage

#: Seconds anything may take on a busy machine.
PATIENCE = 10.0
DID = "00919990152080"
#: Hertz of what the caller says, and of what a test lets the bot say.
CALLER, BOT = 1000, 440

Headers = Sequence[tuple[str, str]]


def sdp(
    port: int,
    codecs: str = "0 8 101",
    *,
    direction: str = "",
    address: str = "127.0.0.1",
    ptime: int = 0,
    profile: str = "RTP/AVP",
    version: int = 1,
    lines: Sequence[str] = (),
    behind: Sequence[str] = (),
) -> str:
    """A session description (RFC 4566) with one audio stream; ``behind`` are lines after its own."""
    text = ["v=0", f"o=pbx 1 {version} IN IP4 127.0.0.1", "s=-", f"c=IN IP4 {address}", "t=0 0"]
    text += [f"m=audio {port} {profile} {codecs}", "a=rtpmap:101 telephone-event/8000", "a=fmtp:101 0-15"]
    text += [f"a={direction}"] if direction else []
    text += [f"a=ptime:{ptime}"] if ptime else []
    return "\r\n".join([*text, *lines, *behind, ""])


@dataclass(frozen=True)
class Arrival:
    """An RTP packet that came: ``at`` on the monotonic clock, and from where."""

    at: float
    source: tuple[str, int]
    packet: RtpPacket


class Voice:
    """One RTP port of the PBX: says a tone in packets of ``ptime`` and keeps what comes.

    ``codec`` is what it says; ``payload_type`` its number. A :meth:`pause` is a gap in the packets.
    On a busy machine packets go late: :meth:`said`, :meth:`held_up`.
    """

    def __init__(self, host: str = "127.0.0.1", codec: str = "PCMU", ptime: int = 20) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((host, 0))
        self.socket.settimeout(0.05)
        self.port: int = self.socket.getsockname()[1]
        self.codec, self.ptime = codec, ptime
        self.ssrc, self.sequence, self.timestamp = 7, 0, 0
        self.arrivals: list[Arrival] = []
        #: When each packet of the tone went, and how many seconds behind its time.
        self._sent: list[tuple[float, float]] = []
        self.remote: tuple[str, int] | None = None
        self._saying = threading.Event()
        self._closed = threading.Event()
        self._arrived = threading.Condition()
        self._threads = [threading.Thread(target=job, daemon=True) for job in (self._say, self._hear)]
        for thread in self._threads:
            thread.start()

    def say(self, remote: tuple[str, int] | None = None) -> None:
        """Say the tone to ``remote`` from now on."""
        self.remote = remote or self.remote
        self._saying.set()

    def pause(self) -> None:
        """Say nothing."""
        self._saying.clear()

    def send(self, payload: bytes, kind: int, *, samples: int = FRAME_SAMPLES, marker: bool = False) -> None:
        """One packet."""
        assert self.remote is not None
        self.sequence += 1
        packet = RtpPacket(kind, self.sequence, self.timestamp, self.ssrc, payload, marker)
        self.timestamp += samples
        with contextlib.suppress(OSError):  # ICMP of one before: its port is closed
            self.socket.sendto(packet.pack(), self.remote)

    def said(self, since: float, seconds: float) -> float:
        """Seconds of the tone that were sent in a time."""
        return sum(since <= at < since + seconds for at, _ in list(self._sent)) * self.ptime / 1000

    def held_up(self, since: float) -> float:
        """Seconds by which packets since then went later than all before them: so long there was none.

        Whoever takes one a tick found nothing for so long, and stays behind by it: a packet late by no
        more than an earlier one is missed by nobody.
        """
        sent = list(self._sent)
        before = max((late for at, late in sent if at < since), default=0.0)
        return max(0.0, max((late for at, late in sent if at >= since), default=0.0) - before)

    def since(self, at: float) -> list[Arrival]:
        """What has come since ``at``."""
        with self._arrived:
            return [arrival for arrival in self.arrivals if arrival.at >= at]

    def wait(self, packets: int, since: float, seconds: float = PATIENCE) -> list[Arrival]:
        """The first packets that come behind ``since``. Raises AssertionError where fewer come."""
        deadline = time.monotonic() + seconds
        with self._arrived:
            while len(found := [a for a in self.arrivals if a.at >= since]) < packets:
                left = deadline - time.monotonic()
                assert left > 0, f"{len(found)} of {packets} packets within {seconds:g} s"
                self._arrived.wait(left)
        return found[:packets]

    def close(self) -> None:
        """Stop and give the port back."""
        self._closed.set()
        self._saying.set()
        for thread in self._threads:
            thread.join()
        self.socket.close()

    def _say(self) -> None:
        sound = g711.encode(self.codec, tone(CALLER, 1.0))
        kind, position = g711.PAYLOAD_TYPES[self.codec], 0
        due = time.monotonic()
        while not self._closed.is_set():
            if not self._saying.is_set():
                self._saying.wait()
                self._sent, due = [], time.monotonic()
                continue
            samples = 8 * self.ptime
            frame = (sound[position:] + sound)[:samples]
            position = (position + samples) % len(sound)
            self.send(frame, kind, samples=samples)
            self._sent.append(((now := time.monotonic()), now - due))
            due += self.ptime / 1000
            self._closed.wait(max(0.0, due - time.monotonic()))

    def _hear(self) -> None:
        while not self._closed.is_set():
            try:
                data, source = self.socket.recvfrom(4096)
            except OSError:  # the time-out, or ICMP for something we sent
                continue
            packet = RtpPacket.parse(data)
            if packet is not None:
                with self._arrived:
                    self.arrivals.append(Arrival(time.monotonic(), source, packet))
                    self._arrived.notify_all()


@dataclass
class Call:
    """One call of the PBX's, UDP or TCP. ``display`` is what its From says; a test may change it.

    ``to`` gets the peer's tag with the first answer that has one.
    """

    switch: tuple[str, int]
    workspace: str
    crt: str = field(default_factory=lambda: f"d444-{uuid4().hex[:12]}")
    transport: str = "udp"
    host: str = "127.0.0.1"
    voice: Voice = field(default_factory=Voice)
    #: Further ones, closed with the call.
    voices: list[Voice] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.display: str | None = f"{DID}|{self.crt}"
        self.call_id = f"{uuid4()}@pbx"
        self.to = "<sip:bot@127.0.0.1>"
        self.contact_user = "pbx"
        self.cseq = 0
        self.remote_uri = f"sip:bot@{self.switch[0]}:{self.switch[1]}"
        self.remote_sdp = ""
        self.routes: Headers = ()
        self.over = False
        self._version = itertools.count(1)
        self._buffer = b""
        if self.transport == "udp":
            self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self.socket.bind((self.host, 0))
        else:
            self.socket = socket.create_connection(self.switch, PATIENCE, (self.host, 0))
        self.port: int = self.socket.getsockname()[1]
        self.requests: list[SipMessage] = []
        self._kept: list[SipMessage] = []

    # -- messages -----------------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        body: str = "",
        headers: Headers = (),
        *,
        cseq: int = 0,
        branch: str = "",
        kind: str = "application/sdp",
    ) -> SipMessage:
        """A request within the call, or its INVITE; not sent."""
        if not cseq:
            self.cseq += 1
        message = SipMessage(method=method, uri=self.remote_uri, body=body.encode())
        name = "" if self.display is None else f'"{self.display}" '
        via = f"SIP/2.0/{self.transport.upper()} {self.host}:{self.port}"
        message.headers = [
            ("Via", f"{via};rport;branch={branch or 'z9hG4bK' + uuid4().hex}"),
            *self.routes,
            ("Max-Forwards", "70"),
            ("From", f"{name}<sip:caller@{self.host}>;tag=pbx"),
            ("To", self.to),
            ("Call-ID", self.call_id),
            ("CSeq", f"{cseq or self.cseq} {method}"),
            ("Contact", f"<sip:{self.contact_user}@{self.host}:{self.port};transport={self.transport}>"),
            *headers,
            *([("Content-Type", kind)] if body else []),
        ]
        return message

    def send(self, message: SipMessage | bytes) -> None:
        """Send it to the switch."""
        data = message if isinstance(message, bytes) else message.pack()
        if self.transport == "udp":
            self.socket.sendto(data, self.switch)
        else:
            self.socket.sendall(data)

    def receive(self, seconds: float = PATIENCE) -> SipMessage:
        """The next message. Raises TimeoutError."""
        self.socket.settimeout(max(0.001, seconds))
        if self.transport == "udp":
            return SipMessage.parse(self.socket.recv(65536))
        while True:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            match = re.search(rb"^(?:content-length|l)\s*:\s*(\d+)", head, re.I | re.M)
            length = int(match[1]) if match else 0
            if end and len(rest) >= length:
                self._buffer = rest[length:]
                return SipMessage.parse(head + end + rest[:length])
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionResetError("the switch closed the connection")
            self._buffer += more

    def response(self, to: SipMessage, seconds: float = PATIENCE, *, first: bool = False) -> SipMessage:
        """The final response to a request, or with ``first`` the first but 100. Requests are kept, and a BYE
        answered."""
        deadline = time.monotonic() + seconds
        wanted = to.cseq()
        while True:
            message = self.receive(deadline - time.monotonic())
            if message.method:
                self._kept.append(message)
                self._take(message)
            elif message.cseq() == wanted and (message.status >= 200 or (first and message.status > 100)):
                return message

    def wants(self, method: str, seconds: float = PATIENCE) -> SipMessage:
        """The next request ``method`` of the switch's. Raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while True:
            while self._kept:
                message = self._kept.pop(0)
                if message.method == method:
                    return message
            message = self.receive(deadline - time.monotonic())
            if message.method:
                self._kept.append(message)
                self._take(message)

    def answer(self, request: SipMessage, status: int, reason: str, body: str = "") -> None:
        """Answer a request of the switch's; ``body`` is an SDP."""
        response = SipMessage(status=status, reason=reason, body=body.encode())
        kept = ("via", "from", "to", "call-id", "cseq", "record-route")
        response.headers = [(name, value) for name, value in request.headers if name.lower() in kept]
        if body:
            contact = f"<sip:{self.contact_user}@{self.host}:{self.port};transport={self.transport}>"
            response.headers += [("Contact", contact), ("Content-Type", "application/sdp")]
        self.send(response)

    def _take(self, message: SipMessage) -> None:
        self.requests.append(message)
        if message.method == "BYE":
            self.over = True
            self.answer(message, 200, "OK")

    # -- a call -------------------------------------------------------------------------------------------

    def offer(self, voice: Voice | None = None, **how: object) -> str:
        """An SDP of this call's voice; keywords are those of :func:`sdp`."""
        return sdp((voice or self.voice).port, version=next(self._version), **how)  # type: ignore[arg-type]

    def invite(self, body: str | None = None, headers: Headers = ()) -> SipMessage:
        """The INVITE, sent; ``body`` is an ordinary offer unless given."""
        body = self.offer() if body is None else body
        message = self.request("INVITE", body, [("X-Workspace-ID", self.workspace), *headers])
        self.send(message)
        return message

    def established(self, body: str | None = None, headers: Headers = ()) -> SipMessage:
        """Invite, expect 200, acknowledge, and begin to speak; returns the 200."""
        return self.accept(self.invite(body, headers))

    def accept(self, invite: SipMessage, body: str = "", response: SipMessage | None = None) -> SipMessage:
        """Expect 200 to ``invite``, unless it is there, acknowledge it with ``body``, and speak where its SDP
        says."""
        response = response or self.response(invite)
        assert response.status == 200, f"{response.status} {response.reason}"
        self.to = response.need("To")
        contact = NameAddr.parse(response.need("Contact"), "Contact")
        self.remote_uri = contact.uri
        self.remote_sdp = response.body.decode()
        self.ack(invite, body)
        self.voice.say(self.remote)
        return response

    @property
    def remote(self) -> tuple[str, int]:
        """Where the switch wants the audio."""
        address = re.search(r"^c=IN IP4 (\S+)", self.remote_sdp, re.M)
        port = re.search(r"^m=audio (\d+)", self.remote_sdp, re.M)
        assert address and port, self.remote_sdp
        return address[1], int(port[1])

    def ack(self, invite: SipMessage, body: str = "") -> None:
        """ACK to a 200."""
        self.send(self.request("ACK", body, cseq=invite.cseq()[0]))

    def refused(self, invite: SipMessage) -> SipMessage:
        """Expect a final response other than 2xx to ``invite``, and acknowledge it."""
        response = self.response(invite)
        assert response.status >= 300, f"{response.status} {response.reason}"
        branch = branch_of(invite)
        ack = self.request("ACK", cseq=invite.cseq()[0], branch=branch)
        ack.headers = [(n, response.need("To") if n == "To" else v) for n, v in ack.headers]
        self.send(ack)
        self.over = True
        return response

    def reinvite(self, body: str, headers: Headers = (), ack: str = "") -> SipMessage:
        """A re-INVITE with its ACK, which has ``ack`` for a body; returns the final response."""
        invite = self.request("INVITE", body, headers)
        self.send(invite)
        response = self.response(invite)
        if response.status == 200:
            self.remote_sdp = response.body.decode() or self.remote_sdp
            self.ack(invite, ack)
        else:
            self.send(self.request("ACK", cseq=invite.cseq()[0], branch=branch_of(invite)))
        return response

    def ask(self, method: str, body: str = "", headers: Headers = (), kind: str = "") -> SipMessage:
        """Any other request in the call, and its final response."""
        request = self.request(method, body, headers, kind=kind or "application/sdp")
        self.send(request)
        return self.response(request)

    def hears_bot(self, bot: BotCall, voice: Voice | None = None, codec: str = "PCMU") -> None:
        """The bot says half a second of its tone, and most of that comes. Raises AssertionError."""
        voice, since = voice or self.voice, time.monotonic()
        bot.say(tone(BOT, 0.5), real_time=False)
        packets = 1
        while (length := hears(voice.wait(packets, since), BOT, codec)) < 0.3:
            assert time.monotonic() - since < PATIENCE, f"{length:g} s of the bot's tone"
            packets += 5

    def bye(self) -> None:
        """End the call."""
        assert not self.over, "the switch has sent BYE"
        assert self.ask("BYE").status == 200
        self.over = True

    def close(self) -> None:
        """Leave nothing behind; a call that is still up gets its BYE."""
        with contextlib.suppress(OSError):
            if not self.over and "tag=" in self.to:
                self.bye()
        for voice in (self.voice, *self.voices):
            voice.close()
        self.socket.close()


def branch_of(request: SipMessage) -> str:
    """The branch of a request's top Via."""
    match = re.search(r"branch=([^;\s]+)", request.need("Via"))
    assert match
    return match[1]


def hears(arrivals: Sequence[Arrival], frequency: int, codec: str = "PCMU") -> float:
    """Seconds of a tone in what came."""
    return heard(b"".join(g711.decode(codec, a.packet.payload) for a in arrivals), frequency)
