"""RTP packets, against RFC 3550's layout written out by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from eslbot.sim.rtp import RtpPacket

packets = st.builds(
    RtpPacket,
    payload_type=st.integers(0, 127),
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    ssrc=st.integers(0, 0xFFFFFFFF),
    payload=st.binary(max_size=400),
    marker=st.booleans(),
)


def test_the_layout() -> None:
    packet = RtpPacket(8, 0x1234, 0xA0, 0xDEADBEEF, b"\xd5\xd5", marker=True)
    assert packet.pack() == bytes.fromhex("80 88 1234 000000a0 deadbeef d5d5")


@given(packets)
def test_a_packet_survives_the_wire(packet: RtpPacket) -> None:
    assert RtpPacket.parse(packet.pack()) == packet


def test_sequence_and_timestamp_wrap() -> None:
    packet = RtpPacket.parse(RtpPacket(0, 0x10001, 0x1_0000_00A0, 1, b"").pack())
    assert packet is not None
    assert (packet.sequence, packet.timestamp) == (1, 0xA0)


@given(packets, st.lists(st.integers(0, 0xFFFFFFFF), max_size=15), st.binary(max_size=32), st.integers(0, 9))
def test_sources_extension_and_padding_are_taken_off(
    packet: RtpPacket, sources: list[int], extension: bytes, padding: int
) -> None:
    wire = bytearray(packet.pack()[:12])
    wire[0] |= len(sources)
    for source in sources:
        wire += source.to_bytes(4, "big")
    if extension:
        wire[0] |= 0x10
        words = -(-len(extension) // 4)
        wire += b"\xbe\xde" + words.to_bytes(2, "big") + extension.ljust(4 * words, b"\0")
    wire += packet.payload
    if padding:
        wire[0] |= 0x20
        wire += bytes(padding - 1) + bytes([padding])
    assert RtpPacket.parse(bytes(wire)) == packet


@given(st.binary(max_size=60))
def test_any_datagram_is_a_packet_or_none(datagram: bytes) -> None:
    packet = RtpPacket.parse(datagram)
    if packet is None:
        return
    assert datagram[0] >> 6 == 2
    assert packet.payload in datagram


def test_what_is_no_rtp_is_none() -> None:
    good = RtpPacket(0, 1, 2, 3, b"x" * 20).pack()
    assert RtpPacket.parse(b"") is None
    assert RtpPacket.parse(good[:11]) is None
    assert RtpPacket.parse(b"\x40" + good[1:]) is None  # version 1
    assert RtpPacket.parse(b"\x8f" + good[1:14]) is None  # fifteen sources, and none there
    assert RtpPacket.parse(b"\x90" + good[1:14]) is None  # an extension that is not there
    assert RtpPacket.parse(b"\x90" + good[1:12] + b"\0\0\xff\xff") is None  # one that is longer than all
    assert RtpPacket.parse(b"\xa0" + good[1:12] + b"\xff") is None  # more padding than packet
