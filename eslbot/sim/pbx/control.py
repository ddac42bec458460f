"""Telling a running SIPp to hang up or to hold: the other half of its third-party call control (3PCC).

SIPp connects here (``-3pcc``); every call says by ``<sendCmd>`` that it was answered, and what happens then,
and waits in ``<recvCmd>``. A command that names its Call-ID makes that call, and only that one, send BYE or
a re-INVITE. Commands end with the byte 0x1b. Measured: reference/freeswitch-facts.md, section 7.
"""

from __future__ import annotations

import contextlib
import heapq
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

_END = b"\x1b"

#: More than this without an end is not SIPp.
_MAX_COMMAND = 65_536


#: CSeq of the first command: INVITE has 1, the re-INVITE behind the ACK (``refresh.xml``) 2.
_FIRST_NUMBER = 3

#: What a call tells of beside its answer: a re-INVITE of the switch's, and the ACK to our answer; a re-INVITE
#: of our own, by its direction, once it is through.
OFFERED, ACKNOWLEDGED = "offered", "acknowledged"
#: Seconds for the ACK of a re-INVITE of the switch's, behind which a BYE may follow; and between two looks.
OFFER_DUE, AGAIN = 1.0, 0.05
DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")


@dataclass(frozen=True, slots=True)
class Answered:
    """A call that SIPp reports as answered: where to send its RTP, and in which payload type.

    The port is 0 where the answer had no audio that we understand. The same of an offer of the switch's.
    """

    key: str
    call_id: str
    media_ip: str
    media_port: int
    payload_type: int


class CallControl:
    """The server that SIPp processes connect to; one thread for all of them.

    Args:
        on_answer: called in that thread when a call was answered.
        on_end: called with the key of a call that was up, just before it is told to send BYE, or when it was
            ended in any other way; from any thread.
        on_event: called in that thread with what else such a call tells: ``offered`` with the address in
            the offer, ``acknowledged``, or a direction.
    """

    def __init__(
        self,
        on_answer: Callable[[Answered], None],
        on_end: Callable[[str], None] = lambda key: None,
        on_event: Callable[[str, Answered], None] = lambda event, of: None,
    ) -> None:
        self._on_answer, self._on_end, self._on_event = on_answer, on_end, on_event
        self._lock = threading.Lock()
        self._answered: dict[str, tuple[socket.socket, str]] = {}
        self._keys: dict[str, str] = {}  # by Call-ID
        self._numbers: dict[str, int] = {}  # the last CSeq we have used, by Call-ID
        self._early: set[str] = set()  # to be hung up as soon as they are answered
        self._offered: dict[str, float] = {}  # since when a re-INVITE of the switch's has no ACK, by key
        self._timers: list[tuple[float, str]] = []  # a heap: when on the monotonic clock, key
        self._buffers: dict[socket.socket, bytearray] = {}
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="3pcc", daemon=True)

    def start(self) -> Self:
        """Serve."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Close every connection."""
        self._stopping = True
        self._wake.send(b".")
        self._thread.join(5)

    def hang_up(self, key: str, delay: float = 0.0) -> None:
        """Make the call send BYE after ``delay`` seconds; where it is not answered yet, once it is."""
        if delay > 0:
            with self._lock:
                heapq.heappush(self._timers, (time.monotonic() + delay, key))
            self._wake.send(b".")
            return
        with self._lock:
            now = time.monotonic()
            if now - self._offered.get(key, float("-inf")) < OFFER_DUE:  # SIPp takes no command meanwhile
                heapq.heappush(self._timers, (now + AGAIN, key))
                self._wake.send(b".")
                return
            known = self._answered.pop(key, None)
            if known is None:
                self._early.add(key)
                return
            connection, call_id = known
            self._keys.pop(call_id, None)
            self._on_end(key)
            self._command(connection, call_id, "bye")
            self._numbers.pop(call_id, None)

    def offer(self, key: str, direction: str) -> None:
        """Make the call send a re-INVITE; it tells ``direction`` when that is through.

        Raises ValueError for what is no direction, RuntimeError where the call is not up.
        """
        if direction not in DIRECTIONS:
            raise ValueError(f"{direction!r} is none of {DIRECTIONS}")
        with self._lock:
            known = self._answered.get(key)
            if known is None:
                raise RuntimeError(f"{key} is not up")
            self._command(*known, direction)

    def _command(self, connection: socket.socket, call_id: str, what: str) -> None:
        number = self._numbers[call_id] = self._numbers.get(call_id, _FIRST_NUMBER - 1) + 1
        with contextlib.suppress(OSError):  # that SIPp is gone; its exit status tells
            connection.sendall(
                f"Call-ID: {call_id}\r\nNumber: {number}\r\nDo: {what}\r\n\r\n".encode() + _END
            )

    def forget(self, key: str) -> None:
        """The call is over."""
        with self._lock:
            self._early.discard(key)
            self._offered.pop(key, None)
            known = self._answered.pop(key, None)
            if known is None:
                return
            self._keys.pop(known[1], None)
            self._numbers.pop(known[1], None)
        self._on_end(key)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while not self._stopping:
                for ready, _ in selector.select(self._until_timer()):
                    if ready.fileobj is self._listener:
                        self._accept(selector)
                    elif ready.fileobj is self._woken:
                        self._woken.recv(4096)
                    else:
                        assert isinstance(ready.fileobj, socket.socket)
                        self._read(ready.fileobj, selector)
                self._fire_timers()
            for opened in (*self._buffers, self._listener, self._woken, self._wake):
                opened.close()

    def _until_timer(self) -> float | None:
        with self._lock:
            return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _fire_timers(self) -> None:
        now = time.monotonic()
        while True:
            with self._lock:
                if not self._timers or self._timers[0][0] > now:
                    return
                _, key = heapq.heappop(self._timers)
            self.hang_up(key)

    def _accept(self, selector: selectors.BaseSelector) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionError):
            return  # that SIPp was gone before we looked
        connection.settimeout(5)
        self._buffers[connection] = bytearray()
        selector.register(connection, selectors.EVENT_READ)

    def _read(self, connection: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            data = connection.recv(65536)
        except ConnectionError:
            data = b""
        buffer = self._buffers[connection]
        buffer += data
        *commands, rest = bytes(buffer).split(_END)
        buffer[:] = rest
        for command in commands:
            self._take(connection, command)
        if not data or len(rest) > _MAX_COMMAND:
            selector.unregister(connection)
            del self._buffers[connection]
            connection.close()

    def _take(self, connection: socket.socket, command: bytes) -> None:
        fields = {}
        for line in command.decode("latin-1").splitlines():
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
        call_id = fields.get("call-id", "")
        if fields.get("internal-cmd") == "abort_call":  # SIPp's own, on anything unexpected
            with self._lock:
                key = self._keys.pop(call_id, None)
            if key is not None:
                self.forget(key)
            return
        key = fields.get("key", "")
        ip, port, payload_type = (fields.get(name, "") for name in ("media-ip", "media-port", "media-type"))
        told = Answered(key, call_id, ip, int(port or 0), int(payload_type) if payload_type else -1)
        if event := fields.get("event"):
            with self._lock:
                if event == OFFERED:
                    self._offered[key] = time.monotonic()
                elif event == ACKNOWLEDGED:
                    self._offered.pop(key, None)
            self._on_event(event, told)
            return
        with self._lock:
            self._answered[key] = (connection, call_id)
            self._keys[call_id] = key
            early = key in self._early
            self._early.discard(key)
        self._on_answer(told)
        if early:
            self.hang_up(key)
