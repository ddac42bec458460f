"""What a viewer may see of the ledger: calls of their tenants only, and numbers masked.

Queries ask for these tenants only; this is the second check before anything leaves the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eslbot.telemetry.masking import masked, masked_text
from eslbot.web.sessions import Viewer

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
#: The columns of a call that a list shows.
_LISTED = (
    *("call_id", "workspace_id", "workspace", "did", "crt_object_id", "caller", "stage", "outcome", "fault"),
    *("invited_at", "answered_at", "bot_connected_at", "bot_ended_at", "notified_at", "handed_off_at"),
    *("first_audio_at", "ended_at", "reason", "refusal_status", "refusal", "sip_hangup_disposition"),
    *("attempts", "take_overs", "byes_overdue", "end_unseen", "restarts", "restart_gap"),
    *("attempt_verdict", "attempt_status", "unverified_at"),
)


def may_see(viewer: Viewer, row: Mapping[str, Any]) -> bool:
    """Whether a row of `calls`, or of the tenants, is one of the viewer's."""
    return viewer.workspaces is None or row.get("workspace_id") in viewer.workspaces


def list_row(numbers: bool, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `calls` as lists show it, without what is not known."""
    listed = {name: row[name] for name in _LISTED if row.get(name) is not None}
    return dict(masked_for(numbers, listed))


def masked_for(numbers: bool, document: Any) -> Any:
    """``document`` for a viewer who may see ``numbers``, or may not: then they are masked."""
    return document if numbers else _masked("", document, _MAX_DEPTH)


def _masked(name: str, value: Any, depth: int) -> Any:
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {str(key): _masked(str(key), part, depth - 1) for key, part in value.items()}
    if isinstance(value, list):
        return [_masked(name, part, depth - 1) for part in value]
    if name in _NUMBERS:
        return None if value is None else masked(str(value))
    return masked_text(value) if isinstance(value, str) and name not in _PLAIN else value
