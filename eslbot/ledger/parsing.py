"""From a journal's line to a fact, and from its values to what a column can hold.

Journals come from this service's own workers, but what stands in them comes from callers, bots and Ameyo, and
the last line may be half a line. So every value is checked, and cut to the length of its column.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from sqlalchemy import String

from eslbot.ledger.facts import What
from eslbot.ledger.schema import Row, calls

#: Characters of a text whose column has no bound of its own.
MAX_TEXT = 500
#: Further fields of a fact that are kept, and characters of their names.
MAX_FIELDS, MAX_NAME = 40, 64
#: Epoch seconds from 2001 to 2286. Anything else is no time of a call.
MIN_TIME, MAX_TIME = 1e9, 1e10
MAX_COUNT = 2**31 - 1

#: Columns that say whose call it is.
IDENTITY = ("workspace_id", "workspace", "did", "crt_object_id", "caller", "called", "source", "sip_call_id")
#: Fields that are in the call's row and need not be in its timeline again.
_IN_ROW = frozenset({*IDENTITY, "call", "at", "what", "invited_at", "media"})
_LENGTHS = {c.name: c.type.length or MAX_TEXT for c in calls.columns if isinstance(c.type, String)}
_CALL_ID = re.compile(r"[!-~]{1,64}")
#: What no database takes: NUL, and lone surrogates.
_UNWRITABLE = re.compile("[\x00\ud800-\udfff]")
_decode = json.JSONDecoder().decode

Word = TypeVar("Word", bound=StrEnum)


class BadFact(ValueError):
    """A line of a journal that is no fact."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One line. ``call``, ``at`` and ``what`` are valid; ``fields`` has all of it, otherwise unchecked."""

    call: str
    at: float
    what: What
    fields: Mapping[str, Any]


def read_fact(line: bytes) -> Fact | None:
    """The fact of a line; None where this version does not know its kind. Raises :class:`BadFact`."""
    try:
        fields = _decode(line.decode())
    except (ValueError, RecursionError) as error:
        raise BadFact(type(error).__name__) from None
    name = fields.get("what") if isinstance(fields, dict) else None
    if not isinstance(name, str):
        raise BadFact("no fact")
    what = word(What, name)
    if what is None:
        return None  # the journal's first line, or a later version's fact
    call, at = fields.get("call"), time(fields.get("at"))
    if not isinstance(call, str) or not _CALL_ID.fullmatch(call) or at is None:
        raise BadFact("no call, or no time")
    return Fact(call, at, what, fields)


def timeline_fields(fields: Mapping[str, Any]) -> Row:
    """``fields`` as a JSON column can keep them: texts cut, numbers finite, nothing nested.

    What is in the call's row is left out.
    """
    kept: Row = {}
    for name, value in fields.items():
        if name in _IN_ROW:
            continue
        if len(kept) >= MAX_FIELDS:
            break
        if isinstance(value, str):
            value = cut(value)
        elif not isinstance(value, bool | None) and number(value) is None:
            continue
        kept[cut(name, MAX_NAME) or ""] = value
    return kept


def cut(value: object, length: int = MAX_TEXT) -> str | None:
    """A text of at most ``length`` characters; None for anything else."""
    return _UNWRITABLE.sub("�", value[:length]) if isinstance(value, str) else None


def text(value: object, column: str) -> str | None:
    """A text for this column of ``calls``; None where there is none."""
    return cut(value, _LENGTHS[column]) or None


def number(value: object) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= 1e15 else None  # which NaN is not either


def _between(value: object, least: float, most: float) -> float | None:
    found = number(value)
    return found if found is not None and least <= found <= most else None


def time(value: object) -> float | None:
    """Epoch seconds."""
    return _between(value, MIN_TIME, MAX_TIME)


def seconds(value: object) -> float | None:
    """A duration."""
    return _between(value, 0, 1e8)


def count(value: object) -> int | None:
    """A whole number that an integer column holds."""
    found = _between(value, 0, MAX_COUNT)
    return None if found is None else int(found)


def word(words: type[Word], value: object) -> Word | None:
    """The member of an enumeration that this text names."""
    try:
        return words(value) if isinstance(value, str) else None
    except ValueError:
        return None
