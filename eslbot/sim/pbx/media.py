"""The PBX's end of the RTP: sends the caller's tone, records what the caller would hear.

One thread serves all calls of a PBX. Sending is paced against the call's start, so it does not drift; the
recording keeps every packet with its time of arrival, from which everything else is derived.
"""

from __future__ import annotations

import contextlib
import heapq
import random
import selectors
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Self

from eslbot.audio import g711
from eslbot.sim.audio import heard, silence, tone
from eslbot.sim.pbx.ports import Ports
from eslbot.sim.rtp import FRAME_SAMPLES, PTIME, RtpPacket

#: Hertz of what the caller says.
CALLER_TONE = 350.0

#: RFC 4733 payload type of our offer, the keys by their codes, frames of speech between two of them.
TELEPHONE_EVENT = 101
_EVENTS = "0123456789*#ABCD"
_REST = 3

#: Packets kept of a call: ten minutes.
PACKETS_KEPT = 30_000

#: Seconds of lateness from which on frames are left out instead of sent in a burst.
_SLIP = 0.200

#: What a caller says: a tone in hertz, L16 at 8,000 Hz in whole frames of 20 ms over and over, or nothing.
Caller = float | bytes | None

#: Linux's SO_TIMESTAMPNS (``asm-generic/socket.h``), which Python has no name for, and its struct timespec.
TIMESTAMP = 35
TIMESPEC = struct.Struct("@ll")

_LAWS = {kind: law for law, kind in g711.PAYLOAD_TYPES.items()}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A packet received ``at`` epoch seconds, by the kernel's clock where that tells."""

    at: float
    packet: RtpPacket


class Recording:
    """What a call received, in order of arrival; may be read while the call goes on.

    ``missed`` counts packets beyond what is kept.
    """

    def __init__(self) -> None:
        self.missed = 0
        self._arrivals: list[Arrival] = []

    def add(self, arrival: Arrival) -> None:
        """Keep a packet."""
        if len(self._arrivals) < PACKETS_KEPT:
            self._arrivals.append(arrival)
        else:
            self.missed += 1

    @property
    def arrivals(self) -> list[Arrival]:
        """All packets so far, telephone events and unknown payload types too."""
        return list(self._arrivals)

    def linear(self) -> bytes:
        """The audio as L16, packet after packet, without the pauses in which none came."""
        return b"".join(_linear(arrival.packet) for arrival in self.arrivals)

    def as_heard(self, buffer: float = 0.040) -> bytes:
        """The audio as L16 as a telephone with a playout buffer of ``buffer`` seconds plays it.

        Where a packet comes later than the buffer bridges, there is the silence the caller hears.
        """
        heard_so_far = bytearray()
        due: float | None = None  # when the loudspeaker runs dry
        for arrival in self.arrivals:
            linear = _linear(arrival.packet)
            if not linear:
                continue
            if due is None or arrival.at > due:
                if due is not None:
                    heard_so_far += silence(arrival.at + buffer - due)
                due = arrival.at + buffer
            heard_so_far += linear
            due += len(linear) / 2 / 8000
        return bytes(heard_so_far)

    def pauses(self, longest_usual: float = 0.030) -> list[tuple[float, float]]:
        """Where no packet came for more than ``longest_usual`` seconds: (epoch seconds, length)."""
        times = [arrival.at for arrival in self.arrivals]
        return [
            (earlier, later - earlier)
            for earlier, later in pairwise(times)
            if later - earlier > longest_usual
        ]

    def lost(self) -> int:
        """Sequence numbers that never came, over all sources (SSRC)."""
        numbers: dict[int, set[int]] = {}
        high: dict[int, int] = {}
        for arrival in self.arrivals:
            packet = arrival.packet
            last = high.get(packet.ssrc, packet.sequence)
            # To the full number nearest the last one (RFC 3550, appendix A.1, in short).
            full = last + ((packet.sequence - last + 0x8000) & 0xFFFF) - 0x8000
            numbers.setdefault(packet.ssrc, set()).add(full)
            high[packet.ssrc] = max(last, full)
        return sum(max(seen) - min(seen) + 1 - len(seen) for seen in numbers.values())

    def first_heard(self, frequency: float) -> float | None:
        """Epoch seconds of the first packet with this tone; None where there is none."""
        for arrival in self.arrivals:
            if heard(_linear(arrival.packet), frequency):
                return arrival.at
        return None

    def heard(self, frequency: float) -> float:
        """Seconds of this tone in all."""
        return heard(self.linear(), frequency)

    def digits(self) -> str:
        """The telephone events received (RFC 4733), in order."""
        seen: dict[tuple[int, int], str] = {}
        for arrival in self.arrivals:
            packet = arrival.packet
            if packet.payload_type == TELEPHONE_EVENT and packet.payload and packet.payload[0] < 16:
                seen.setdefault((packet.ssrc, packet.timestamp), _EVENTS[packet.payload[0]])
        return "".join(seen.values())


