"""Summaries of a quarter of an hour a tenant: what the charts are made of.

A call counts in the quarter of its INVITE, in two steps: when its bot is heard (or never will be), and when
it has ended. What it counts for is a function of its row alone (:func:`counts_of`). So a row that changes
changes its summary by the difference, in the same transaction: a summary is the sum over its rows at any
moment, whatever was restarted in between. Latencies are kept as histograms with fixed buckets, so that there
are quantiles of any span of time.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select

from eslbot.ledger.database import upsert
from eslbot.ledger.schema import REFUSED, calls, summary
from eslbot.outcome import Fault

Row = Mapping[str, Any]
#: Counts by name. A bucket of a latency's histogram is named "<latency> <bucket>".
Counts = dict[str, int]
#: A summary's key: the beginning of its quarter in epoch seconds, and the tenant's id.
Key = tuple[int, str]

#: Seconds of one summary.
INTERVAL = 900
#: The ``workspace_id`` of calls that belong to no tenant.
NOBODY = ""

#: Latencies in seconds, from one column to another, by the step at which they count. A further one needs no
#: migration, only :func:`rebuild` for the calls that there are.
AT_START = {"set_up": ("invited_at", "answered_at"), "first_audio": ("answered_at", "first_audio_at")}
AT_END = {"hand_off": ("bot_ended_at", "handed_off_at")}  # to Ameyo's acceptance, all attempts included
#: A call's median answer: how long the caller waited to hear the bot.
TURN = "turn"
LATENCIES = (*AT_START, *AT_END, TURN)

#: So many summaries are read one by one: a statement for any number of them costs three times as much.
MAX_SINGLE_READS = 3
#: Causes of refusals that one summary tells apart; further ones are "others".
MAX_REFUSAL_CAUSES = 32
_REFUSED = "refused "

#: A histogram has 20 buckets a decade, from a millisecond to 1,000 s. Each is a factor of 1.122 wide, so its
#: (geometric) middle is within 6 % of all that is in it.
SMALLEST, PER_DECADE = 0.001, 20
LAST_BUCKET = 1 + 6 * PER_DECADE


def counts_of(row: Row) -> Counts:
    """What one call counts for, as far as it has come."""
    if row["stage"] == REFUSED:
        return {_REFUSED + (row["refusal"] or "unknown"): 1}
    ended = row["ended_at"]
    if row["first_audio_at"] is None and row["bot_ended_at"] is None and ended is None:
        return {}
    counts = {"calls": 1}
    _measure(counts, row, AT_START)
    if ended is not None:
        counts["ended"] = 1
        if row["fault"] == Fault.NONE:
            counts["good"] = 1
        if row["take_overs"]:
            counts["take_overs"] = row["take_overs"]
        if row["answer_p50"] is not None:
            counts[f"{TURN} {_bucket(row['answer_p50'])}"] = 1
        if row["handed_off_at"] != ended:  # otherwise only the end says so, and nobody knows how long it took
            _measure(counts, row, AT_END)
    return counts


def _measure(counts: Counts, row: Row, latencies: Mapping[str, tuple[str, str]]) -> None:
    for name, (begin, end) in latencies.items():
        if (began := row[begin]) is not None and (ended := row[end]) is not None:
            counts[f"{name} {_bucket(ended - began)}"] = 1


def _bucket(seconds: float) -> int:
    if seconds < SMALLEST:
        return 0
    return min(1 + int(PER_DECADE * math.log10(seconds / SMALLEST) + 1e-9), LAST_BUCKET)


def _middle(bucket: int) -> float:
    if bucket == 0:
        return SMALLEST / 2
    return SMALLEST * 10 ** ((bucket - (1 if bucket == LAST_BUCKET else 0.5)) / PER_DECADE)


def interval_of(at: float) -> int:
    """The beginning of the quarter of an hour that ``at`` is in; both are epoch seconds."""
    return int(at // INTERVAL) * INTERVAL


@dataclass(slots=True)
class SummaryChanges:
    """What changed rows of ``calls`` change in the summaries."""

    counts: defaultdict[Key, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def replace(self, before: Row | None, after: Row) -> None:
        """A row was ``before`` (None: there was none), and is now ``after``."""
        now = _key(after), counts_of(after)
        was = None if before is None else (_key(before), counts_of(before))
        if was == now:
            return
        if was is not None:
            self.counts[was[0]].subtract(was[1])
        self.counts[now[0]].update(now[1])

    def save(self, connection: Connection) -> None:
        """Write them. Nobody else may write meanwhile, since the summaries are read first."""
        changed = {key: counts for key, counts in self.counts.items() if any(counts.values())}
        if not changed:
            return
        known = _known(connection, list(changed))
        rows = [
            {"at": key[0], "workspace_id": key[1], "figures": _sum(known.get(key, {}), counts)}
            for key, counts in changed.items()
        ]
        connection.execute(_UPSERTS[connection.dialect.name], rows)


def _known(connection: Connection, keys: Sequence[Key]) -> dict[Key, Counts]:
    if len(keys) <= MAX_SINGLE_READS:
        answers = {key: connection.execute(_ONE, {"at": key[0], "tenant": key[1]}) for key in keys}
        return {key: row[0] for key, found in answers.items() if (row := found.first()) is not None}
    quarters, tenants = map(set, zip(*keys, strict=True))
    rows = connection.execute(_SOME, {"quarters": list(quarters), "tenants": list(tenants)})
    return {(at, tenant): counts for at, tenant, counts in rows}


def _key(row: Row) -> Key:
    return interval_of(row["invited_at"]), row["workspace_id"] or NOBODY


def _sum(known: Counts, change: Mapping[str, int]) -> Counts:
    summed = dict(known)
    for name, count in change.items():
        if name.startswith(_REFUSED) and name not in summed:
            causes = sum(one.startswith(_REFUSED) for one in summed)
            name = name if causes < MAX_REFUSAL_CAUSES else f"{_REFUSED}others"
        if left := summed.get(name, 0) + count:
            summed[name] = left
        else:
            summed.pop(name, None)
    return summed


_UPSERTS = {dialect: upsert(dialect, summary) for dialect in ("postgresql", "sqlite")}
_ONE = select(summary.c.figures).where(
    summary.c.at == bindparam("at"), summary.c.workspace_id == bindparam("tenant")
)
_SOME = select(summary.c.at, summary.c.workspace_id, summary.c.figures).where(
    summary.c.at.in_(bindparam("quarters", expanding=True)),
    summary.c.workspace_id.in_(bindparam("tenants", expanding=True)),
)


def expire(connection: Connection, before: float) -> None:
    """Delete the summaries of times before then."""
    connection.execute(delete(summary).where(summary.c.at < interval_of(before)))


def rebuild(connection: Connection) -> None:
    """Make all summaries from the calls, for a database that was written without them."""
    connection.execute(delete(summary))
    names = {
        "workspace_id", "invited_at", "bot_ended_at", "ended_at", "stage", "refusal", "fault", "take_overs",
        *("answer_p50", *(column for pair in (AT_START | AT_END).values() for column in pair)),
    }  # fmt: skip
    changes = SummaryChanges()
    query = select(*(calls.c[name] for name in names))
    for row in connection.execute(query, execution_options={"yield_per": 2000}).mappings():
        changes.replace(None, dict(row))
    keys = list(changes.counts)
    for start in range(0, len(keys), 500):
        some = {key: changes.counts[key] for key in keys[start : start + 500]}
        SummaryChanges(defaultdict(Counter, some)).save(connection)


# -- charts -------------------------------------------------------------------------------------------------


def chart(
    connection: Connection, begin: int, end: int, step: int, workspaces: Iterable[str] | None
) -> dict[str, Any]:
    """``points``, one for each ``step`` seconds from ``begin`` to before ``end``, and their ``total``.

    ``workspaces`` are the ids of tenants, whose calls are added up; None is everybody.
    """
    points: dict[int, Counter[str]] = {at: Counter() for at in range(begin, end, step)}
    query = select(summary.c.at, summary.c.figures).where(summary.c.at >= begin, summary.c.at < end)
    if workspaces is not None:
        query = query.where(summary.c.workspace_id.in_(sorted(workspaces)))
    for at, counts in connection.execute(query):
        points[at - (at - begin) % step].update(counts)
    return chart_of(points)


def chart_of(points: Mapping[int, Counter[str]]) -> dict[str, Any]:
    """A chart of the counts of each point by its time."""
    total: Counter[str] = Counter()
    for counts in points.values():
        total.update(counts)
    return {
        "points": [{"at": at, **_point(counts)} for at, counts in points.items()],
        "total": _point(total),
    }


def _point(counts: Counter[str]) -> dict[str, Any]:
    counts = +counts  # without what is below nothing: the version before may have written such counts
    ended = counts["ended"]
    buckets: dict[str, dict[int, int]] = {name: {} for name in LATENCIES}
    refused: Counter[str] = Counter()
    for name, count in counts.items():
        word, _, rest = name.partition(" ")
        if word in buckets and rest:
            buckets[word][int(rest)] = count
        elif name.startswith(_REFUSED):
            refused[rest] = count
    return {
        "calls": counts["calls"],
        "ended": ended,
        "success": round(min(counts["good"] / ended, 1.0), 4) if ended else None,
        "refused": dict(sorted(refused.items(), key=lambda pair: (-pair[1], pair[0]))),
        "take_overs": counts["take_overs"],
        **{name: _quantiles(found) for name, found in buckets.items()},
    }


def _quantiles(buckets: Mapping[int, int]) -> dict[str, Any]:
    return {
        "count": sum(buckets.values()),
        "p50": quantile(buckets, 0.5),
        "p95": quantile(buckets, 0.95),
    }


def quantile(buckets: Mapping[int, int], share: float) -> float | None:
    """The seconds that ``share`` of a histogram do not exceed, to 6 %; None where the histogram is empty."""
    left = math.ceil(share * sum(buckets.values()))
    for bucket in sorted(buckets):
        left -= buckets[bucket]
        if left <= 0 < buckets[bucket]:
            return float(f"{_middle(bucket):.3g}")
    return None
