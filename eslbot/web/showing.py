"""What of the ledger a viewer gets to see: only the tenants of their token, numbers masked.

The ledger is asked for these tenants only; that nothing else leaves the process is seen to here once more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eslbot.telemetry.masking import masked, masked_text
from eslbot.web.sessions import Viewer

#: What is a number as a whole.
_NUMBERS = frozenset({"did", "caller", "called", "from", "to"})
#: What is not looked into for numbers: ids, addresses, fixed words.
_PLAIN = frozenset(
    {
        *("call_id", "call", "workspace_id", "workspace", "crt_object_id", "source", "host", "what"),
        *("stage", "outcome", "fault", "verdict", "sip_hangup_disposition", "hangup_cause", "sent_by"),
        *("sip_call_id", "component", "colour", "need", "remedy", "attempt_verdict"),
    }
)
#: Deeper than this nothing is nested that we have written.
_DEPTH = 6
#: What a list shows of a call.
_LISTED = (
    *("call_id", "workspace_id", "workspace", "did", "crt_object_id", "caller", "stage", "outcome", "fault"),
    *("invited_at", "answered_at", "bot_connected_at", "bot_ended_at", "notified_at", "handed_off_at"),
    *(
        "first_audio_at",
        "ended_at",
        "reason",
        "refusal_status",
        "refusal",
        "sip_hangup_disposition",
        "attempts",
        "take_overs",
    ),
    *("byes_overdue", "end_unseen", "restarts", "restart_gap", "attempt_verdict", "attempt_status"),
    "unverified_at",
)


def may_see(viewer: Viewer, row: Mapping[str, Any]) -> bool:
    """Whether a row of `calls`, or of the tenants, is one of the viewer's."""
    return viewer.workspaces is None or row.get("workspace_id") in viewer.workspaces


def in_list(numbers: bool, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `calls` as lists show it, to who may see ``numbers``; what is not known is left out."""
    listed = {name: row[name] for name in _LISTED if row.get(name) is not None}
    return dict(shown(numbers, listed))


def shown(numbers: bool, document: Any) -> Any:
    """A row, or any part of the ledger's answer, for who may see ``numbers`` or may not."""
    return document if numbers else _masked("", document, _DEPTH)


def _masked(name: str, value: Any, depth: int) -> Any:
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        return {str(key): _masked(str(key), part, depth - 1) for key, part in value.items()}
    if isinstance(value, list):
        return [_masked(name, part, depth - 1) for part in value]
    if name in _NUMBERS:
        return None if value is None else masked(str(value))
    if isinstance(value, str) and name not in _PLAIN:
        return masked_text(value)
    return value
