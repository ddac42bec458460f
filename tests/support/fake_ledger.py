"""A ledger as the page knows one: questions answered from memory, and a real projection of living calls."""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

from eslbot.ledger.filters import Filter
from eslbot.ledger.projection import LedgerHealth, Projection
from eslbot.ledger.queries import CallDetails, Place
from eslbot.ledger.query_service import QueryService
from eslbot.ledger.record import needs_attention
from eslbot.ledger.schema import calls
from eslbot.ledger.summary import chart_of, counts_of

Row = dict[str, Any]

WORKSPACES = {
    "2b37ba17-7b20-4b3e-b138-1161e351d5c5": "acme",
    "11111111-1111-1111-1111-111111111111": "zenith",
}
ACME, ZENITH = WORKSPACES
COLUMNS = tuple(column.name for column in calls.columns)


def row(number: int, workspace_id: str = ACME, **values: Any) -> Row:
    """A call that talks; ``values`` are other columns."""
    now = time.time()
    return {
        **dict.fromkeys(COLUMNS),
        "call_id": f"6e7cd1a1-0b1a-4ad5-8a2c-{number:012d}",
        "workspace_id": workspace_id,
        "workspace": WORKSPACES[workspace_id],
        "did": f"00919990{number:06d}",
        "crt_object_id": f"d444-6a1c8f2e-vce-{number}",
        "caller": f"09123{number:06d}",
        "called": "bot",
        "source": "203.0.113.10",
        "invited_at": now - 30,
        "answered_at": now - 29.9,
        "bot_connected_at": now - 29.7,
        "updated_at": now,
        "stage": "talking",
        "attempts": 0,
        "take_overs": 0,
        "byes_overdue": 0,
        "restarts": 0,
        "end_unseen": False,
        "host": "vm-1",
        **values,
    }


class FakeLedger(QueryService):
    """``obedient=False``: it forgets to look at the rights."""

    def __init__(self, *, obedient: bool = True) -> None:
        super().__init__(lambda: None)
        self.obedient = obedient
        self.calls_by_id: dict[str, Row] = {}
        self.timelines: dict[str, list[Row]] = {}
        self.notifications: dict[str, list[Row]] = {}
        self.turns: dict[str, list[Row]] = {}
        self.rows_of_tenants: list[Row] = []
        #: Every question and what it was about, in order.
        self.asked: list[tuple[Any, ...]] = []
        #: What is raised instead of an answer.
        self.fails: Exception | None = None
        self.projection = Projection()
        self.say(up=True)

    def begin_anew(self) -> None:
        """Its process has been started again: the projection is made of what the database has."""
        health = self.projection.health
        self.projection = Projection()
        self.projection.set_health(health)
        self.projection.put(self.calls_by_id.values())

    # -- what a test does ---------------------------------------------------------------------------------

    def put(self, *rows: Row) -> None:
        """Calls that are new or have changed."""
        self.calls_by_id.update({one["call_id"]: one for one in rows})
        self.projection.put(rows)

    def change(self, call_id: str, **values: Any) -> None:
        """Some columns of one."""
        self.put({**self.calls_by_id[call_id], **values})

    def end(self, call_id: str, **values: Any) -> None:
        """It is over."""
        ending = {"ended_at": time.time(), "outcome": "bot_ended", "fault": "none"}
        self.change(call_id, **{**ending, "sip_hangup_disposition": "recv_bye", **values})

    def say(self, *, up: bool, backlog: int = 0) -> None:
        """How the ledger is."""
        self.projection.set_health(LedgerHealth(up, backlog))

    # -- its questions --------------------------------------------------------------------------------------

    def calls(self, wanted: Filter, limit: int, before: Place | None) -> list[Row]:
        self._note("calls", wanted, limit, before)
        rows = [one for one in self._mine(wanted.workspaces) if _matches(one, wanted)]
        places = [(one["invited_at"], one["call_id"], one) for one in rows]
        last = (before.invited_at, before.call_id) if before is not None else (float("inf"), "")
        return [one for *place, one in sorted(places, reverse=True) if tuple(place) < last][:limit]

    def chart(self, begin: int, end: int, step: int, workspaces: frozenset[str] | None) -> Row:
        self._note("chart", workspaces)
        counts: dict[int, Counter[str]] = {at: Counter() for at in range(begin, end, step)}
        for one in self._mine(workspaces):
            if begin <= one["invited_at"] < end:
                at = int(one["invited_at"])
                counts[at - (at - begin) % step].update(counts_of(one))
        return chart_of(counts)

    def call(self, call_id: str, workspaces: frozenset[str] | None) -> CallDetails | None:
        self._note("call", call_id, workspaces)
        for one in self._mine(workspaces):
            if one["call_id"] == call_id:
                return CallDetails(
                    one,
                    self.timelines.get(call_id, []),
                    self.notifications.get(call_id, []),
                    self.turns.get(call_id, []),
                )
        return None

    def tenants(self, workspaces: frozenset[str] | None) -> list[Row]:
        self._note("tenants", workspaces)
        return [one for one in self.rows_of_tenants if self._may(workspaces, one)]

    def restarts(self, workspaces: frozenset[str] | None) -> Row:
        self._note("restarts", workspaces)
        since = time.time() - 3600
        rows = [one for one in self._mine(workspaces) if (one["restarted_at"] or 0) >= since]
        gaps = [one["restart_gap"] for one in rows if one["restart_gap"] is not None]
        last = max((one["restarted_at"] for one in rows), default=None)
        return {"calls": len(rows), "last": last, "gap": max(gaps, default=None)}

    def _note(self, *question: Any) -> None:
        self.asked.append(question)
        if self.fails is not None:
            raise self.fails

    def _may(self, workspaces: frozenset[str] | None, one: Row) -> bool:
        return workspaces is None or not self.obedient or one["workspace_id"] in workspaces

    def _mine(self, workspaces: frozenset[str] | None) -> list[Row]:
        return [one for one in list(self.calls_by_id.values()) if self._may(workspaces, one)]