def _arrived(told: list[tuple[int, int, bytes]]) -> float:
    """When a datagram came, epoch seconds: the kernel's time stamp, or now."""
    for level, kind, data in told:
        if (level, kind) == (socket.SOL_SOCKET, TIMESTAMP) and len(data) == TIMESPEC.size:
            whole, nanoseconds = TIMESPEC.unpack(data)
            return float(whole + nanoseconds / 1e9)
    return time.time()


def _linear(packet: RtpPacket) -> bytes:
    law = _LAWS.get(packet.payload_type)
    return g711.decode(law, packet.payload) if law else b""


@lru_cache(maxsize=16)
def caller_frames(law: str, caller: Caller) -> tuple[bytes, ...]:
    """What the caller says, in payloads of 20 ms, to be repeated; of a tone one second.

    None is silence. Only whole hertz close the circle after a second without a jump.
    """
    match caller:
        case None:
            linear = silence(1.0)
        case bytes():
            linear = caller
        case frequency:
            linear = tone(round(frequency), 1.0)
    if not linear or len(linear) % (2 * FRAME_SAMPLES):
        raise ValueError(f"{len(linear)} bytes of L16 are not whole frames of 20 ms")
    encoded = g711.encode(law, linear)
    return tuple(encoded[at : at + FRAME_SAMPLES] for at in range(0, len(encoded), FRAME_SAMPLES))


