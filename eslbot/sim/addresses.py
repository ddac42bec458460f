"""Addresses of loopback that nobody has yet, and how an address is written."""

from __future__ import annotations

import errno
import os
import random
import socket

#: RTP ports of one lab: two a call.
RTP_PORTS = 600
#: Above those that the kernel gives to whoever connects (Linux, ip_local_port_range): a port that is free now
#: is still so when its server, which may take seconds to start, wants it. A process takes every eighth.
PORTS = range(61000, 65536)
SHARES = 8
_given: set[int] = set()


def colon(address: tuple[str, int]) -> str:
    """``host:port``."""
    return f"{address[0]}:{address[1]}"


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free for TCP and UDP on an address of loopback now; each once while there are others."""
    own = PORTS[os.getpid() % SHARES :: SHARES]
    while True:
        if _given.issuperset(own):
            _given.clear()
        port = random.choice(own)
        if port in _given:
            continue
        _given.add(port)
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind((host, port))
                udp.bind((host, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            return port


def free_rtp_ports() -> tuple[int, int]:
    """A range below the ports that the kernel gives out; two labs at once are unlikely to share it."""
    first = random.randrange(10000, 32000 - RTP_PORTS, RTP_PORTS)
    return first, first + RTP_PORTS - 1
