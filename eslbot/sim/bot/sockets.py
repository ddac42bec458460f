"""Sockets of bots that are no good peers of TCP: put in the place of the library's own."""

from __future__ import annotations

import os
import socket
import threading

#: Seconds. Nobody leaves a connection unread for longer.
UNREAD_LIMIT = 3600.0


class LeftOpen(socket.socket):
    """A socket of the library's on a connection that somebody else keeps open: it cannot end it."""

    def shutdown(self, how: int) -> None:
        """Nothing: no FIN."""


class Frozen(socket.socket):
    """A copy of the library's socket by which nothing is read until :meth:`thaw`, and then the end."""

    def __init__(self, original: socket.socket) -> None:
        super().__init__(fileno=os.dup(original.fileno()))
        self._original = original  # on which the library waits for something to read
        self._thawed = threading.Event()

    def recv(self, *_: object) -> bytes:
        """Nothing, and not soon."""
        self._thawed.wait(UNREAD_LIMIT)
        self._original.close()
        return b""

    def thaw(self) -> None:
        """Let the library see the end."""
        self._thawed.set()
