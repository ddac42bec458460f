"""Summaries of a quarter of an hour: what the charts are made of.

A call counts for its tenant, where its INVITE came, in two steps: once its bot is heard (or never will be),
and once it has ended. What it counts for is a function of its row alone (:func:`figures`), so a row that
changes changes its summary by the difference, in the same transaction: at any moment a summary is the sum
over the rows of its time, whatever was restarted in between. A latency is kept as a histogram of fixed
bounds, so that its quantiles over any span can be told.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from eslbot.ledger.fold import REFUSED
from eslbot.ledger.schema import calls, summary
from eslbot.outcome import Fault

Row = Mapping[str, Any]
#: Counts by name; a bucket of a latency is named by :func:`_bucket`.
Figures = dict[str, int]

#: Seconds of one summary.
QUARTER = 900
#: The ``workspace_id`` of calls that are nobody's.
NOBODY = ""

#: What is measured in each step, in seconds, from one column to another. A further one needs no migration,
#: but a :func:`rebuild` for the calls of before.
BEGINNING = {"set_up": ("invited_at", "answered_at"), "first_audio": ("answered_at", "first_audio_at")}
END = {"hand_off": ("bot_ended_at", "handed_off_at")}  # to Ameyo's acceptance, all attempts included
#: A call's median answer: how long its caller waited for the bot to be heard.
TURN = "turn"
LATENCIES = (*BEGINNING, *END, TURN)

#: Summaries that are read one at a time: a statement for any number of them costs three times as much.
ONE_BY_ONE = 3
#: Causes of refusals that are told apart in one summary; all others are one.
MAX_CAUSES = 32
_REFUSED = "refused "
_OTHERS = "others"

#: A histogram's buckets are 20 a decade, from a millisecond to 1,000 s: each a factor of 1.122 wide, so its
#: (geometric) middle is within 6 % of whatever is in it.
FINEST, A_DECADE = 0.001, 20
LAST_BUCKET = 1 + 6 * A_DECADE


def figures(row: Row) -> Figures:
    """What one call counts for, as far as it has come."""
    if row["stage"] == REFUSED:
        return {_REFUSED + (row["refusal"] or "unknown"): 1}
    ended = row["ended_at"]
    if row["first_audio_at"] is None and row["bot_ended_at"] is None and ended is None:
        return {}
    told = {"calls": 1}
    _measure(told, row, BEGINNING)
    if ended is not None:
        told["ended"] = 1
        if row["fault"] == Fault.NONE:
            told["good"] = 1
        if row["take_overs"]:
            told["take_overs"] = row["take_overs"]
        if row["answer_p50"] is not None:
            told[f"{TURN} {_bucket(row['answer_p50'])}"] = 1
        if row["handed_off_at"] != ended:  # else only the end has told of it: how long it took, nobody knows
            _measure(told, row, END)
    return told


def _measure(told: Figures, row: Row, latencies: Mapping[str, tuple[str, str]]) -> None:
    for name, (begin, end) in latencies.items():
        if (began := row[begin]) is not None and (ended := row[end]) is not None:
            told[f"{name} {_bucket(ended - began)}"] = 1


def _bucket(seconds: float) -> int:
    if seconds < FINEST:
        return 0
    return min(1 + int(A_DECADE * math.log10(seconds / FINEST) + 1e-9), LAST_BUCKET)


def _middle(bucket: int) -> float:
    if bucket == 0:
        return FINEST / 2
    if bucket == LAST_BUCKET:
        return FINEST * 10 ** ((LAST_BUCKET - 1) / A_DECADE)
    return FINEST * 10 ** ((bucket - 0.5) / A_DECADE)


def quarter_of(at: float) -> int:
    """Epoch seconds of the beginning of the quarter of an hour that ``at`` is in."""
    return int(at // QUARTER) * QUARTER


@dataclass(slots=True)
class Changes:
    """What some calls' rows change in the summaries: by the quarter and the tenant."""

    counts: dict[tuple[int, str], Figures] = field(default_factory=dict)

    def move(self, before: Row | None, after: Row) -> None:
        """A row was ``before``, or was not at all, and is now ``after``."""
        now = _place(after), figures(after)
        was = (_place(before), figures(before)) if before is not None else None
        if was != now:
            if was is not None:
                self._add(*was, -1)
            self._add(*now, 1)

    def _add(self, place: tuple[int, str], told: Figures, sign: int) -> None:
        counts = self.counts.setdefault(place, {})
        for name, count in told.items():
            counts[name] = counts.get(name, 0) + sign * count

    def save(self, connection: Connection) -> None:
        """Write them. Nobody else may write meanwhile: what is there is read before."""
        changed = {place: counts for place, counts in self.counts.items() if any(counts.values())}
        if not changed:
            return
        known = _known(connection, list(changed))
        rows = [
            {"at": place[0], "workspace_id": place[1], "figures": _sum(known.get(place, {}), counts)}
            for place, counts in changed.items()
        ]
        connection.execute(_UPSERTS[connection.dialect.name], rows)


