"""G.711: both laws between bytes and 16-bit linear samples (ITU-T G.711).

Python's own ``audioop`` left the standard library in 3.13; the two laws are small enough to keep as tables.
Linear audio is little-endian signed 16-bit (L16 as mod_audio_stream sends it), one channel.
"""

from __future__ import annotations

import numpy as np

PCMU, PCMA = "PCMU", "PCMA"

#: RTP payload types of the two laws (RFC 3551, table 4).
PAYLOAD_TYPES = {PCMU: 0, PCMA: 8}

#: The byte that is heard as silence.
SILENCE = {PCMU: b"\xff", PCMA: b"\xd5"}


def _linear_from_ulaw(byte: int) -> int:
    byte = ~byte & 0xFF
    magnitude = (((byte & 0x0F) << 3) + 0x84) << ((byte & 0x70) >> 4)
    return 0x84 - magnitude if byte & 0x80 else magnitude - 0x84


def _linear_from_alaw(byte: int) -> int:
    byte ^= 0x55
    magnitude = (byte & 0x0F) << 4
    segment = (byte & 0x70) >> 4
    magnitude = magnitude + 8 if segment == 0 else (magnitude + 0x108) << (segment - 1)
    return magnitude if byte & 0x80 else -magnitude


_DECODE = {
    PCMU: [_linear_from_ulaw(byte) for byte in range(256)],
    PCMA: [_linear_from_alaw(byte) for byte in range(256)],
}


def _encoder(levels: list[int]) -> bytes:
    """The nearest code for each of the 65,536 samples, indexed by the sample as an unsigned number."""
    codes = sorted(range(256), key=lambda code: levels[code])
    table = bytearray(65536)
    position = 0
    for sample in range(-32768, 32768):
        while position < 255 and (
            abs(levels[codes[position + 1]] - sample) <= abs(levels[codes[position]] - sample)
        ):
            position += 1
        table[sample & 0xFFFF] = codes[position]
    return bytes(table)


_ENCODE_TABLE = {law: np.frombuffer(_encoder(levels), np.uint8) for law, levels in _DECODE.items()}
_DECODE_TABLE = {law: np.array(levels, "<i2") for law, levels in _DECODE.items()}


def decode(law: str, payload: bytes) -> bytes:
    """G.711 bytes of ``law`` (``PCMU`` or ``PCMA``) as L16 little-endian, two bytes a sample."""
    linear: bytes = _DECODE_TABLE[law][np.frombuffer(payload, np.uint8)].tobytes()
    return linear


def encode(law: str, linear: bytes) -> bytes:
    """L16 little-endian as G.711 bytes of ``law``; a trailing odd byte is dropped."""
    codes: bytes = _ENCODE_TABLE[law][np.frombuffer(linear, "<u2", len(linear) // 2)].tobytes()
    return codes
