"""Copies of SIP messages for whoever watches: HEP, version 1 (mod_sofia's ``sip-capture``, sofia-sip's
``tport_logging.c``)."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

_PROTOCOLS = {"udp": socket.IPPROTO_UDP, "tcp": socket.IPPROTO_TCP}

Address = tuple[str, int]


class Capture:
    """Sends each message to one UDP address, and does not care whether anybody is there."""

    def __init__(self, server: Address | None) -> None:
        self._server = server
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def copy(self, message: bytes, transport: str, source: Address, destination: Address) -> None:
        """Copy ``message``, which went from ``source`` to ``destination``."""
        if self._server is None:
            return
        sender, receiver = ip_address(source[0]).packed, ip_address(destination[0]).packed
        if len(sender) != 4 or len(receiver) != 4:
            return  # the stand-in listens on IPv4
        head = struct.pack("!BBBBHH", 1, 16, socket.AF_INET, _PROTOCOLS[transport], source[1], destination[1])
        try:
            self._socket.sendto(head + sender + receiver + message, self._server)
        except OSError:
            return  # nobody listens, or the buffer is full: a copy is lost, as FreeSWITCH's are

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