def _known(connection: Connection, places: Sequence[tuple[int, str]]) -> dict[tuple[int, str], Figures]:
    if len(places) <= ONE_BY_ONE:
        told = {
            place: connection.execute(_ONE, dict(zip(("at", "tenant"), place, strict=True)))
            for place in places
        }
        return {place: row[0] for place, found in told.items() if (row := found.first()) is not None}
    quarters, tenants = map(set, zip(*places, strict=True))
    rows = connection.execute(_SOME, {"quarters": list(quarters), "tenants": list(tenants)})
    return {(at, tenant): figures for at, tenant, figures in rows}


def _place(row: Row) -> tuple[int, str]:
    return quarter_of(row["invited_at"]), row["workspace_id"] or NOBODY


def _sum(known: Figures, counts: Mapping[str, int]) -> Figures:
    told = dict(known)
    for name, count in counts.items():
        if name.startswith(_REFUSED) and name not in told and len(_causes(told)) >= MAX_CAUSES:
            name = _REFUSED + _OTHERS
        if left := told.get(name, 0) + count:
            told[name] = left
        else:
            told.pop(name, None)
    return told


def _causes(told: Figures) -> list[str]:
    return [name for name in told if name.startswith(_REFUSED)]


def _make_upsert(insert: Any) -> Any:
    made = insert(summary)
    return made.on_conflict_do_update(
        index_elements=["at", "workspace_id"], set_={"figures": made.excluded.figures}
    )


_UPSERTS = {"postgresql": _make_upsert(postgresql.insert), "sqlite": _make_upsert(sqlite.insert)}
_ONE = select(summary.c.figures).where(
    summary.c.at == bindparam("at"), summary.c.workspace_id == bindparam("tenant")
)
_SOME = select(summary.c.at, summary.c.workspace_id, summary.c.figures).where(
    summary.c.at.in_(bindparam("quarters", expanding=True)),
    summary.c.workspace_id.in_(bindparam("tenants", expanding=True)),
)


def expire(connection: Connection, before: float) -> None:
    """Forget the summaries of times before then."""
    connection.execute(delete(summary).where(summary.c.at < quarter_of(before)))


def rebuild(connection: Connection) -> None:
    """Make all of them anew from the calls, as a database needs it that was written without them."""
    connection.execute(delete(summary))
    names = {
        "workspace_id", "invited_at", "bot_ended_at", "ended_at", "stage", "refusal", "fault", "take_overs",
        *("answer_p50", *(column for pair in (BEGINNING | END).values() for column in pair)),
    }  # fmt: skip
    changes = Changes()
    rows = connection.execute(
        select(*(calls.c[name] for name in names)), execution_options={"yield_per": 2000}
    )
    for row in rows.mappings():
        changes.move(None, dict(row))
    places = list(changes.counts)
    for start in range(0, len(places), 500):
        Changes({place: changes.counts[place] for place in places[start : start + 500]}).save(connection)


# -- charts -------------------------------------------------------------------------------------------------


def chart(
    connection: Connection, begin: int, end: int, step: int, workspaces: Iterable[str] | None
) -> dict[str, Any]:
    """``points``, one for each ``step`` seconds from ``begin`` to before ``end``, and their ``total``.

    ``workspaces`` are the ids of tenants, which are added up; None is everybody.
    """
    points: dict[int, Counter[str]] = {at: Counter() for at in range(begin, end, step)}
    query = select(summary.c.at, summary.c.figures).where(summary.c.at >= begin, summary.c.at < end)
    if workspaces is not None:
        query = query.where(summary.c.workspace_id.in_(sorted(workspaces)))
    for at, told in connection.execute(query):
        points[at - (at - begin) % step].update(told)
    return charted(points)


def charted(points: Mapping[int, Counter[str]]) -> dict[str, Any]:
    """The figures of each point by its time, for people."""
    whole: Counter[str] = Counter()
    for counts in points.values():
        whole.update(counts)
    return {
        "points": [{"at": at, **_told(counts)} for at, counts in points.items()],
        "total": _told(whole),
    }


def _told(counts: Counter[str]) -> dict[str, Any]:
    """For people: of what was never counted below nothing is told (a version before may have written)."""
    left = {name: count for name, count in counts.items() if count > 0}
    ended, good = left.get("ended", 0), left.get("good", 0)
    buckets: dict[str, dict[int, int]] = {name: {} for name in LATENCIES}
    refused = {}
    for name, count in left.items():
        word, _, rest = name.partition(" ")
        if word in buckets and rest:
            buckets[word][int(rest)] = count
        elif name.startswith(_REFUSED):
            refused[rest] = count
    return {
        "calls": left.get("calls", 0),
        "ended": ended,
        "success": round(min(good / ended, 1.0), 4) if ended else None,
        "refused": dict(sorted(refused.items(), key=lambda pair: (-pair[1], pair[0]))),
        "take_overs": left.get("take_overs", 0),
        **{name: _quantiles(found) for name, found in buckets.items()},
    }


def _quantiles(buckets: Mapping[int, int]) -> dict[str, Any]:
    return {
        "count": sum(buckets.values()),
        "p50": quantile(buckets, 0.5),
        "p95": quantile(buckets, 0.95),
    }


def quantile(buckets: Mapping[int, int], share: float) -> float | None:
    """Seconds that ``share`` of a histogram are not above, to 6 %; None where there is nothing in it."""
    left = math.ceil(share * sum(buckets.values()))
    for bucket in sorted(buckets):
        left -= buckets[bucket]
        if left <= 0 < buckets[bucket]:
            return float(f"{_middle(bucket):.3g}")
    return None
