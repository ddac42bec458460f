"""The callers' RTP: one process for all of them, which sends on time and notes when the kernel got a packet.

:class:`Peer` is the hand of whoever measures; behind it a process of its own polls all sockets. A packet's
time of arrival is the kernel's (SO_TIMESTAMPNS), so that a busy machine makes no packet late that was not; a
sent packet's is when it was handed to the kernel. Nothing is parsed or looked at before it is asked for.
"""

from __future__ import annotations

import contextlib
import heapq
import select
import socket
import struct
import time
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.speech.beside import Beside
from benchmarks.speech.hearing import Arrival
from benchmarks.speech.marks import CALLER
from eslbot.sim.rtp import RtpPacket

#: Socket option and kind of a control message (asm-generic/socket.h), and its content: two 64-bit numbers.
SO_TIMESTAMPNS = 35
_STAMP = struct.Struct("qq")
_ANCILLARY = socket.CMSG_SPACE(_STAMP.size)
_HEADER = struct.Struct("!BBHII")
#: Bytes of a socket's receive buffer; what two seconds of a busy machine bring.
RECEIVE_BUFFER = 1 << 20

Sent = list[tuple[float, int, int]]


class Voice:
    """One caller's RTP port, as :class:`tests.e2e.interop.pbx.Call` wants it."""

    def __init__(self, peer: Peer, number: int, port: int, ptime: int) -> None:
        self._peer, self.number, self.port, self.ptime = peer, number, port, ptime

    def say(self, remote: tuple[str, int] | None = None) -> None:
        """Speak to ``remote`` from now on, or go on."""
        self._peer.ask("say", self.number, remote)

    def pause(self) -> None:
        """Send nothing."""
        self._peer.ask("pause", self.number)

    def take(self) -> tuple[list[Arrival], Sent]:
        """What came and what was sent since the last time: (when, position, samples)."""
        rows, sent = self._peer.ask("take", self.number)
        arrivals = []
        for stamp, data in rows:
            packet = RtpPacket.parse(data)
            if packet is not None:
                seconds, nanoseconds = _STAMP.unpack(stamp)
                arrivals.append(Arrival(seconds + nanoseconds / 1e9, packet))
        return arrivals, sent

    def close(self) -> None:
        """Give the port back."""
        self._peer.ask("close", self.number)


class Peer(Beside):
    """The process; a context manager."""

    def __init__(self) -> None:
        super().__init__(_run, "callers")

    def open(self, ptime: int = 20) -> Voice:
        """One more caller, who sends packets of ``ptime`` milliseconds when told to speak."""
        number, port = self.ask("open", ptime)
        return Voice(self, number, port, ptime)


class _Port:
    def __init__(self, ptime: int, position: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.setblocking(False)
        self.ptime, self.position = ptime, position
        self.remote: tuple[str, int] | None = None
        self.turn = 0  # of speaking; what is due of an earlier one is void
        self.sequence = self.timestamp = 0
        self.marker = True
        self.rows: list[tuple[bytes, bytes]] = []
        self.sent: Sent = []

    def send(self) -> None:
        samples = 8 * self.ptime
        assert self.remote is not None
        head = _HEADER.pack(
            0x80,
            0x80 if self.marker else 0,
            self.sequence & 0xFFFF,
            self.timestamp & 0xFFFFFFFF,
            self.port_id,
        )
        payload = CALLER.codes(self.position, samples)
        self.sent.append((time.time(), self.position, samples))
        with contextlib.suppress(OSError):  # ICMP of a packet before: nobody has that port
            self.socket.sendto(head + payload, self.remote)
        self.marker = False
        self.sequence += 1
        self.timestamp += samples
        self.position += samples

    @property
    def port_id(self) -> int:
        """The SSRC."""
        return 0x51000000 | self.socket.fileno()

    def receive(self) -> None:
        rows = self.rows
        while True:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(2048, _ANCILLARY)
            except BlockingIOError:
                return
            except OSError:  # ICMP, told here
                continue
            rows.append((ancillary[0][2][: _STAMP.size], data))


class _Callers:
    def __init__(self, poll: select.epoll) -> None:
        self._poll = poll
        self.ports: dict[int, _Port] = {}
        self.due: list[tuple[float, int, int]] = []

    def command(self, name: str, *args: Any) -> object:
        if name == "open":
            number = 1 + max(self.ports, default=0)
            # Each caller says another part of the marks; a quarter of a minute lies between two of them.
            port = self.ports[number] = _Port(args[0], number * 120_000 + 7)
            self._poll.register(port.socket, select.EPOLLIN)
            return number, port.socket.getsockname()[1]
        port = self.ports[args[0]]
        if name == "say":
            port.remote = args[1] or port.remote
            port.marker = True
            port.turn += 1
            heapq.heappush(self.due, (time.monotonic(), args[0], port.turn))
        elif name == "pause":
            port.turn += 1
        elif name == "take":
            taken = port.rows, port.sent
            port.rows, port.sent = [], []
            return taken
        elif name == "close":
            self._poll.unregister(port.socket)
            port.socket.close()
            port.turn = -1
            del self.ports[args[0]]
        return None

    def send_due(self) -> float:
        """Send what is due; seconds until the next is."""
        while self.due:
            at, number, turn = self.due[0]
            port = self.ports.get(number)
            if port is None or port.turn != turn:
                heapq.heappop(self.due)
            elif (left := at - time.monotonic()) > 0:
                return left
            else:
                port.send()
                heapq.heapreplace(self.due, (at + port.ptime / 1000, number, turn))
        return 1.0


def _run(connection: Connection) -> None:
    poll = select.epoll()
    poll.register(connection, select.EPOLLIN)
    callers = _Callers(poll)
    while True:
        wait = callers.send_due()
        ports = {port.socket.fileno(): port for port in callers.ports.values()}
        for descriptor, _ in poll.poll(wait):
            if descriptor == connection.fileno():
                try:
                    connection.send(callers.command(*connection.recv()))
                except (EOFError, OSError):
                    return
            elif descriptor in ports:
                ports[descriptor].receive()
