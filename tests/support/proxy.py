"""A TCP proxy between two parts of a lab: it counts what it passes on, and it can be a bad network.

In front of eslbot it stands between the switch and the controllers; it can stand in front of a bot or of
Ameyo just as well. Here "client" is who connects, "server" what is connected to.
"""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Self

#: The beginning of what the client says, kept to tell whose connection it is.
_HEAD = 65_536
#: Bytes that are held back for a side that does not take them; then the other side is not read any more.
_HELD_BACK = 1 << 20
#: Seconds the server gets to accept.
_CONNECT_LIMIT = 5.0
#: Seconds in which the proxy's thread must do what it is told.
_COMMAND_LIMIT = 10.0


@dataclass(eq=False)
class Passage:
    """One connection through the proxy; times are seconds of ``time.monotonic``.

    Attributes:
        opened: when the client was accepted.
        from_client, from_server: bytes passed on.
        head: the beginning of what the client said.
        first_from_server, first_from_client: when the first byte of each came, None before.
        closed, closed_by: when it ended, and whose end came first: ``client``, ``server`` or ``proxy``.
        server_address, server_peer: of the connection to the server: its own end there, and ours.
    """

    opened: float
    server_address: tuple[str, int]
    server_peer: tuple[str, int]
    from_client: int = 0
    from_server: int = 0
    head: bytearray = field(default_factory=bytearray)
    first_from_client: float | None = None
    first_from_server: float | None = None
    closed: float | None = None
    closed_by: str | None = None

    @property
    def counts(self) -> tuple[int, int]:
        """Bytes from the client, and from the server."""
        return self.from_client, self.from_server

    def says(self, text: str) -> bool:
        """Whether the client said ``text`` at the beginning."""
        return text.encode() in self.head


class _End:
    """One of a passage's two sockets, with the bytes that wait to be sent to it."""

    def __init__(self, sock: socket.socket, passage: Passage, *, is_client: bool) -> None:
        self.sock, self.passage, self.is_client = sock, passage, is_client
        self.waiting = bytearray()
        self.other: _End = self
        self.stalled = self.swallows = False


