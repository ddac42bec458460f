"""G.711 against the values of ITU-T G.711, and against audioop where Python still has it."""

from __future__ import annotations

import importlib
import struct
import warnings
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.audio.g711 import PAYLOAD_TYPES, PCMA, PCMU, SILENCE, decode, encode

LAWS = [PCMU, PCMA]


def level(law: str, code: int) -> int:
    return int(struct.unpack("<h", decode(law, bytes([code])))[0])


def code(law: str, sample: int) -> int:
    return encode(law, struct.pack("<h", sample))[0]


@pytest.fixture(scope="module")
def audioop() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            return importlib.import_module("audioop")
        except ModuleNotFoundError:
            pytest.skip("this Python has no audioop")


@pytest.mark.parametrize(
    ("byte", "sample"),
    [
        # ends of the segments of table 2a, positive and negative, 14 -> 16 bits
        (0x80, 32124),
        (0x8F, 16764),
        (0x9F, 8316),
        (0xAF, 4092),
        (0xBF, 1980),
        (0xCF, 924),
        (0xDF, 396),
        (0xEF, 132),
        (0xFE, 8),
        (0xFF, 0),
        (0x00, -32124),
        (0x0F, -16764),
        (0x1F, -8316),
        (0x7E, -8),
        (0x7F, 0),
    ],
)
def test_ulaw_levels(byte: int, sample: int) -> None:
    assert level(PCMU, byte) == sample


@pytest.mark.parametrize(
    ("byte", "sample"),
    [
        # table 1a with the even bits inverted, 13 -> 16 bits
        (0xAA, 32256),
        (0xA5, 16896),
        (0xD5, 8),
        (0xD4, 24),
        (0x55, -8),
        (0x54, -24),
        (0x2A, -32256),
        (0x80, 5504),
        (0x00, -5504),
    ],
)
def test_alaw_levels(byte: int, sample: int) -> None:
    assert level(PCMA, byte) == sample


@pytest.mark.parametrize("law", LAWS)
def test_all_levels_are_audioops(law: str, audioop: ModuleType) -> None:
    codes = bytes(range(256))
    reference = audioop.ulaw2lin(codes, 2) if law == PCMU else audioop.alaw2lin(codes, 2)
    assert decode(law, codes) == reference


@pytest.mark.parametrize("law", LAWS)
def test_every_code_survives_a_round_trip(law: str) -> None:
    for byte in range(256):
        again = code(law, level(law, byte))
        assert again == byte or (law == PCMU and {byte, again} == {0x7F, 0xFF})


@pytest.mark.parametrize("law", LAWS)
def test_every_sample_gets_the_nearest_code(law: str) -> None:
    levels = sorted({level(law, byte) for byte in range(256)})
    samples = struct.pack("<65536h", *range(-32768, 32768))
    heard = struct.unpack("<65536h", decode(law, encode(law, samples)))
    position = 0
    for sample, got in zip(range(-32768, 32768), heard, strict=True):
        while position + 1 < len(levels) and levels[position + 1] <= sample:
            position += 1
        nearest = min(abs(sample - near) for near in levels[position : position + 2])
        assert abs(sample - got) == nearest, sample


@pytest.mark.parametrize("law", LAWS)
def test_louder_never_becomes_quieter(law: str) -> None:
    heard = [level(law, code(law, sample)) for sample in range(-32768, 32768, 7)]
    assert heard == sorted(heard)


def test_silence_is_silent() -> None:
    assert level(PCMU, SILENCE[PCMU][0]) == 0
    assert abs(level(PCMA, SILENCE[PCMA][0])) == 8
    assert encode(PCMU, b"\0\0") == SILENCE[PCMU]


def test_payload_types_are_rfc_3551s() -> None:
    assert PAYLOAD_TYPES == {"PCMU": 0, "PCMA": 8}


@given(st.sampled_from(LAWS), st.binary(max_size=400))
def test_any_bytes_have_two_bytes_a_sample(law: str, payload: bytes) -> None:
    linear = decode(law, payload)
    assert len(linear) == 2 * len(payload)
    assert decode(law, encode(law, linear)) == linear
    assert encode(law, linear + b"\x7f") == encode(law, linear)
