"""Rows as CSV and as JSON lines, for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

#: How a cell begins that a spreadsheet would take for a formula; full-width signs count, too.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def csv_lines(rows: Iterable[Mapping[str, Any]], names: Sequence[str], *, heading: bool = False) -> str:
    """A line a row, of the columns ``names``; with ``heading`` these names come first.

    Times are UTC (ISO 8601). A text that a spreadsheet would run as a formula gets a ``'`` in front.
    """
    out = io.StringIO()
    writer = csv.writer(out)  # with CR LF, which it quotes within a cell
    if heading:
        writer.writerow(names)
    writer.writerows([cell(row.get(name), name) for name in names] for row in rows)
    return out.getvalue()


def cell(value: Any, name: str = "") -> Any:
    """What a CSV has for ``value`` in the column ``name``."""
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, str) and value.lstrip(" ").startswith(_FORMULA):
        return "'" + value
    if isinstance(value, float) and name.endswith("_at"):
        return datetime.fromtimestamp(value, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value


def json_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """An object a line."""
    return "".join(json.dumps(row) + "\n" for row in rows)
