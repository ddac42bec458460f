"""The voice of a call: its RTP port, what it writes and reads on the 20 ms clock (RFC 3550, 4733).

A tick writes one frame: of what is played, or silence where the idle channel sends it; displaced files are
mixed in, and it is encoded last (``switch_core_session_write_frame``). A tick reads what has come, as
FreeSWITCH does with ``rtp-autofix-timing`` off: packets longer than 20 ms are cut into frames; where nothing
has come, the frame is 0xFF all over; of packets that are shorter only one is taken, so that the rest comes
later and later, until there is a jitter buffer.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable
from ipaddress import ip_address

from eslbot.audio import g711
from eslbot.sim.rtp import FRAME_SAMPLES, PTIME, RtpPacket

from .audio import SILENCE, Sound
from .displace import REPLACED, Displace
from .sip_message import Offer

#: The keys of RFC 4733, table 3, by event number.
KEYS = "0123456789*#ABCD"

#: What FreeSWITCH hands on where no packet has come in a tick.
NO_PACKET = REPLACED
FRAME = len(NO_PACKET)
#: Packets that wait at most; a kernel's socket buffer holds some more.
MAX_WAITING = 250

#: A clock this many ticks late starts afresh instead of sending a burst.
MAX_LATE = 5


class Clock:
    """One 20 ms clock for all calls, against absolute deadlines, so that it does not drift."""

    def __init__(self) -> None:
        self.sessions: set[MediaSession] = set()
        #: Ticks left out because the machine was too slow.
        self.skipped = 0

    async def run(self) -> None:
        """Tick until cancelled."""
        loop = asyncio.get_running_loop()
        deadline = loop.time()
        while True:
            deadline += PTIME
            late = loop.time() - deadline
            if late > MAX_LATE * PTIME:
                self.skipped += int(late / PTIME)
                deadline = loop.time()
            await asyncio.sleep(max(0.0, deadline - loop.time()))
            for session in list(self.sessions):
                session.tick()


class RtpPorts:
    """Hands out even UDP ports of a range; the odd one above each is left to RTCP, which the stand-in does
    not speak."""

    def __init__(self, first: int, last: int) -> None:
        self._ports = range(first + first % 2, last, 2)
        if not self._ports:
            raise ValueError(f"no even RTP port with an odd one above it in {first}-{last}")
        self._next = secrets.randbelow(len(self._ports))

    def open(self, ip: str, port: int | None = None) -> socket.socket:
        """A bound, non-blocking socket. Raises OSError where ``port``, or all of the range, are taken."""
        if port is not None:
            return self._bound(ip, port)
        for _ in range(len(self._ports)):
            port = self._ports[self._next]
            self._next = (self._next + 1) % len(self._ports)
            with contextlib.suppress(OSError):
                return self._bound(ip, port)
        raise OSError("no RTP port is free")

    @staticmethod
    def _bound(ip: str, port: int) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind((ip, port))
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        return sock


class MediaSession:
    """One call's RTP. ``heard`` gets the caller's frames, L16 at 8,000 Hz; ``key`` a key and its samples."""

    def __init__(
        self,
        clock: Clock,
        sock: socket.socket,
        offer: Offer,
        heard: Callable[[bytes], None],
        key: Callable[[str, int], None],
        ssrc: int | None = None,
    ) -> None:
        self.port: int = sock.getsockname()[1]
        self.offer = offer
        self.remote = (offer.address, offer.port)
        #: Whether the idle channel sends silence (``send_silence_when_idle``).
        self.idle_silence = False
        #: Whether the first packets may move ours to where they come from (RFC 4961).
        self.auto_adjust = True
        #: A hold of FreeSWITCH's own: nothing goes, and what comes is dropped.
        self.paused = False
        self.received = self.sent = self.lost = 0
        self._clock, self._sock, self._heard, self._key = clock, sock, heard, key
        self._latched = self._sending = False
        self._playing: list[tuple[Sound, asyncio.Future[None]]] = []
        self._displaces: list[Displace] = []
        #: Packets that have come, as L16; and of them what is less than a frame.
        self._waiting: deque[bytes] = deque()
        self._rest = b""
        #: Bytes that a jitter buffer keeps back (0: none), and whether it has begun to let go.
        self._kept_back, self._filled = 0, False
        self._sequence, self._timestamp = secrets.randbelow(1 << 16), secrets.randbelow(1 << 32)
        self.ssrc = secrets.randbelow(1 << 32) if ssrc is None else ssrc
        self._gap = True
        self._last_sequence: tuple[int, int] | None = None  # source, number
        self._event: tuple[int, int, int] | None = None  # RTP timestamp, event, duration: a key not yet told
        #: RTP timestamp of the last key that was reported.
        self._last_key_at: int | None = None
        self._timeout = math.inf
        self._timed_out: Callable[[], None] = lambda: None
        self._last_packet = 0.0
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    @property
    def playing(self) -> bool:
        """Whether a sound is on."""
        return bool(self._playing)

    def start_sending(self) -> None:
        """From now on the clock may send: the call is answered, or has early media."""
        self._sending = True
        self._clock.sessions.add(self)

    def watch(self, timeout: float, timed_out: Callable[[], None]) -> None:
        """Call ``timed_out`` once, when the PBX has sent nothing at all for ``timeout`` seconds."""
        self._timeout, self._timed_out = timeout, timed_out
        self._last_packet = time.monotonic()

    def update(self, offer: Offer) -> None:
        """A new offer of the PBX: where to send may have changed, and it lives."""
        self._last_packet = time.monotonic()
        self.offer, self.remote, self._latched = offer, (offer.address, offer.port), False

    def play(self, sound: Sound) -> asyncio.Future[None]:
        """Play ``sound``, holding what is playing until it ends; the result comes with its last frame."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._playing.append((sound, done))
        return done

    def stop_playing(self, done: asyncio.Future[None]) -> None:
        """Stop the sound whose :meth:`play` returned ``done``."""
        for sound, known in list(self._playing):
            if known is done:
                self._playing.remove((sound, known))

    def displace(self, path: str, flags: str, limit: int) -> bool:
        """Displace a file onto what is written; whether it is one, and not there already."""
        if any(there.path == path for there in self._displaces):
            return False
        try:
            displace = Displace(path, flags, limit)
        except OSError:
            return False
        self._displaces.insert(0 if "f" in flags else len(self._displaces), displace)
        self.flush()
        return True

    def stop_displace(self, path: str) -> bool:
        """Take a file away; whether it was there."""
        found = [displace for displace in self._displaces if displace.path == path]
        for displace in found:
            self._end_displace(displace)
        return bool(found)

    def flush(self) -> None:
        """Drop what has come and was not read, as each start of a media bug does."""
        self._waiting.clear()
        self._rest = b""

    def buffer(self, milliseconds: int) -> None:
        """Keep a jitter buffer of so much; 0 is none."""
        self._kept_back, self._filled = 16 * milliseconds, False

    def tick(self) -> None:
        """One 20 ms step of the clock."""
        if time.monotonic() - self._last_packet > self._timeout:
            self._timeout = math.inf
            self._timed_out()
            return
        self._read()
        self._timestamp += FRAME_SAMPLES
        payload = self._write()
        silenced = self.paused or self.offer.deaf or self.offer.direction in ("sendonly", "inactive")
        if payload is None or silenced:
            self._gap = True  # what is displaced has gone on: a hold costs the file nothing (measured)
            return
        self._sequence += 1
        kind = self.offer.payload_type
        packet = RtpPacket(kind, self._sequence, self._timestamp, self.ssrc, payload, marker=self._gap)
        self._gap = False
        try:
            self._sock.sendto(packet.pack(), self.remote)
        except OSError:
            self.lost += 1  # a full buffer, nobody there, no route: the network would have lost it
        else:
            self.sent += 1

    def close(self) -> None:
        """Give the port back and end whatever is playing."""
        self._clock.sessions.discard(self)
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()
        for _, done in self._playing:
            if not done.done():
                done.set_result(None)
        self._playing.clear()
        for displace in list(self._displaces):
            self._end_displace(displace)

    def _write(self) -> bytes | None:
        """The next packet's payload; None where nothing is written, as in a hold of FreeSWITCH's own."""
        if self.paused or (frame := self._next_frame()) is None:
            return None
        for displace in list(self._displaces):
            displaced = displace.write(frame)
            if displaced is None:
                self._end_displace(displace)
            else:
                frame = displaced
        law = self.offer.codec
        return g711.SILENCE[law] * FRAME_SAMPLES if frame == SILENCE else g711.encode(law, frame)

    def _end_displace(self, displace: Displace) -> None:
        self._displaces.remove(displace)
        displace.close()

    def _next_frame(self) -> bytes | None:
        while self._playing:
            sound, done = self._playing[-1]
            frame = sound.frame()
            if frame is not None:
                return frame
            self._playing.pop()
            if not done.done():
                done.set_result(None)
        return SILENCE if self.idle_silence else None

    def _read(self) -> None:
        """Hand on what a tick reads."""
        if self.paused or self.offer.deaf:
            return
        frames = self._buffered() if self._kept_back else self._taken()
        for frame in frames:
            whole = all(displace.mixes for displace in self._displaces)
            self._heard(frame if whole else REPLACED)

    def _taken(self) -> list[bytes]:
        """Without a jitter buffer: one packet, and all where they are not short (``rtp-autoflush``)."""
        self._rest += self._waiting.popleft() if self._waiting else NO_PACKET
        while self._waiting and len(self._waiting[0]) >= FRAME:
            self._rest += self._waiting.popleft()
        frames = [self._rest[n : n + FRAME] for n in range(0, len(self._rest) - FRAME + 1, FRAME)]
        self._rest = self._rest[len(frames) * FRAME :]
        return frames

    def _buffered(self) -> list[bytes]:
        """With one: a frame a tick, once it is filled."""
        self._rest += b"".join(self._waiting)
        self._waiting.clear()
        self._filled = self._filled or len(self._rest) >= self._kept_back
        if not self._filled or len(self._rest) < FRAME:
            return [NO_PACKET]
        frame, self._rest = self._rest[:FRAME], self._rest[FRAME:]
        return [frame]

    def _readable(self) -> None:
        for _ in range(16):  # a flood on one call must not starve the others
            try:
                data, source = self._sock.recvfrom(2048)
            except BlockingIOError:
                return
            except ConnectionRefusedError:
                continue  # ICMP for something we sent; says nothing about what we receive
            self._last_packet = time.monotonic()
            packet = RtpPacket.parse(data)
            if packet is not None:
                self._receive(packet, source)

    def _receive(self, packet: RtpPacket, source: tuple[str, int]) -> None:
        if not self._latched:
            # Symmetric RTP (RFC 4961): the PBX hears where it speaks, whatever its SDP says.
            self._latched = True
            if self.auto_adjust and ip_address(source[0]).version == 4:
                self.remote = source
        self.received += 1
        if self.paused or self.offer.deaf:
            return
        if packet.payload_type == self.offer.events:
            self._receive_event(packet)
            return
        if packet.payload_type != self.offer.payload_type or not packet.payload or self._is_old(packet):
            return
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append(g711.decode(self.offer.codec, packet.payload))

    def _is_old(self, packet: RtpPacket) -> bool:
        """Whether the packet is a duplicate or overtaken; there is no jitter buffer to put it in order."""
        previous, self._last_sequence = self._last_sequence, (packet.ssrc, packet.sequence)
        if previous is None or previous[0] != packet.ssrc:
            return False
        ahead = (packet.sequence - previous[1]) & 0xFFFF
        if ahead == 0 or ahead > 0xFF00:
            self._last_sequence = previous
            return True
        return False  # in order, or so far off that the sender must have started anew

    def _receive_event(self, packet: RtpPacket) -> None:
        """RFC 4733, section 2.3: event, end bit and volume, duration; one key is many packets of one
        timestamp."""
        if len(packet.payload) < 4 or packet.payload[0] >= len(KEYS):
            return
        event, end = packet.payload[0], bool(packet.payload[1] & 0x80)
        duration = int.from_bytes(packet.payload[2:4], "big")
        if self._event is not None and self._event[0] != packet.timestamp:
            self._tell_key()  # every end packet of the key before was lost
        if packet.timestamp == self._last_key_at:
            return
        self._event = (packet.timestamp, event, duration)
        if end:
            self._tell_key()

    def _tell_key(self) -> None:
        if self._event is not None:
            self._last_key_at, event, duration = self._event
            self._event = None
            self._key(KEYS[event], duration)