class TcpProxy:
    """Listens on ``address`` while in its ``with`` block; connections are passed on to ``target``.

    Where nobody listens the switch goes on to the next controller: that is how the proxy is switched off.
    Port 0 takes a free one; ``address`` tells it. ``passages`` are all connections so far, oldest first.
    """

    def __init__(self, address: tuple[str, int], target: tuple[str, int]) -> None:
        self.address, self.target = address, target
        self.passages: list[Passage] = []
        self._ends: dict[Passage, tuple[_End, _End]] = {}
        self._selector = selectors.DefaultSelector()
        self._todo: queue.SimpleQueue[tuple[Callable[[], None], threading.Event]] = queue.SimpleQueue()
        self._listener: socket.socket | None = None
        self._stall_new = self._swallow_new = False
        self._stopping = False

    def __enter__(self) -> Self:
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._listen()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._wake.send(b".")
        self._thread.join(_COMMAND_LIMIT)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        for passage in list(self._ends):
            self._close(passage, "proxy")
        self._wake.close()
        self._selector.close()

    # -- what is seen -------------------------------------------------------------------------------------

    def find(self, text: str) -> Passage | None:
        """The latest connection in which the client said ``text`` at its beginning."""
        return next((passage for passage in reversed(self.passages) if passage.says(text)), None)

    def open_passages(self) -> list[Passage]:
        """The connections that are up, oldest first."""
        return [passage for passage in list(self.passages) if passage.closed is None]

    # -- what is done to them: all of these return when it is done ----------------------------------------

    def stall(self, passages: Iterable[Passage] | None = None) -> None:
        """Pass nothing on, in either direction, until :meth:`go_on`: by default of all, new ones too."""
        self._set("stalled", True, passages)

    def swallow(self, passages: Iterable[Passage] | None = None) -> None:
        """Half-open: take what both sides say and lose it. What went missing is missing: reset them after."""
        self._set("swallows", True, passages)

    def go_on(self) -> None:
        """End every :meth:`stall` and :meth:`swallow`; what a stall held back is passed on."""
        self._set("stalled", False, None)
        self._set("swallows", False, None)

    def reset(self, passages: Iterable[Passage] | None = None) -> int:
        """End connections, by default all, with RST to both sides. Returns how many."""
        wanted = None if passages is None else list(passages)
        done: list[Passage] = []

        def run() -> None:
            for passage in list(self._ends) if wanted is None else wanted:
                if passage in self._ends:
                    for end in self._ends[passage]:
                        # Linger of zero seconds: close() sends RST and drops what was not sent.
                        with contextlib.suppress(OSError):  # the peer was faster
                            end.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self._close(passage, "proxy")
                    done.append(passage)

        self._do(run)
        return len(done)

    def refuse(self) -> None:
        """Take no new connections until :meth:`accept`; those that are up stay."""

        def run() -> None:
            if self._listener is not None:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None

        self._do(run)

    def accept(self) -> None:
        """Listen again, on the same port."""
        self._do(lambda: None if self._listener is not None else self._listen())

    # -- the machinery: in the proxy's thread -------------------------------------------------------------

    def _set(self, name: str, value: bool, passages: Iterable[Passage] | None) -> None:
        wanted = None if passages is None else list(passages)

        def run() -> None:
            if wanted is None and name == "stalled":
                self._stall_new = value
            elif wanted is None:
                self._swallow_new = value
            for passage in list(self._ends) if wanted is None else wanted:
                for end in self._ends.get(passage, ()):
                    setattr(end, name, value)
            for ends in list(self._ends.values()):
                for end in ends:
                    self._watch(end)

        self._do(run)

    def _do(self, run: Callable[[], None]) -> None:
        done = threading.Event()
        self._todo.put((run, done))
        self._wake.send(b".")
        if not done.wait(_COMMAND_LIMIT):
            raise TimeoutError("the proxy's thread does not answer")

    def _listen(self) -> None:
        self._listener = socket.create_server(self.address, backlog=256)
        self._listener.setblocking(False)
        self.address = self._listener.getsockname()[:2]
        self._selector.register(self._listener, selectors.EVENT_READ)

    def _run(self) -> None:
        while not self._stopping:
            for key, events in self._selector.select():
                if key.fileobj is self._woken:
                    self._woken.recv(4096)
                elif key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.data, _End) and key.data.passage in self._ends:
                    if events & selectors.EVENT_WRITE:
                        self._flush(key.data)
                    if events & selectors.EVENT_READ and key.data.passage in self._ends:
                        self._read(key.data)
            while not self._todo.empty():
                run, done = self._todo.get()
                run()
                done.set()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        opened = time.monotonic()
        try:
            server = socket.create_connection(self.target, _CONNECT_LIMIT)
        except OSError:
            client.close()
            return
        passage = Passage(opened, server.getpeername()[:2], server.getsockname()[:2])
        ends = _End(client, passage, is_client=True), _End(server, passage, is_client=False)
        ends[0].other, ends[1].other = ends[1], ends[0]
        self._ends[passage] = ends
        self.passages.append(passage)
        for end in ends:
            end.stalled, end.swallows = self._stall_new, self._swallow_new
            end.sock.setblocking(False)
            end.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._watch(end)

    def _watch(self, end: _End) -> None:
        """Wait for what this end may do now."""
        if end.passage not in self._ends:
            return
        events = 0
        if not end.stalled:
            events |= selectors.EVENT_READ if len(end.other.waiting) < _HELD_BACK else 0
            events |= selectors.EVENT_WRITE if end.waiting else 0
        known = self._selector.get_map().get(end.sock)
        if known is None and events:
            self._selector.register(end.sock, events, end)
        elif known is not None and not events:
            self._selector.unregister(end.sock)
        elif known is not None and known.events != events:
            self._selector.modify(end.sock, events, end)

    def _read(self, end: _End) -> None:
        passage = end.passage
        try:
            data = end.sock.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            # One end is gone: so is the other, as without us, except that what it still says is not heard.
            self._close(passage, "client" if end.is_client else "server")
            return
        if end.swallows:
            return
        now = time.monotonic()
        if end.is_client:
            passage.from_client += len(data)
            passage.first_from_client = passage.first_from_client or now
            if len(passage.head) < _HEAD:
                passage.head += data
        else:
            passage.from_server += len(data)
            passage.first_from_server = passage.first_from_server or now
        end.other.waiting += data
        self._flush(end.other)
        if passage in self._ends:
            self._watch(end)

    def _flush(self, end: _End) -> None:
        try:
            sent = end.sock.send(end.waiting) if end.waiting and not end.stalled else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(end.passage, "client" if end.is_client else "server")
            return
        del end.waiting[:sent]
        self._watch(end)
        self._watch(end.other)

    def _close(self, passage: Passage, by: str) -> None:
        passage.closed, passage.closed_by = time.monotonic(), by  # before anybody can see that it is
        for end in self._ends.pop(passage, ()):
            with contextlib.suppress(KeyError, ValueError):  # stalled ends are not registered
                self._selector.unregister(end.sock)
            if end.waiting and by != "proxy":
                with contextlib.suppress(OSError):  # the last word, where there is room for it
                    end.sock.send(end.waiting)
            end.sock.close()
