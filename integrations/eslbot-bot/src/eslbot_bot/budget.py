"""How fast a bot may send: below what eslbot allows, beyond which it would take the bot for a failed one."""

from __future__ import annotations

#: Of eslbot: 300 messages a second and 6,000 at once; 1 MiB a second and 16 MiB at once.
MESSAGES, MESSAGES_AT_ONCE = 200, 4000
BYTES, BYTES_AT_ONCE = 768 * 1024, 12 * 1024 * 1024


class Budget:
    """What may be sent on one connection. Times are seconds of any clock that only goes forward."""

    def __init__(self, now: float) -> None:
        self._then = now
        self._messages, self._bytes = float(MESSAGES_AT_ONCE), float(BYTES_AT_ONCE)

    def wait(self, now: float) -> float:
        """Seconds until another message may be sent; 0 where it may be now."""
        passed, self._then = now - self._then, now
        self._messages = min(MESSAGES_AT_ONCE, self._messages + passed * MESSAGES)
        self._bytes = min(BYTES_AT_ONCE, self._bytes + passed * BYTES)
        return max(0.0, (1 - self._messages) / MESSAGES, -self._bytes / BYTES)

    def sent(self, size: int) -> None:
        """A message of ``size`` bytes was sent."""
        self._messages -= 1
        self._bytes -= size
