"""Between the switch and eslbot: passes the event socket's bytes on and counts them."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
from dataclasses import dataclass, field
from typing import Self

#: The beginning of what the switch says, kept to tell whose connection it is.
_HEAD = 65_536


@dataclass
class Passage:
    """One connection: bytes from the switch, bytes from eslbot, and the beginning of the former."""

    from_switch: int = 0
    from_eslbot: int = 0
    head: bytearray = field(default_factory=bytearray)

    @property
    def counts(self) -> tuple[int, int]:
        """Bytes from the switch, and from eslbot."""
        return self.from_switch, self.from_eslbot


class CountingProxy:
    """Listens on ``address`` while in its ``with`` block; connections are passed on to ``target``.

    Where nobody listens the switch goes on to the next controller: that is how it is switched off.
    """

    def __init__(self, address: tuple[str, int], target: tuple[str, int]) -> None:
        self.address, self.target = address, target
        self.passages: list[Passage] = []
        self._selector = selectors.DefaultSelector()
        self._stopping = False

    def __enter__(self) -> Self:
        self._listener = socket.create_server(self.address, backlog=64)
        self._listener.setblocking(False)
        self._wake, self._woken = socket.socketpair()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._wake.send(b".")
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._wake.close()
        self._selector.close()

    def find(self, text: str) -> Passage | None:
        """The latest connection in which the switch said ``text`` at its beginning."""
        wanted = text.encode()
        return next((passage for passage in reversed(self.passages) if wanted in passage.head), None)

    def _run(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data is not None and key.fileobj in self._selector.get_map():
                    self._pass(*key.data)

    def _accept(self) -> None:
        try:
            switch, _ = self._listener.accept()
        except OSError:
            return
        try:
            eslbot = socket.create_connection(self.target, 5)
        except OSError:
            switch.close()
            return
        passage = Passage()
        self.passages.append(passage)
        for source, sink, of_switch in ((switch, eslbot, True), (eslbot, switch, False)):
            source.settimeout(5)
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(source, selectors.EVENT_READ, (source, sink, passage, of_switch))

    def _pass(self, source: socket.socket, sink: socket.socket, passage: Passage, of_switch: bool) -> None:
        try:
            data = source.recv(262_144)
            sink.sendall(data)
        except OSError:
            data = b""
        if of_switch:
            passage.from_switch += len(data)
            if len(passage.head) < _HEAD:
                passage.head += data
        else:
            passage.from_eslbot += len(data)
        if data:
            return
        # One end is gone: so is the other, as without us, except that what it still says is not heard.
        for end in (source, sink):
            with contextlib.suppress(KeyError):
                self._selector.unregister(end)
            end.close()
