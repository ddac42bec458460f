"""RTP packets (RFC 3550, section 5.1), as far as stand-ins need them."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HEADER = struct.Struct("!BBHII")

#: Samples and seconds of one packet at ptime 20.
FRAME_SAMPLES = 160
PTIME = 0.020


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """One RTP packet; ``timestamp`` counts samples at 8,000 Hz."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False

    def pack(self) -> bytes:
        """The packet as it goes over the wire, version 2, no padding, extension or sources."""
        return (
            _HEADER.pack(
                0x80,
                self.marker << 7 | self.payload_type,
                self.sequence & 0xFFFF,
                self.timestamp & 0xFFFFFFFF,
                self.ssrc,
            )
            + self.payload
        )

    @classmethod
    def parse(cls, datagram: bytes) -> RtpPacket | None:
        """The packet in ``datagram``, or None where it holds no RTP of version 2."""
        if len(datagram) < _HEADER.size:
            return None
        flags, kind, sequence, timestamp, ssrc = _HEADER.unpack_from(datagram)
        if flags >> 6 != 2:
            return None
        start = _HEADER.size + 4 * (flags & 0x0F)
        if flags & 0x10:  # header extension: two bytes of profile, two of length in 32-bit words
            if len(datagram) < start + 4:
                return None
            start += 4 + 4 * int.from_bytes(datagram[start + 2 : start + 4], "big")
        end = len(datagram) - (datagram[-1] if flags & 0x20 else 0)
        if start > end:
            return None
        return cls(kind & 0x7F, sequence, timestamp, ssrc, datagram[start:end], bool(kind & 0x80))
