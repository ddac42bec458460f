"""The RTP of a load's callers: one UDP socket, in a process of its own, counts what comes and what does not.

All calls of a load name one port, as they do with SIPp; whose a packet is, tells the address it comes from,
which is the one of the call's SDP answer. What is counted of each call: packets sent and received, sequence
numbers that never came, the longest time without a packet. Nothing is recorded: for what a caller hears there
is :mod:`eslbot.sim.pbx.media`.

:func:`serve` is the process; :class:`Voices` starts it and speaks to it in lines of JSON.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
import os
import random
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Self

from eslbot.audio import g711
from eslbot.sim.pbx.media import CALLER_TONE, TIMESPEC, TIMESTAMP, caller_frames
from eslbot.sim.pbx.ports import Ports
from eslbot.sim.rtp import FRAME_SAMPLES, PTIME

_HEADER = struct.Struct("!BBHII")

#: Linux's SO_RXQ_OVFL (``asm-generic/socket.h``): packets that found the socket's buffer full.
_OVERFLOW = 40
#: SO_RCVBUFFORCE, for who may; else the system's limit has to do.
_BUFFER_FORCE = 33
_BUFFER = 8 << 20

#: Seconds of lateness from which on frames are left out instead of sent in a burst.
_SLIP = 0.200
#: Seconds for which packets of an address wait to be claimed by a call.
_UNCLAIMED = 1.0
#: Send times kept of a call: those behind the BYE do not count as sent.
_LAST_SENT = 16
#: Seconds between two looks at what came and what is due.
_TICK = 0.004
#: Packets taken before others get their turn.
_AT_A_TIME = 256

#: Seconds for the process to start, and to answer.
START_LIMIT, ANSWER_LIMIT = 10.0, 20.0

_LAWS = {kind: law for law, kind in g711.PAYLOAD_TYPES.items()}


class Flow:
    """What came from one address. ``lost`` are numbers that never came, ``longest`` seconds between two.

    ``claimed``: it is a call's; ``over``: of one that has ended.
    """

    __slots__ = ("at", "claimed", "longest", "lost", "over", "received", "repeated", "sequence", "ssrc")

    def __init__(self) -> None:
        self.claimed = self.over = False
        self.received = self.repeated = self.lost = 0
        self.longest = 0.0
        self.at = 0.0
        self.sequence = -1
        self.ssrc = -1

    def take(self, sequence: int, ssrc: int, at: float) -> None:
        """A packet came, ``at`` epoch seconds."""
        if self.received:
            self.longest = max(self.longest, at - self.at)
        self.at = at
        if ssrc != self.ssrc:  # another source: its numbers begin anywhere
            self.ssrc, self.sequence = ssrc, sequence
            self.received += 1
            return
        ahead = (sequence - self.sequence) & 0xFFFF
        if ahead == 0:
            self.repeated += 1
            return
        self.received += 1
        if ahead < 0x8000:
            self.lost += ahead - 1
            self.sequence = sequence
        else:  # it was overtaken, and has been counted as lost
            self.lost = max(0, self.lost - 1)


@dataclass(frozen=True)
class Voice:
    """The RTP of one call.

    Attributes:
        sent: packets; ``left_out``: those not sent because this machine was too late.
        latest: the most seconds by which one was late.
        last_sent: epoch seconds of the last few.
        received, lost, repeated: packets.
        longest: the longest time between two, seconds.
    """

    sent: int
    left_out: int
    latest: float
    last_sent: list[float]
    received: int
    lost: int
    repeated: int
    longest: float

    def sent_before(self, at: float | None) -> int:
        """Packets sent before ``at`` epoch seconds: the switch counts none behind the BYE."""
        return self.sent - sum(sent > at for sent in self.last_sent) if at is not None else self.sent


@dataclass(frozen=True)
class VoicesReport:
    """Of all calls. ``strays`` are packets of addresses that no call was told; ``dropped`` came to us and
    found our buffer full: they are in the calls' ``lost``, and are our own fault."""

    voices: dict[str, Voice]
    strays: int
    dropped: int


