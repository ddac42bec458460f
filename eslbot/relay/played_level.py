"""How loud was what the caller has just heard of the bot: an echo of it is softer.

The line's files cannot be asked: a read of ours would count as one of FreeSWITCH's. So what is placed there
is remembered until it was heard: as it is where it is short, which costs nothing until somebody asks, and by
the levels of its frames where it is a bot's whole answer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eslbot.audio.levels import frame_rms

#: Frames up to which speech is kept as it is.
MAX_RAW_FRAMES = 16


@dataclass(slots=True)
class _Piece:
    """Speech that is heard from tick ``first`` to before ``last``; or the levels of its frames."""

    first: int
    last: int
    speech: bytes | NDArray[np.float32]


class PlayedLevel:
    """The level of one call's bot, over the last ``window`` ticks; a frame has ``frame_bytes``."""

    def __init__(self, frame_bytes: int, window: int) -> None:
        self._frame_bytes, self._window = frame_bytes, window
        self._pieces: deque[_Piece] = deque()

    def placed(self, first: int, linear: bytes, tick: int) -> None:
        """L16 stands in the line from tick ``first`` on; FreeSWITCH reads ``tick`` next."""
        while self._pieces and self._pieces[0].last <= tick - self._window:
            self._pieces.popleft()
        count = -(-len(linear) // self._frame_bytes)
        speech = linear if count <= MAX_RAW_FRAMES else frame_rms(linear, self._frame_bytes)
        self._pieces.append(_Piece(first, first + count, speech))

    def cut(self, tick: int) -> None:
        """Nothing of it is heard from this tick on."""
        while self._pieces and self._pieces[-1].first >= tick:
            self._pieces.pop()
        if self._pieces:
            self._pieces[-1].last = min(self._pieces[-1].last, tick)

    def loudest(self, tick: int) -> float:
        """The level of the loudest frame (root mean square, of 32,768) of those before ``tick``."""
        loudest = 0.0
        for piece in self._pieces:
            begin = max(0, tick - self._window - piece.first)
            end = min(tick, piece.last) - piece.first
            if end <= 0:
                break
            if end > begin:
                speech = piece.speech
                levels = frame_rms(speech, self._frame_bytes) if isinstance(speech, bytes) else speech
                loudest = max(loudest, float(levels[begin:end].max(initial=0.0)))
        return loudest
