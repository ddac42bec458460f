"""A ledger of calls that never were: of 20 tenants of different sizes, in the 90 days before now."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Engine, insert

from eslbot.ledger.database import writing
from eslbot.ledger.record import CallRecord, needs_attention
from eslbot.ledger.schema import calls

TENANTS = [str(uuid.UUID(int=number + 1)) for number in range(20)]
DAYS = 90
#: How often each outcome is, of 1,000,000 calls.
OUTCOMES = {
    "bot_ended": 899_000,
    "caller_hangup": 80_000,
    "bot_failed": 20_000,
    "bot_silent": 997,
    "our_bye": 3,
}
FAULTS = {"bot_failed": "bot", "bot_silent": "bot", "our_bye": "eslbot"}


def rows(count: int, until: float, seed: int = 1) -> Iterator[dict[str, Any]]:
    """``count`` calls, the oldest first."""
    chance = random.Random(seed)
    sizes = [1 / (number + 1) for number in range(len(TENANTS))]
    began = until - DAYS * 86400
    for number in range(count):
        at = began + DAYS * 86400 * number / count
        tenant = chance.choices(range(len(TENANTS)), sizes)[0]
        (outcome,) = chance.choices(list(OUTCOMES), list(OUTCOMES.values()))
        bot_ended = at + chance.expovariate(1 / 90)
        handed_off = None if outcome == "caller_hangup" else bot_ended + chance.lognormvariate(-1.5, 0.6)
        row = CallRecord.new(str(uuid.UUID(int=chance.getrandbits(128), version=4))).row
        row |= {
            "workspace_id": TENANTS[tenant],
            "workspace": f"tenant-{tenant}",
            "did": f"00919{tenant:03d}{chance.randrange(200):06d}",
            "crt_object_id": f"d444-{chance.getrandbits(32):08x}-vce-{number}",
            "caller": f"9198{chance.randrange(10**8):08d}",
            "called": "bot",
            "source": "203.0.113.10",
            "invited_at": at,
            "answered_at": at + chance.lognormvariate(-3, 0.4),
            "bot_connected_at": at + 0.3,
            "first_audio_at": at + 0.3 + chance.lognormvariate(-0.5, 0.5),
            "bot_ended_at": bot_ended,
            "notified_at": None if handed_off is None else bot_ended + 0.05,
            "handed_off_at": handed_off,
            "ended_at": (handed_off or bot_ended) + 20,
            "updated_at": at,
            "stage": "held" if handed_off else "talking",
            "outcome": outcome,
            "fault": FAULTS.get(outcome, "none"),
            "sip_hangup_disposition": "recv_bye",
            "hangup_cause": "NORMAL_CLEARING",
            "attempts": 0 if handed_off is None else 1,
            "host": "vm-1",
        }
        row["attention"] = needs_attention(row)
        yield row


def make(engine: Engine, count: int) -> None:
    """Write them."""
    some: list[dict[str, Any]] = []
    for row in rows(count, time.time()):
        some.append(row)
        if len(some) == 10_000:
            _write(engine, some)
            some = []
    _write(engine, some)


def _write(engine: Engine, some: list[dict[str, Any]]) -> None:
    if some:
        with writing(engine) as connection:
            connection.execute(insert(calls), some)
