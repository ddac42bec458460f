"""News for the controller that are kept until it has acknowledged them.

News are lost where a controller dies behind FreeSWITCH's event, and before it has done what they tell. So
they have numbers, and a new controller is told again what nobody has acknowledged
(:mod:`eslbot.relay.control`).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from eslbot.relay.control import News, news
from eslbot.relay.stream_server import Stream

#: News that are kept. A controller acknowledges every eighth at least; where there is none for so long, the
#: oldest are forgotten: what counts of them is in STATE.
MAX_KEPT = 256


class Outbox:
    """The news of one call; they are sent where there is a :attr:`stream`."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self._kept: deque[tuple[int, str]] = deque(maxlen=MAX_KEPT)
        self._last = 0
        self._acked = 0

    def tell(self, what: News, **facts: Any) -> None:
        """Send news, and keep them."""
        self._last += 1
        text = news(what, self._last, **facts)
        self._kept.append((self._last, text))
        self._send(text)

    def tell_state(self, **facts: Any) -> None:
        """Send a STATE, and again all news that nobody has acknowledged, in order."""
        self._send(news(News.STATE, acked=self._acked, **facts))
        for _, text in self._kept:
            self._send(text)

    def ack(self, number: int) -> None:
        """Forget news up to ``number``."""
        self._acked = max(self._acked, min(number, self._last))
        while self._kept and self._kept[0][0] <= self._acked:
            self._kept.popleft()

    def _send(self, text: str) -> None:
        if self.stream is not None:
            self.stream.send_text(text)
