"""A FreeSWITCH that does exactly what a test's script says, at the other end of a real socket."""

from __future__ import annotations

import select
import socket as std_socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gevent
from gevent import socket

from tests.support import wire


class Hung(AssertionError):
    """Something that had to happen did not."""


class ScriptError(Exception):
    """The test's own script does not fit what came; never a reason for an expected failure."""


@contextmanager
def bounded(seconds: float = 3.0) -> Iterator[None]:
    """Fail instead of hanging."""
    with gevent.Timeout(seconds, Hung(f"nothing happened within {seconds:g} s")):
        yield


def eventually(condition: Callable[[], object], seconds: float = 5.0, what: str = "") -> None:
    """Wait until ``condition`` is true; fail after ``seconds``."""
    with bounded(seconds):
        while not condition():
            gevent.sleep(0.005)


def fields(command: str) -> dict[str, str]:
    """The headers of a ``sendmsg``."""
    return dict(line.split(": ", 1) for line in command.splitlines()[1:])


class Peer:
    """FreeSWITCH's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def command(self, seconds: float = 3.0) -> str:
        """The next command, without the empty line behind it; empty at the end of the connection."""
        with gevent.Timeout(seconds, ScriptError(f"no command within {seconds:g} s")):
            while b"\n\n" not in self._buffer:
                data = self.sock.recv(65536)
                if not data:
                    return ""
                self._buffer += data
        command, _, self._buffer = self._buffer.partition(b"\n\n")
        return command.decode()

    def expect(self, beginning: str, seconds: float = 3.0) -> str:
        """The next command, which must begin so."""
        command = self.command(seconds)
        if not command.startswith(beginning):
            raise ScriptError(f"expected {beginning!r}, got {command!r}")
        return command

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def connected(self, headers: dict[str, str] | None = None) -> None:
        """Answer ``connect``."""
        self.expect("connect")
        self.send(wire.reply("+OK", headers or {"Unique-ID": "the-call", "variable_uuid": "the-call"}))

    def has_data(self) -> bool:
        """Whether something that was sent is here and not read yet, at this very moment."""
        return bool(select.select([self.sock.fileno()], [], [], 0)[0])

    def ended(self, seconds: float = 3.0) -> bool:
        """Whether the other side closes the connection in time."""
        with gevent.Timeout(seconds, False):  # type: ignore[arg-type]  # the stubs forget False
            try:
                while self.sock.recv(65536):
                    pass
            except ConnectionError:
                pass
            return True
        return False

    def close(self) -> None:
        self.sock.close()

    def reset(self) -> None:
        """Close with a RST, as a process that was killed does."""
        self.sock.setsockopt(std_socket.SOL_SOCKET, std_socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    for sock in (ours, theirs):  # as gunicorn and FreeSWITCH do
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs
