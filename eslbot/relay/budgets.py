"""How much a bot may send: what no bot in its right mind needs costs all others of the relay.

Two buckets a connection, of messages and of bytes, filled steadily. The figures leave room for the least
economical bot that means well: pieces of 10 ms are 100 messages a second, and a whole minute that comes at
once in pieces of 10 ms is 6,000. L16 at 24,000 Hz as base64 is 64 KB a second; a full bucket of bytes is four
minutes of that, or the ten minutes at 8,000 Hz that may wait to be heard.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Messages a second, and at once.
MESSAGES, MESSAGES_AT_ONCE = 300, 6_000
#: Bytes a second (of texts and binary messages as they are sent), and at once.
BYTES, BYTES_AT_ONCE = 1024 * 1024, 16 * 1024 * 1024


class Budget:
    """What one connection has left. ``now`` is a monotonic clock in seconds."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._at = now()
        self._messages = float(MESSAGES_AT_ONCE)
        self._bytes = float(BYTES_AT_ONCE)

    def message(self, size: int) -> str | None:
        """Take a message of ``size`` bytes; a text where it is one too many."""
        now = self._now()
        passed, self._at = now - self._at, now
        self._messages = min(MESSAGES_AT_ONCE, self._messages + passed * MESSAGES) - 1
        self._bytes = min(BYTES_AT_ONCE, self._bytes + passed * BYTES) - size
        if self._messages < 0:
            return f"more than {MESSAGES} messages a second and {MESSAGES_AT_ONCE} at once"
        if self._bytes < 0:
            return f"more than {BYTES} bytes a second and {BYTES_AT_ONCE} at once"
        return None
