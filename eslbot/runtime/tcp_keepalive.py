"""TCP keep-alive: the kernel closes a connection whose peer is gone without a word."""

from __future__ import annotations

import socket


def notice_dead_peers(listener: socket.socket) -> None:
    """Have the kernel end a connection when the peer's host does not answer for half a minute.

    FreeSWITCH says nothing while a call is held, and a host without power says nothing at all: its calls
    would be counted for ever. Keepalive asks; the user time-out is also for what we have sent ourselves.
    Accepted connections have what their listener has (Linux, ``tcp(7)``).
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 30_000)
