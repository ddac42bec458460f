"""News for the controller that are kept until it has acknowledged them.

News are lost where a controller dies behind FreeSWITCH's event, and before it has done what they tell. So
they have numbers, and a new controller is told again what nobody has acknowledged
(:mod:`eslbot.relay.control`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from eslbot.relay.control import News, news

#: News that are kept. A controller acknowledges every eighth at least; where there is none for so long, the
#: oldest are forgotten: what counts of them is in STATE.
MOST = 256


class Outbox:
    """The news of one call."""

    def __init__(self) -> None:
        self._kept: deque[tuple[int, str]] = deque(maxlen=MOST)
        self._last = 0
        #: News up to this number are not told again.
        self.acked = 0

    def put(self, what: News, **facts: Any) -> str:
        """The text to send; it is kept."""
        self._last += 1
        text = news(what, self._last, **facts)
        self._kept.append((self._last, text))
        return text

    def ack(self, number: int) -> None:
        """Forget news up to ``number``."""
        self.acked = max(self.acked, min(number, self._last))
        while self._kept and self._kept[0][0] <= self.acked:
            self._kept.popleft()

    def again(self) -> Iterable[str]:
        """What was not acknowledged, in order."""
        return [text for _, text in self._kept]
