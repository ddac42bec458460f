"""Token buckets in memory that all workers of this host share; :mod:`~eslbot.server.rate_limit` fills them.

Workers are processes; they share one anonymous memory map that the arbiter makes before it forks. One number
a bucket says all there is to say: when it will be full again (the generic cell rate algorithm, ITU-T I.371),
in seconds of the monotonic clock, which is the same in all processes. Two workers that write it in the very
same microsecond may both take the last token: that is one more, and cheaper than a lock.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterable

from eslbot.config.sources import Party

#: Parties ever seen.
COLUMNS = 4096
#: Seconds by which sums of fractions may be too much.
_ROUNDING = 1e-6
#: The bucket of whoever is no party.
NOBODY = ""


class TokenBuckets:
    """One for each party; they are given out by the arbiter and never taken back."""

    def __init__(self) -> None:
        self._full_at = memoryview(mmap.mmap(-1, COLUMNS * 8)).cast("d")
        self._columns = {NOBODY: 0}

    def know(self, parties: Iterable[Party]) -> None:
        """Give a bucket to each new party; before the fork. Raises ValueError, and then gave none."""
        new = [party.key for party in parties if party.key not in self._columns]
        if len(self._columns) + len(new) > COLUMNS:
            raise ValueError(
                f"more than {COLUMNS} owners of sources since the start; restart to forget old ones"
            )
        for key in new:
            self._columns[key] = len(self._columns)

    def take(self, key: str, rate: float, burst: float) -> bool:
        """Take one token, where there is one: ``rate`` come in a second, a full bucket holds ``burst``."""
        column, now = self._columns[key], time.monotonic()
        full_at = max(self._full_at[column], now) + 1 / rate
        if full_at - now > burst / rate + _ROUNDING:
            return False
        self._full_at[column] = full_at
        return True
