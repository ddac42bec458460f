"""Which refusals get a log line and a ledger record of their own: in a flood the first ones, then a sum.

Every refusal is counted (``eslbot_refusals_total``). A log line and a ledger record of its own has each of
the first :data:`ALOUD` of a source, and one each :data:`EACH` seconds from then on; the others become one
line every :data:`SUM` seconds. Without this a PBX that is refused 400 times a second writes 35 million of
each a day.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

import gevent
import structlog

log = structlog.get_logger()

#: Refusals of one source that are told at once, and the seconds after which it may have one more.
ALOUD, EACH = 20, 1.0
#: Seconds between two lines that sum up.
SUM = 10.0
#: Sources that are told apart at one time; all others are one.
MAX_SOURCES = 256
_OTHERS = "others"


@dataclass(slots=True)
class _Source:
    #: When it may be told :data:`ALOUD` times again, on the monotonic clock.
    full_at: float = 0.0
    untold: Counter[str] = field(default_factory=Counter)


class RefusalLog:
    """Those of one worker."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._summing = False

    def reports(self, source: str, why: str) -> bool:
        """Whether this one is told; where not, it is in the next sum."""
        if source not in self._sources and len(self._sources) >= MAX_SOURCES:
            source = _OTHERS
        known = self._sources.setdefault(source, _Source())
        if not self._summing:
            self._summing = True
            # No greenlet of the call's: its lines are nobody's.
            gevent.spawn_later(SUM, self._sum_up_and_again)
        now = time.monotonic()
        full_at = max(known.full_at, now) + EACH
        if full_at - now > ALOUD * EACH:
            known.untold[why] += 1
            return False
        known.full_at = full_at
        return True

    def sum_up(self) -> None:
        """Tell of what was not told."""
        now = time.monotonic()
        for source, known in list(self._sources.items()):
            if known.untold:
                log.warning(
                    "more_calls_refused",
                    source=source,
                    calls=known.untold.total(),
                    why=dict(known.untold),
                    remedy="one source is refused over and over: look at its call_refused lines",
                )
                known.untold.clear()
            elif known.full_at <= now:
                del self._sources[source]

    def _sum_up_and_again(self) -> None:
        self.sum_up()
        self._summing = bool(self._sources)
        if self._summing:
            gevent.spawn_later(SUM, self._sum_up_and_again)
