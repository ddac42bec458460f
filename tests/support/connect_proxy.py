"""An HTTP proxy that is asked for tunnels: it notes by whom and for what, and may be any kind of unkind."""

from __future__ import annotations

import socket
import threading
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress

#: Writes what is no proper answer, and keeps the connection as long as it is not done.
Manners = Callable[[socket.socket], None]


class ConnectProxy:
    """A proxy in threads. ``login``: the ``user:password`` it wants. ``manners``: what it does instead.

    ``to``: where every tunnel leads, whatever it was asked for.
    """

    def __init__(
        self,
        login: str | None = None,
        status: bytes = b"200 Connection established",
        manners: Manners | None = None,
        to: tuple[str, int] | None = None,
    ) -> None:
        self.heads: list[bytes] = []
        self.peers: list[str] = []
        self._login, self._status, self._manners, self._to = login, status, manners, to
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listening.getsockname()[1])
        self._open: list[socket.socket] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def url(self) -> str:
        """Without a login."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def asked_for(self) -> list[str]:
        """The targets, in order."""
        return [head.split(b" ")[1].decode() for head in self.heads]

    def __enter__(self) -> ConnectProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                client, peer = self._listening.accept()
            except OSError:
                return
            self.peers.append(peer[0])
            self._open.append(client)
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                data = client.recv(4096)
                if not data:
                    return
                head += data
            self.heads.append(head)
            if self._manners is not None:
                self._manners(client)
                return
            wanted = b"" if self._login is None else b"Basic " + b64encode(self._login.encode())
            if wanted not in head:
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
                client.close()
                return
            client.sendall(b"HTTP/1.1 " + self._status + b"\r\nVia: 1.1 proxy\r\n\r\n")
            if self._status.startswith(b"2"):
                host, _, port = head.split(b" ")[1].decode().rpartition(":")
                server = socket.create_connection(self._to or (host.strip("[]"), int(port)), 5)
                self._open.append(server)
                threading.Thread(target=self._pass_on, args=(server, client), daemon=True).start()
                self._pass_on(client, server)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            source.settimeout(None)
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    # -- manners ------------------------------------------------------------------------------------------

    def drip(self, client: socket.socket) -> None:
        """A byte of an endless head, ten times a second."""
        client.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self._ended.wait(0.1):
            client.sendall(b"x")

    def flood(self, client: socket.socket) -> None:
        """A head without an end, as fast as it is read."""
        client.sendall(b"HTTP/1.1 200 OK\r\n")
        while not self._ended.is_set():
            client.sendall(b"X-Header: " + b"x" * 8000 + b"\r\n")

    def say_nothing(self, client: socket.socket) -> None:
        """Take the question, and that was it."""
        self._ended.wait()