class RtpSession:
    """The RTP of one call: a UDP port, a recording, and a sender once the answer is known.

    ``sent`` counts packets, ``left_out`` frames that were not sent because this machine was too late.
    """

    def __init__(self, endpoint: socket.socket, caller_tone: Caller) -> None:
        self.socket = endpoint
        if sys.platform == "linux":
            with contextlib.suppress(OSError):  # then our own clock has to do
                endpoint.setsockopt(socket.SOL_SOCKET, TIMESTAMP, 1)
        self.port: int = self.socket.getsockname()[1]
        self.recording = Recording()
        self.sent = self.left_out = 0
        self.caller_tone = caller_tone
        self._remote: tuple[str, int] | None = None
        self._payload_type = -1
        self._frames: tuple[bytes, ...] = ()
        self._ssrc = random.getrandbits(32)
        self._sequence = random.getrandbits(16)
        self._origin = random.getrandbits(32)
        self._started = 0.0
        self._frame = 0
        self._first = True
        self._digits: deque[tuple[int, int]] = deque()  # event code, frames
        self._event: tuple[int, int, int, int] | None = None  # code, frames, frames done, timestamp
        self._rest = 0  # frames of speech before the next key

    def begin(self, remote: tuple[str, int], payload_type: int, now: float) -> bool:
        """Send to ``remote`` from ``now`` (monotonic) on; False where the payload type is not G.711."""
        if payload_type not in _LAWS or not remote[1]:
            return False
        self._remote, self._payload_type = remote, payload_type
        self._frames = caller_frames(_LAWS[payload_type], self.caller_tone)
        self._started = now
        return True

    def send_dtmf(self, digits: str, duration_ms: int = 120) -> None:
        """Press keys (``0-9 * # A-D``), each for ``duration_ms``, with 60 ms of speech between two."""
        unknown = set(digits) - set(_EVENTS)
        if unknown:
            raise ValueError(f"no keys: {sorted(unknown)}")
        for digit in digits:
            self._digits.append((_EVENTS.index(digit), max(1, duration_ms // 20)))

    def receive(self) -> None:
        """Take what has come."""
        for _ in range(64):  # then the others get their turn
            try:
                datagram, told, _, _ = self.socket.recvmsg(2048, 64)
            except BlockingIOError:
                break
            except ConnectionRefusedError:
                continue  # ICMP: the switch has closed its port
            packet = RtpPacket.parse(datagram)
            if packet is not None:
                self.recording.add(Arrival(_arrived(told), packet))

    def send_frame(self, now: float) -> float:
        """Send what is due and return when the next frame is, on the monotonic clock."""
        late = now - (self._started + self._frame * PTIME)
        if late > _SLIP:
            self._frame += int(late / PTIME)
            self.left_out += int(late / PTIME)
        for packet in self._packets():
            self._transmit(packet)
        self._frame += 1
        return self._started + self._frame * PTIME

    def _packets(self) -> Iterable[RtpPacket]:
        timestamp = self._origin + self._frame * FRAME_SAMPLES
        if self._event is None and self._digits and not self._rest:
            code, frames = self._digits.popleft()
            self._event = (code, frames, 0, timestamp)
        if self._event is None:
            self._rest = max(0, self._rest - 1)
            yield self._packet(self._payload_type, timestamp, self._frames[self._frame % len(self._frames)])
            return
        code, frames, done, began = self._event
        done += 1
        last = done == frames
        # RFC 4733, section 2.3: event, end bit and volume (10: -10 dBm0), duration so far in samples.
        payload = bytes([code, (0x80 if last else 0) | 10]) + (done * FRAME_SAMPLES).to_bytes(2, "big")
        for number in range(3 if last else 1):  # the end is said three times, section 2.5.1.4
            yield self._packet(TELEPHONE_EVENT, began, payload, marker=done == 1 and not number)
        self._event = None if last else (code, frames, done, began)
        if last:
            self._rest = _REST

    def _packet(
        self, payload_type: int, timestamp: int, payload: bytes, *, marker: bool = False
    ) -> RtpPacket:
        marker, self._first = marker or self._first, False
        self._sequence += 1
        return RtpPacket(payload_type, self._sequence, timestamp, self._ssrc, payload, marker)

    def _transmit(self, packet: RtpPacket) -> None:
        assert self._remote is not None
        try:
            self.socket.sendto(packet.pack(), self._remote)
        except (BlockingIOError, ConnectionRefusedError):
            return  # a full buffer or a closed port loses a packet, as on any network
        self.sent += 1


class RtpEndpoint:
    """The thread of all calls' RTP."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._sessions: set[RtpSession] = set()
        self._due: list[tuple[float, int, RtpSession]] = []  # a heap
        self._todo: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="rtp", daemon=True)

    def start(self) -> Self:
        """Run."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close every port."""
        self._stopping = True
        self._poke()
        self._thread.join(5)

    def open(self, ports: Ports, caller_tone: Caller = CALLER_TONE) -> RtpSession:
        """A port that records from now on."""
        session = RtpSession(ports.rtp_socket(), caller_tone)
        self._later(lambda: self._add(session))
        return session

    def begin(self, session: RtpSession, remote: tuple[str, int], payload_type: int) -> None:
        """The call was answered: send the caller's speech."""
        self._later(lambda: self._begin(session, remote, payload_type))

    def close(self, session: RtpSession) -> None:
        """The call is over; its recording stays."""
        self._later(lambda: self._remove(session))

    def _later(self, action: Callable[[], None]) -> None:
        self._todo.append(action)
        self._poke()

    def _poke(self) -> None:
        try:
            self._wake.send(b".")
        except OSError:
            if not self._stopping:
                raise

    def _run(self) -> None:
        while not self._stopping:
            timeout = max(0.0, self._due[0][0] - time.monotonic()) if self._due else None
            for ready, _ in self._selector.select(timeout):
                if ready.data is None:
                    self._woken.recv(4096)
                elif ready.data in self._sessions:
                    ready.data.receive()
            while self._todo:
                self._todo.popleft()()
            self._send()
        for session in list(self._sessions):
            self._remove(session)
        self._selector.close()
        self._wake.close()
        self._woken.close()

    def _send(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, session = heapq.heappop(self._due)
            if session in self._sessions:
                heapq.heappush(self._due, (session.send_frame(now), id(session), session))

    def _add(self, session: RtpSession) -> None:
        self._sessions.add(session)
        self._selector.register(session.socket, selectors.EVENT_READ, session)

    def _begin(self, session: RtpSession, remote: tuple[str, int], payload_type: int) -> None:
        now = time.monotonic()
        if session in self._sessions and session.begin(remote, payload_type, now):
            heapq.heappush(self._due, (now, id(session), session))

    def _remove(self, session: RtpSession) -> None:
        if session in self._sessions:
            session.receive()  # what came last
            self._sessions.discard(session)
            self._selector.unregister(session.socket)
            session.socket.close()
