"""How SIP messages come and go: datagrams, and messages on a TCP connection."""

from __future__ import annotations

import asyncio
import re
from typing import Protocol

from .sip_message import MAX_MESSAGE, MalformedMessage

#: Bytes that a slow TCP peer may leave unread.
MAX_UNSENT = 1 << 20

_CONTENT_LENGTH = re.compile(rb"^(?:content-length|l)[ \t]*:[ \t]*(\d{1,9})[ \t]*\r$", re.I | re.M)


class Peer(Protocol):
    """Where a message came from, and how to send one back there."""

    transport: str
    host: str
    port: int

    def send(self, data: bytes) -> None:
        """Send one message; a message that cannot be sent is lost, as on a real network."""


class UdpPeer:
    """By UDP."""

    transport = "udp"

    def __init__(self, transport: asyncio.DatagramTransport, host: str, port: int) -> None:
        self._transport = transport
        self.host, self.port = host, port

    def send(self, data: bytes) -> None:
        """Send one message."""
        if not self._transport.is_closing():
            self._transport.sendto(data, (self.host, self.port))


class TcpPeer:
    """On a TCP connection."""

    transport = "tcp"

    def __init__(self, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        self._writer = writer
        self.host, self.port = host, port

    def send(self, data: bytes) -> None:
        """Send one message."""
        if self._writer.is_closing():
            return
        self._writer.write(data)
        if self._writer.transport.get_write_buffer_size() > MAX_UNSENT:
            self._writer.transport.abort()


async def read_framed(reader: asyncio.StreamReader) -> bytes | None:
    """One message from a stream (RFC 3261, 18.3), or None at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        while head == b"\r\n\r\n":  # keep-alive (RFC 5626, 3.5.1)
            head = await reader.readuntil(b"\r\n\r\n")
        head = head.lstrip(b"\r\n")
        match = _CONTENT_LENGTH.search(head)
        if match is None or int(match[1]) > MAX_MESSAGE:
            raise MalformedMessage("no usable Content-Length over TCP")
        return head + await reader.readexactly(int(match[1]))
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        raise MalformedMessage("message too long") from None
