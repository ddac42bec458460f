"""What a viewer may see of the ledger: calls of their tenants only, and numbers masked.

Queries ask for these tenants only; this is the second check before anything leaves the process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eslbot.ledger.masking import mask_numbers
from eslbot.web.sessions import Viewer

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
    return document if numbers else mask_numbers(document)
