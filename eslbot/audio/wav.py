"""The samples of a RIFF/WAVE file, which may be badly written or not written to its end."""

from __future__ import annotations

import struct

from eslbot.audio import UnusableAudio

#: Format tags of WAV (RFC 2361; `extensible` has the real one in its GUID), and sizes that are not known yet.
_PCM, _EXTENSIBLE = 1, 0xFFFE
_UNKNOWN_SIZES = (0, 0xFFFFFFFF)
#: Chunks that may stand before the data.
_MAX_CHUNKS = 100


def unwrap(content: bytes) -> tuple[bytes, int]:
    """Samples and rate of a RIFF/WAVE file of 16-bit PCM, one channel. Raises :class:`UnusableAudio`.

    Sizes are hints: a program that streams writes 0 or 0xFFFFFFFF where it does not know them yet, and one
    that was badly written counts its LIST chunk wrong.
    """
    form, at, size = _find_data(content)
    if form is None:
        raise UnusableAudio("not a WAV file: it has no fmt chunk before its data")
    tag, channels, rate, bits = form
    if (tag, channels, bits) != (_PCM, 1, 16):
        raise UnusableAudio(
            f"wav of format {tag} with {channels} channels of {bits} bits; send 16-bit PCM (format 1), mono"
        )
    samples = content[at:] if size in _UNKNOWN_SIZES else content[at : at + size]
    if len(samples) < 2:
        raise UnusableAudio("a WAV file without samples")
    return samples, rate


def _find_data(content: bytes) -> tuple[tuple[int, int, int, int] | None, int, int]:
    """What the fmt chunk says (tag, channels, rate, bits), and where the data begin and how long they are."""
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise UnusableAudio("not a WAV file: it does not begin with RIFF and WAVE")
    form: tuple[int, int, int, int] | None = None
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(content):
            raise UnusableAudio("not a WAV file: it breaks off before its data")
        name, size = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        at += 8
        if name == b"data":
            return form, at, size
        if name == b"fmt " and size >= 16 and at + 16 <= len(content):
            tag, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", content, at)
            if tag == _EXTENSIBLE and size >= 40 and at + 26 <= len(content):
                (tag,) = struct.unpack_from("<H", content, at + 24)
            form = tag, channels, rate, bits
        following = at + size + (size & 1)
        if not _chunk_at(content, following):
            following = content.find(b"data", at)
            if following < 0:
                raise UnusableAudio("not a WAV file: it has no data chunk")
        at = following
    raise UnusableAudio(f"not a WAV file: {_MAX_CHUNKS} chunks and no data")


def _chunk_at(content: bytes, at: int) -> bool:
    """Whether a chunk begins there: four printable characters and a size."""
    name = content[at : at + 4]
    return at + 8 <= len(content) and all(0x20 <= character < 0x7F for character in name)
