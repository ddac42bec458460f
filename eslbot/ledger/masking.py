"""Masks phone numbers in whatever the ledger has, for a reader who may not see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from eslbot.ledger.queries import CallDetails
from eslbot.telemetry.masking import masked, masked_text

#: Fields that are a number as a whole.
_NUMBERS = frozenset({"did", "caller", "called", "from", "to"})
#: Ids, addresses and fixed words: no number is looked for in them.
_PLAIN = frozenset(
    (
        *("call_id", "call", "workspace_id", "workspace", "crt_object_id", "source", "host", "what"),
        *("stage", "outcome", "fault", "verdict", "sip_hangup_disposition", "hangup_cause", "sent_by"),
        *("sip_call_id", "component", "colour", "need", "remedy", "attempt_verdict"),
    )
)
#: Nothing that we write is nested deeper.
_MAX_DEPTH = 6


def mask_numbers(value: Any, name: str = "", depth: int = _MAX_DEPTH) -> Any:
    """``value``, a row or any part of an answer, with its numbers masked; ``name`` is its field."""
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {str(key): mask_numbers(part, str(key), depth - 1) for key, part in value.items()}
    if isinstance(value, list):
        return [mask_numbers(part, name, depth - 1) for part in value]
    if name in _NUMBERS:
        return None if value is None else masked(str(value))
    return masked_text(value) if isinstance(value, str) and name not in _PLAIN else value


def mask_details(details: CallDetails) -> CallDetails:
    """All of a call, its numbers masked."""
    return CallDetails(**mask_numbers(asdict(details)))
