"""A TCP peer that behaves as a test says: answers, hangs, drips, or closes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from eslbot.config.model import Address, loopback

Serve = Callable[[socket.socket, threading.Event], None]


@contextmanager
def peer(serve: Serve) -> Iterator[Address]:
    """Its address; ``serve`` gets each connection, in a thread, and an event that is set at the end."""
    over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))
    connections: list[socket.socket] = []

    def handle(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            serve(connection, over)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connections.append(connection)
                threading.Thread(target=handle, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield loopback(listening.getsockname()[1])
    finally:
        over.set()
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def says(data: bytes) -> Serve:
    """Answers the first bytes with ``data``, and closes."""

    def serve(connection: socket.socket, over: threading.Event) -> None:
        connection.recv(4096)
        connection.sendall(data)

    return serve


def hangs(connection: socket.socket, over: threading.Event) -> None:
    """Takes the connection and says nothing."""
    over.wait(30)


def drips(data: bytes, pause: float = 0.05) -> Serve:
    """A byte at a time, for ever."""

    def serve(connection: socket.socket, over: threading.Event) -> None:
        for byte in data:
            connection.sendall(bytes([byte]))
            if over.wait(pause):
                return
        while not over.wait(pause):
            connection.sendall(b"x")

    return serve


def floods(connection: socket.socket, over: threading.Event) -> None:
    """More than anybody would care to read, without an end."""
    while not over.is_set():
        connection.sendall(b"x" * 65536)


def nobody() -> Address:
    """An address of loopback that refuses: it was free a moment ago, and is kept without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return loopback(listening.getsockname()[1])


def all_of(sock: socket.socket) -> bytes:
    """What it sends until it closes the connection."""
    got = b""
    try:
        while data := sock.recv(65536):
            got += data
    except ConnectionResetError:  # it did not read all that we had sent
        pass
    return got