def _matches(one: Row, wanted: Filter) -> bool:
    texts = [one["crt_object_id"] or "", one["call_id"]]
    numbers = [one[column] or "" for column in ("did", "caller")]
    return (
        (
            wanted.prefix is None
            or any(text.startswith(wanted.prefix) for text in texts + (numbers if wanted.numbers else []))
            or wanted.prefix in numbers
        )
        and (wanted.attention is None or needs_attention(one) is wanted.attention)
        and (wanted.workspace is None or wanted.workspace in (one["workspace"], one["workspace_id"]))
        and (wanted.live is None or (one["ended_at"] is None) is wanted.live)
        and (wanted.since is None or one["invited_at"] >= wanted.since)
        and (wanted.until is None or one["invited_at"] < wanted.until)
        and (wanted.crt is None or one["crt_object_id"] == wanted.crt)
        and (wanted.handed_off is None or (one["handed_off_at"] is not None) is wanted.handed_off)
        and all(
            getattr(wanted, name) in (None, one[name])
            for name in ("did", "caller", "outcome", "fault", "stage")
        )
    )


# -- many calls ---------------------------------------------------------------------------------------------

STAGES = ("connecting", "talking", "talking", "talking", "handing_off", "held", "held")


def many(count: int, seed: int = 5) -> list[Row]:
    """``count`` live calls in all stages."""
    chance = random.Random(seed)
    now = time.time()
    rows = []
    for number in range(count):
        began = now - chance.uniform(1, 900)
        stage = chance.choice(STAGES)
        up = now - began
        ended = began + min(38.0, 0.8 * up) if stage in ("handing_off", "held") else None
        handed_off = began + min(40.0, 0.9 * up) if stage == "held" else None
        rows.append(
            row(
                number,
                chance.choice((ACME, ACME, ZENITH)),
                invited_at=began,
                answered_at=began + 0.1,
                bot_connected_at=None if stage == "connecting" else began + 0.3,
                stage=stage,
                bot_ended_at=ended,
                notified_at=ended,
                handed_off_at=handed_off,
                attempts=chance.choice((1, 1, 1, 3)) if stage in ("handing_off", "held") else 0,
                take_overs=chance.choice((0,) * 20 + (1, 2)),
                outcome="bot_ended" if stage in ("handing_off", "held") else None,
            )
        )
    return rows


def stir(ledger: FakeLedger, changes: int, chance: random.Random, number: int) -> None:
    """``changes`` calls go on: to another stage mostly; one in ten ends, and a new one begins."""
    live = [call_id for call_id, one in ledger.calls_by_id.items() if one["ended_at"] is None]
    for call_id in chance.sample(live, changes):
        if chance.random() < 0.1:
            ledger.end(call_id)
            number += 1
            ledger.put(row(100_000 + number * 1000 + chance.randrange(1000), invited_at=time.time()))
        else:
            ledger.change(call_id, stage=chance.choice(STAGES), attempts=chance.choice((0, 1, 2)))
