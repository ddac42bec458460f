"""What many calls came to: ``eslbot stats``."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from sqlalchemy import Connection, RowMapping, select

from eslbot.ledger.filters import Filter
from eslbot.ledger.percentile import percentile
from eslbot.ledger.schema import REFUSED, Row, calls

#: What is measured in seconds: from one column to another.
MEASURES = {
    "set_up": ("invited_at", "answered_at"),
    "bot_connect": ("answered_at", "bot_connected_at"),
    "first_audio": ("answered_at", "first_audio_at"),
    "bot_end_to_post": ("bot_ended_at", "notified_at"),
    "hold_until_bye": ("handed_off_at", "ended_at"),
}
#: Groups by name; refusals may name any workspace, and all further ones are "others".
MAX_GROUPS = 1000

_COLUMNS = (
    *("workspace_id", "workspace", "stage", "outcome", "fault", "refusal", "attempts", "take_overs"),
    *("byes_overdue", "restarts", "restart_gap", "end_unseen", "invited_at", "answered_at"),
    *("bot_connected_at", "first_audio_at", "bot_ended_at", "notified_at", "handed_off_at", "ended_at"),
)


@dataclass(slots=True)
class _Group:
    """One tenant's calls, or all."""

    counts: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, array[float]] = field(default_factory=lambda: defaultdict(lambda: array("d")))
    restart_gap: float | None = None

    def add(self, row: RowMapping) -> None:
        counts, handed_off = self.counts, row["handed_off_at"] is not None
        counts["calls"] += 1
        counts["live"] += row["ended_at"] is None
        counts["refused"] += row["stage"] == REFUSED
        counts["answered"] += row["answered_at"] is not None
        counts["hand_off_due"] += handed_off or row["bot_ended_at"] is not None
        counts["handed_off"] += handed_off
        counts["recovered"] += row["restarts"] > 0
        counts["ends_unseen"] += bool(row["end_unseen"])
        for name in ("attempts", "take_overs", "byes_overdue", "restarts"):
            counts[name] += row[name]
        if row["restart_gap"] is not None:
            self.restart_gap = max(row["restart_gap"], self.restart_gap or 0.0)
        if row["stage"] == REFUSED:
            self.refusals[row["refusal"] or "unknown"] += 1
        elif row["outcome"] is not None:
            self.outcomes[row["outcome"]] += 1
        if row["fault"] is not None:
            self.faults[row["fault"]] += 1
        for name, (begin, end) in MEASURES.items():
            known = row[begin] is not None and row[end] is not None
            if known and not (name == "hold_until_bye" and row["end_unseen"]):
                self.seconds[name].append(max(0.0, row[end] - row[begin]))

    def as_json(self) -> Row:
        counts = self.counts
        due, handed_off = counts["hand_off_due"], counts["handed_off"]
        return {
            **{name: counts[name] for name in ("calls", "live", "refused", "answered")},
            "hand_off_due": due,
            "handed_off": handed_off,
            "hand_off_rate": round(handed_off / due, 6) if due else None,
            **{
                name: counts[name]
                for name in ("attempts", "take_overs", "byes_overdue", "recovered", "restarts")
            },
            "restart_gap": self.restart_gap,
            "ends_unseen": counts["ends_unseen"],
            "outcomes": dict(self.outcomes.most_common()),
            "faults": dict(self.faults.most_common()),
            "refusals": dict(self.refusals.most_common(20)),
            "seconds": {name: _distribution(sorted(self.seconds[name])) for name in MEASURES},
        }


def _distribution(values: list[float]) -> Row:
    return {
        "count": len(values),
        **{f"p{share}": percentile(values, share) for share in (50, 95, 99)},
        "max": round(values[-1], 6) if values else None,
    }


def statistics(connection: Connection, wanted: Filter) -> Row:
    """Counts and percentiles of the calls of a filter, ``{"all": …, "workspaces": {name: …}}``."""
    query = wanted.narrow(select(*(calls.c[name] for name in _COLUMNS)))
    whole, groups = _Group(), dict[str, _Group]()
    for row in connection.execution_options(yield_per=2000).execute(query).mappings():
        whole.add(row)
        name = row["workspace"] or row["workspace_id"] or "unknown"
        if name not in groups and len(groups) >= MAX_GROUPS:
            name = "others"
        groups.setdefault(name, _Group()).add(row)
    return {
        "all": whole.as_json(),
        "workspaces": {name: group.as_json() for name, group in sorted(groups.items())},
    }
