"""Addresses of loopback that nobody has yet, and how an address is written."""

from __future__ import annotations

import errno
import os
import random
import socket
from collections import deque

#: RTP ports of one lab: two a call.
RTP_PORTS = 600
#: Above those that the kernel gives to whoever connects (Linux, ip_local_port_range): a port that is free now
#: is still so when its server, which may take seconds to start, wants it. A process takes every eighth.
PORTS = range(61000, 65536)
SHARES = 8
#: The ports that were given out last; earlier ones go back when there are so many.
_held: deque[socket.socket] = deque()
HELD = 400


def colon(address: tuple[str, int]) -> str:
    """``host:port``."""
    return f"{address[0]}:{address[1]}"


def free_port(host: str = "127.0.0.1") -> int:
    """A port for a server on an address of loopback, TCP and UDP, which nobody else gets before that listens.

    It is bound here, and nobody listens: connections are refused, and no other process that looks for a port
    finds it free. A server that sets SO_REUSEADDR, as all here do, may listen there all the same.
    """
    own = PORTS[os.getpid() % SHARES :: SHARES]
    while True:
        port = random.choice(own)
        held = socket.socket()
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                held.bind((host, port))
                udp.bind((host, port))
            except OSError as error:
                held.close()
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _held.append(held)
        if len(_held) > HELD:
            _held.popleft().close()
        return port


def free_rtp_ports() -> tuple[int, int]:
    """A range below the ports that the kernel gives out; two labs at once are unlikely to share it."""
    first = random.randrange(10000, 32000 - RTP_PORTS, RTP_PORTS)
    return first, first + RTP_PORTS - 1
