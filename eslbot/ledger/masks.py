"""A call's record for eyes that may not see numbers."""

from __future__ import annotations

from collections.abc import Mapping

from eslbot.ledger.fold import Row
from eslbot.telemetry.masking import masked, masked_text

#: Columns that hold a number, or what a caller wrote where one is expected.
NUMBERS = ("did", "caller", "called")


def masked_row(row: Row) -> Row:
    """A row of ``calls``, its numbers masked, also where a text quotes one."""
    hidden = {name: masked(row[name]) for name in NUMBERS if row.get(name)}
    if row.get("reason"):
        hidden["reason"] = masked_text(row["reason"])
    return {**row, **hidden}


def masked_facts(facts: Mapping[str, object] | None) -> Row | None:
    """A timeline entry's further fields, the numbers within their texts masked."""
    if facts is None:
        return None
    return {name: masked_text(value) if isinstance(value, str) else value for name, value in facts.items()}
