"""Marked sound: samples of which any sixteen tell where they stand in what was said.

What the bot and the callers say is noise made of G.711 codes (µ-law; RFC 3551, payload type 0), all but the
two that stand for silence. So a payload that arrives says, to the sample, which piece of what was said it is;
a sample that is missing, doubled or late cannot hide. Positions and lengths are samples at 8,000 a second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eslbot.audio import g711

#: Samples until the marks begin again: 524 s.
LENGTH = 1 << 22
#: Samples that are looked for; fewer may stand anywhere.
PROBE = 16
#: Samples before and behind the expected position that are looked at first.
NEAR = 80_000
#: Samples that are compared in one go, at first and at most.
_STEP, _MOST = 160, 8192

#: The two codes of silence, and what no caller's sample decodes to (see :func:`codes_of`).
SILENT = b"\x7f\xff"
FOREIGN = 0x7F
#: What is not in the marks.
_NEVER = set(SILENT)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of sound: where it begins, how long it is, and where it stands in what was said.

    ``position`` is None for silence, and -1 for a sound that was not said.
    """

    at: int
    length: int
    position: int | None

    @property
    def end(self) -> int:
        """The sample behind it."""
        return self.at + self.length


class Marks:
    """One endless marked sound; ``seed`` tells it from others."""

    def __init__(self, seed: int) -> None:
        codes = np.random.default_rng(seed).integers(0, 254, LENGTH, dtype=np.uint8)
        codes[codes >= FOREIGN] += 1  # 0x00 to 0x7e and 0x80 to 0xfe
        self._codes = np.concatenate([codes, codes[: 2 * NEAR]])
        self._bytes = self._codes.tobytes()

    def codes(self, start: int, samples: int) -> bytes:
        """µ-law of up to 20 s."""
        start %= LENGTH
        return self._bytes[start : start + samples]

    def linear(self, start: int, samples: int) -> bytes:
        """The same as L16."""
        return g711.decode("PCMU", self.codes(start, samples))

    def find(self, probe: bytes, near: int) -> int | None:
        """Where this stands in what was said: the one next to ``near``, where there are several."""
        near %= LENGTH
        found = self._bytes.find(probe, max(0, near - NEAR), near + NEAR)
        if found < 0:
            found = self._bytes.find(probe)
        return None if found < 0 else found % LENGTH

    def same(self, codes: NDArray[np.uint8], position: int) -> int:
        """How many of ``codes`` are what was said from ``position`` on."""
        matched, step = 0, _STEP
        while matched < len(codes):
            at = (position + matched) % LENGTH
            part = codes[matched : matched + step]
            differ = np.flatnonzero(part != self._codes[at : at + len(part)])
            if len(differ):
                return matched + int(differ[0])
            matched += len(part)
            step = min(2 * step, _MOST)
        return matched

    def pieces(self, codes: bytes, near: int = 0, silent: bytes = SILENT) -> list[Piece]:
        """All of ``codes`` in order: silence, what was said, and what was not."""
        array = np.frombuffer(codes, np.uint8)
        silence = re.compile(b"[" + re.escape(silent) + b"]+")
        found: list[Piece] = []
        at, foreign, expected = 0, 0, near % LENGTH  # `foreign`: where the sound began that is not known yet
        while at < len(codes):
            quiet = silence.match(codes, at)
            position = None
            if quiet is None:
                probe = codes[at : at + PROBE]
                if array[at] == self._codes[expected] and self.same(array[at : at + PROBE], expected) == len(
                    probe
                ):
                    position = expected
                elif len(probe) == PROBE and not set(probe) & _NEVER:
                    position = self.find(probe, expected)
                if position is None:
                    at += 1
                    continue
                while at > foreign and position and array[at - 1] == self._codes[position - 1]:
                    at, position = at - 1, position - 1
            if at > foreign:
                found.append(Piece(foreign, at - foreign, -1))
            if quiet is not None:
                found.append(Piece(at, quiet.end() - at, None))
            else:
                assert position is not None
                found.append(Piece(at, self.same(array[at:], position), position))
                expected = (position + found[-1].length) % LENGTH
            at = foreign = found[-1].end
        if at > foreign:
            found.append(Piece(foreign, at - foreign, -1))
        return found


def _codes_by_sample() -> NDArray[np.uint8]:
    table = np.full(65536, FOREIGN, np.uint8)
    samples = np.frombuffer(g711.decode("PCMU", bytes(range(256))), "<u2")
    table[samples] = np.arange(256, dtype=np.uint8)
    table[0] = 0xFF
    return table


_CODES = _codes_by_sample()


def codes_of(linear: bytes) -> bytes:
    """The µ-law codes whose samples these are; silence is 0xFF, and :data:`FOREIGN` is no code's sample."""
    codes: bytes = _CODES[np.frombuffer(linear, "<u2")].tobytes()
    return codes


#: What the bots say, and what the callers say.
LINE, CALLER = Marks(1), Marks(2)
