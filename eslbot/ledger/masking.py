"""Calls for a reader who may not see phone numbers."""

from __future__ import annotations

from collections.abc import Mapping

from eslbot.ledger.queries import CallDetails
from eslbot.ledger.schema import Row
from eslbot.telemetry.masking import masked, masked_text

#: Columns that hold a number, or what a caller sent instead of one.
NUMBERS = ("did", "caller", "called")


def masked_row(row: Row) -> Row:
    """A row of ``calls``, its numbers masked, also those that its reason quotes."""
    changed = {name: masked(row[name]) for name in NUMBERS if row.get(name)}
    if row.get("reason"):
        changed["reason"] = masked_text(row["reason"])
    return {**row, **changed}


def masked_fields(fields: Mapping[str, object] | None) -> Row | None:
    """The fields of a timeline entry or of a notification, the numbers in their texts masked."""
    if fields is None:
        return None
    return {name: masked_text(value) if isinstance(value, str) else value for name, value in fields.items()}


def masked_details(details: CallDetails) -> CallDetails:
    """All of a call, its numbers masked."""
    timeline = [{**entry, "facts": masked_fields(entry["facts"])} for entry in details.timeline]
    sent = [{**row, **(masked_fields({"detail": row["detail"]}) or {})} for row in details.notifications]
    return CallDetails(masked_row(details.call), timeline, sent, details.turns)