class _Speaker:
    """One call in the process."""

    def __init__(self, remote: tuple[str, int], kind: int, flow: Flow) -> None:
        self.remote, self.kind, self.flow = remote, kind, flow
        self.frames = caller_frames(_LAWS[kind], CALLER_TONE)
        self.ssrc, self.origin = random.getrandbits(32), random.getrandbits(32)
        self.sequence = random.getrandbits(16)
        self.started = time.monotonic()
        self.frame = self.sent = self.left_out = 0
        self.latest = 0.0
        self.last_sent: deque[float] = deque(maxlen=_LAST_SENT)
        self.speaking = True

    def send(self, endpoint: socket.socket, now: float) -> float:
        """Send what is due; returns when the next is, on the monotonic clock."""
        late = now - (self.started + self.frame * PTIME)
        self.latest = max(self.latest, late)
        if late > _SLIP:
            missed = int(late / PTIME)
            self.frame += missed
            self.left_out += missed
        self.sequence = (self.sequence + 1) & 0xFFFF
        timestamp = (self.origin + self.frame * FRAME_SAMPLES) & 0xFFFFFFFF
        kind = self.kind | (0 if self.sent else 0x80)
        header = _HEADER.pack(0x80, kind, self.sequence, timestamp, self.ssrc)
        # A full buffer or a closed port loses a packet, as on any network.
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            endpoint.sendto(header + self.frames[self.frame % len(self.frames)], self.remote)
            self.sent += 1
            self.last_sent.append(time.time())
        self.frame += 1
        return self.started + self.frame * PTIME

    def report(self) -> Voice:
        """So far."""
        flow = self.flow
        return Voice(
            self.sent,
            self.left_out,
            self.latest,
            list(self.last_sent),
            flow.received,
            flow.lost,
            flow.repeated,
            flow.longest,
        )


class _Process:
    """All calls of the process."""

    def __init__(self, ip: str) -> None:
        self._socket = Ports(ip).rtp_socket()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _BUFFER_FORCE, _BUFFER)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.setsockopt(socket.SOL_SOCKET, TIMESTAMP, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, _OVERFLOW, 1)
        self._flows: dict[tuple[str, int], Flow] = {}
        self._speakers: dict[str, _Speaker] = {}
        self._due: list[tuple[float, int, _Speaker]] = []  # a heap
        self._order = itertools.count()
        self._strays = self._dropped = 0
        self._input = bytearray()
        self._buffer = bytearray(2048)

    def run(self) -> None:
        """Serve until standard input ends."""
        _tell({"port": self._socket.getsockname()[1]})
        commands = sys.stdin.fileno()
        while True:
            # Not awake for each packet: its time is the kernel's, and waking costs more than taking it.
            ready, _, _ = select.select([commands], [], [], _TICK if self._speakers else None)
            while self._receive():
                pass  # before the commands: what came before them belongs to the time before them
            if ready and not self._read(commands):
                return
            self._send()

    def _receive(self) -> bool:
        """Take what has come, but not for ever; whether there may be more."""
        buffer, flows = [self._buffer], self._flows
        for _ in range(_AT_A_TIME):
            try:
                size, told, _, source = self._socket.recvmsg_into(buffer, 64)
            except BlockingIOError:
                return False
            except ConnectionRefusedError:
                continue  # ICMP: the switch has closed a port
            if size < _HEADER.size or self._buffer[0] >> 6 != 2:
                continue
            at = 0.0
            for level, kind, data in told:
                if level != socket.SOL_SOCKET:
                    continue
                if kind == TIMESTAMP:
                    whole, nanoseconds = TIMESPEC.unpack(data)
                    at = whole + nanoseconds / 1e9
                elif kind == _OVERFLOW:
                    self._dropped = int.from_bytes(data[:4], sys.byteorder)
            _, _, sequence, _, ssrc = _HEADER.unpack_from(self._buffer)
            flow = flows.get(source)
            if flow is None or (flow.over and ssrc != flow.ssrc):  # the switch has given the port to another
                flow = flows[source] = Flow()
            flow.take(sequence, ssrc, at or time.time())
        return True

    def _send(self) -> None:
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            _, _, speaker = heapq.heappop(self._due)
            if speaker.speaking:
                again = speaker.send(self._socket, now)
                heapq.heappush(self._due, (again, next(self._order), speaker))

    def _read(self, commands: int) -> bool:
        data = os.read(commands, 1 << 16)
        *lines, rest = (bytes(self._input) + data).split(b"\n")
        self._input[:] = rest
        for line in lines:
            self._do(json.loads(line))
        return bool(data)

    def _do(self, command: dict[str, Any]) -> None:
        match command:
            case {"begin": str(key), "ip": str(ip), "port": int(port), "type": int(kind)}:
                self._begin(key, (ip, port), kind)
            case {"end": str(key)}:
                if key in self._speakers:
                    self._speakers[key].speaking = False
                    self._speakers[key].flow.over = True
            case {"report": list(keys)}:
                self._report(keys)
            case {"forget": list(keys)}:
                for key in keys:
                    self._speakers.pop(key, None)

    def _begin(self, key: str, remote: tuple[str, int], kind: int) -> None:
        flow = self._flows.get(remote)
        # Its first packets may be faster than the news of its answer; those of an older call are not its.
        if flow is None or flow.claimed or time.time() - flow.at > _UNCLAIMED:
            flow = self._flows[remote] = Flow()
        flow.claimed = True
        speaker = self._speakers[key] = _Speaker(remote, kind, flow)
        heapq.heappush(self._due, (speaker.started, next(self._order), speaker))

    def _report(self, keys: list[str]) -> None:
        for flow in self._flows.values():
            if not flow.claimed:
                self._strays += flow.received
                flow.received = 0
        told = {key: asdict(self._speakers[key].report()) for key in keys if key in self._speakers}
        _tell({"voices": told, "strays": self._strays, "dropped": self._dropped})


