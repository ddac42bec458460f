"""How long a bot's speech waits before it is begun (adaptive), so that a late message is not heard as a gap.

A message's delay is its arrival less the length of what the utterance had sent before it. Within an utterance
the least delay so far is kept; how far a later one lies above it is the *draw-up*. The playout delay grows at
once to the greatest draw-up and, at an utterance's end, falls by a twentieth of its distance to that
utterance's (docs/line-file.md, "The playout delay").

A bot that was ahead of real time is not paced: a pause behind a burst is a pause, no lateness. Nothing is
learnt from the rest of such an utterance, nor from a delay that no network makes.
"""

from __future__ import annotations

#: Seconds. More than this is no jitter, but a bot that thinks.
MAX_DELAY = 0.3
#: Seconds beyond the draw-up: wake-ups of the bot, of the relay and of FreeSWITCH. Lateness below _EXACT is
#: none.
_GUARD = 0.003
_EXACT = 0.0001
_DECAY = 0.05
#: Seconds by which a message comes earlier than the utterance's first and the bot is taken to be ahead.
_AHEAD = 0.15


class PlayoutDelay:
    """What was learnt of a bot. One of a workspace lives as long as the worker; its calls' are made by it."""

    def __init__(self, parent: PlayoutDelay | None = None) -> None:
        self._parent = parent
        self._learnt: float = parent._learnt if parent else 0.0
        self._first: float | None = None
        self._least = self._top = self._sent = 0.0
        self._ahead = False

    def of_call(self) -> PlayoutDelay:
        """That of another call: begins with what is known here, and tells here what it learns."""
        return PlayoutDelay(self)

    @property
    def seconds(self) -> float:
        """How far ahead of its being heard an utterance's first sample is to be there."""
        return self._learnt + _GUARD if self._learnt >= _EXACT else 0.0

    def message(self, now: float, media_seconds: float) -> None:
        """Speech of this length has come."""
        delay = now - self._sent
        self._sent += media_seconds
        if self._first is None:
            self._first = self._least = delay
            return
        self._least = min(self._least, delay)
        self._ahead = self._ahead or delay < self._first - _AHEAD
        if not self._ahead and self._top < delay - self._least <= MAX_DELAY:
            self._top = delay - self._least
            self._grow(self._top)

    def utterance_over(self) -> None:
        """What comes next has nothing to do with what came."""
        if self._first is not None:
            self._shrink(self._top)
        self._first, self._sent, self._top, self._ahead = None, 0.0, 0.0, False

    def _grow(self, top: float) -> None:
        self._learnt = max(self._learnt, top)
        if self._parent:
            self._parent._grow(top)

    def _shrink(self, top: float) -> None:
        self._learnt -= max(0.0, self._learnt - top) * _DECAY
        if self._parent:
            self._parent._shrink(top)
