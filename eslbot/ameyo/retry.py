"""Which of Ameyo's answers are retried, and when; :mod:`eslbot.ameyo.client` has the loop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

#: Seconds before the second attempt, doubled each time up to the cap; each with up to half taken off.
FIRST_DELAY = 0.5
SLOW_CAP = 30.0
#: A customer is waiting: a Retry-After beyond this is not waited for.
MAX_RETRY_AFTER = 300.0

_RETRIED = frozenset({408, 425, 429})


class Verdict(StrEnum):
    """What became of one attempt."""

    ACCEPTED = "accepted"
    FAILED = "failed"  # the network, a time-out, 408, 425, 429, 5xx: Ameyo may do better soon
    REJECTED = "rejected"  # any other answer: somebody must mend a token or a host first
    INTERRUPTED = "interrupted"  # the call was over before the answer came


def verdict_of(status: int) -> Verdict:
    """Of an answer with this status."""
    if 200 <= status < 300:
        return Verdict.ACCEPTED
    return Verdict.FAILED if status in _RETRIED or status >= 500 else Verdict.REJECTED


def delay(number: int, verdict: Verdict, retry_after: float | None, jitter: Callable[[], float]) -> float:
    """Seconds from attempt ``number`` to the next; 0.0 where none follows. ``jitter`` gives 0 to 1."""
    if verdict in (Verdict.ACCEPTED, Verdict.INTERRUPTED):
        return 0.0
    if verdict is Verdict.REJECTED:
        seconds = SLOW_CAP
    else:
        seconds = min(SLOW_CAP, FIRST_DELAY * 2 ** min(number - 1, 16))
    return max(seconds * (1 - jitter() / 2), retry_after or 0.0)


def parse_retry_after(text: str | None) -> float | None:
    """Seconds of a Retry-After (RFC 9110, 10.2.3), within bounds; None where it says nothing."""
    if not text:
        return None
    if text.isascii() and text.isdigit():
        seconds = float(text[:9])
    else:
        try:
            when = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        seconds = (when - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), MAX_RETRY_AFTER)
