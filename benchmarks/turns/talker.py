"""A caller's end of the RTP, who speaks when told to; what goes and what comes is kept with its time."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.speech.beside import PRIORITY
from eslbot.audio import g711
from eslbot.audio.levels import audible
from eslbot.sim.rtp import FRAME_SAMPLES, PTIME, RtpPacket

#: Linux's SO_TIMESTAMPNS (``asm-generic/socket.h``), and its struct timespec.
TIMESTAMP, TIMESPEC = 35, struct.Struct("@ll")
SILENCE = bytes(2 * FRAME_SAMPLES)
#: Seconds by which a packet may have been sent late for a turn to count.
LATE = 0.005


@dataclass(frozen=True, slots=True)
class Packet:
    """One of either leg: ``at`` epoch seconds, whether it can be heard; ``late``: sent so much too late."""

    at: float
    loud: bool
    late: float = 0.0


class Talker:
    """One RTP port, as :class:`tests.e2e.interop.pbx.Call` wants its voice; silence where nothing is said."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setsockopt(socket.SOL_SOCKET, TIMESTAMP, 1)
        self.port: int = self._socket.getsockname()[1]
        self.sent: list[Packet] = []
        self.came: list[Packet] = []
        self._remote: tuple[str, int] | None = None
        self._frames: deque[bytes] = deque()
        self._said = threading.Condition()
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def say(self, remote: tuple[str, int] | None = None) -> None:
        """Send to ``remote`` from now on."""
        self._remote = remote or self._remote
        if not self._threads:
            self._threads = [threading.Thread(target=job, daemon=True) for job in (self._send, self._receive)]
            for thread in self._threads:
                thread.start()

    def speak(self, frames: Iterable[bytes]) -> None:
        """Say these frames, L16, behind what is being said; waits until the last has gone."""
        with self._said:
            self._frames.extend(frames)
            assert self._said.wait_for(lambda: not self._frames or self._closed.is_set(), 60)

    def begin(self, frames: Iterable[bytes]) -> None:
        """The same without waiting."""
        with self._said:
            self._frames.extend(frames)

    def close(self) -> None:
        """Stop, and give the port back."""
        self._closed.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _send(self) -> None:
        assert self._remote is not None
        _first_of_all()
        due, sequence = time.monotonic(), 0
        while not self._closed.is_set():
            with self._said:
                frame = self._frames.popleft() if self._frames else SILENCE
            packet = RtpPacket(0, sequence & 0xFFFF, sequence * FRAME_SAMPLES, 7, g711.encode("PCMU", frame))
            late = time.monotonic() - due
            with contextlib.suppress(OSError):  # ICMP of one before
                self._socket.sendto(packet.pack(), self._remote)
            self.sent.append(Packet(time.time(), audible(frame), late))
            with self._said:
                if not self._frames:
                    self._said.notify_all()
            sequence += 1
            # Never two at one time: FreeSWITCH keeps what comes in a burst, and is late by that from then on.
            due = max(due + PTIME, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    def _receive(self) -> None:
        _first_of_all()
        self._socket.settimeout(0.1)
        while not self._closed.is_set():
            try:
                data, ancillary, _, _ = self._socket.recvmsg(2048, socket.CMSG_SPACE(TIMESPEC.size))
            except OSError:  # the time-out
                continue
            packet = RtpPacket.parse(data)
            if packet is not None and packet.payload_type == 0:
                seconds, nanoseconds = TIMESPEC.unpack(ancillary[0][2][: TIMESPEC.size])
                loud = audible(g711.decode("PCMU", packet.payload))
                self.came.append(Packet(seconds + nanoseconds / 1e9, loud))


def _first_of_all() -> None:
    """This thread before all others, where it may: it is the measure, and must not be what is late."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), PRIORITY)
