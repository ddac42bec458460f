"""How loud was what the caller has just heard: an echo of it is softer.

The line's files cannot be asked: a read of ours would count as one of FreeSWITCH's. So what is placed there
is remembered until it was heard: as it is where it is short, which costs nothing until somebody asks, and by
the levels of its frames where it is a bot's whole answer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eslbot.relay.speech import levels_of

#: Frames up to which speech is kept as it is.
SHORT = 16


@dataclass(slots=True)
class _Piece:
    """Speech that is heard from tick ``first`` to before ``last``; or the levels of its frames."""

    first: int
    last: int
    speech: bytes | NDArray[np.float32]


class Lately:
    """Of one call. ``size``: the bytes of a frame; ``ticks``: how long ago is lately."""

    def __init__(self, size: int, ticks: int) -> None:
        self._size, self._ticks = size, ticks
        self._pieces: deque[_Piece] = deque()

    def placed(self, first: int, linear: bytes, tick: int) -> None:
        """L16 stands in the line from tick ``first`` on; FreeSWITCH reads ``tick`` next."""
        self.forget(tick)
        count = -(-len(linear) // self._size)
        speech = linear if count <= SHORT else levels_of(linear, self._size)
        self._pieces.append(_Piece(first, first + count, speech))

    def cut(self, tick: int) -> None:
        """Nothing of it is heard from this tick on."""
        while self._pieces and self._pieces[-1].first >= tick:
            self._pieces.pop()
        if self._pieces:
            self._pieces[-1].last = min(self._pieces[-1].last, tick)

    def forget(self, tick: int) -> None:
        """What was heard before."""
        while self._pieces and self._pieces[0].last <= tick - self._ticks:
            self._pieces.popleft()

    def loudest(self, tick: int) -> float:
        """The level of the loudest frame (root mean square, of 32,768) of those before ``tick``."""
        loudest = 0.0
        for piece in self._pieces:
            begin = max(0, tick - self._ticks - piece.first)
            end = min(tick, piece.last) - piece.first
            if end <= 0:
                break
            if end > begin:
                speech = piece.speech
                levels = levels_of(speech, self._size) if isinstance(speech, bytes) else speech
                loudest = max(loudest, float(levels[begin:end].max(initial=0.0)))
        return loudest