def serve() -> None:
    """The process: its argument is the callers' address, standard input commands, standard output tells."""
    # FreeSWITCH's threads have real-time priority; on one machine with it, who has not comes second.
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(2))
    with contextlib.suppress(KeyboardInterrupt):
        _Process(sys.argv[1]).run()


def _tell(fields: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


class VoicesError(RuntimeError):
    """The process did not start, or does not answer."""


class Voices:
    """The process, from outside; a context manager. ``port`` is what every call's offer has to name.

    Args:
        ip: the callers' address.
    """

    def __init__(self, ip: str = "127.0.0.1") -> None:
        self.ip, self.port = ip, 0
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, while it runs."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()", self.ip],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self.port = int(self._answer(START_LIMIT)["port"])
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()  # which ends it
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        process.stdout.close()

    def begin(self, key: str, remote: tuple[str, int], payload_type: int) -> None:
        """A call was answered: its caller speaks from now on, or is silent where the answer is not G.711."""
        if payload_type in _LAWS and remote[1]:
            self._command({"begin": key, "ip": remote[0], "port": remote[1], "type": payload_type})

    def end(self, key: str) -> None:
        """Its caller speaks no more; what still comes is counted."""
        self._command({"end": key})

    def forget(self, keys: Iterable[str]) -> None:
        """These calls are over, and nobody will ask again."""
        self._command({"forget": list(keys)})

    def report(self, keys: Iterable[str]) -> VoicesReport:
        """What is known of these calls by now; those that were never answered are left out.

        Raises:
            VoicesError: the process is gone, or does not answer.
        """
        with self._asking:
            self._command({"report": list(keys)})
            told = self._answer(ANSWER_LIMIT)
        voices = {key: Voice(**voice) for key, voice in told["voices"].items()}
        return VoicesReport(voices, told["strays"], told["dropped"])

    def _command(self, command: dict[str, Any]) -> None:
        with self._lock:
            process = self._process
            if process is None or process.stdin is None:
                return  # the calls of a PBX that stops
            # Where it is gone, the calls have to go on to their end; the next report says so.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(command).encode() + b"\n")
                process.stdin.flush()

    def _answer(self, limit: float) -> dict[str, Any]:
        process = self._process
        if process is None or process.stdout is None:
            raise VoicesError("the callers' RTP is not started")
        ready, _, _ = select.select([process.stdout], [], [], limit)
        line = process.stdout.readline() if ready else b""
        if not line:
            raise VoicesError(f"the callers' RTP does not answer: exit code {process.poll()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
