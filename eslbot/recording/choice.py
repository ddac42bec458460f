"""Which calls of a workspace are recorded."""

from __future__ import annotations

import hashlib


def chosen(call_id: str, share: float) -> bool:
    """Whether this call is among the recorded ``share`` (0 to 1) of calls: by its id, so that every process
    says the same, before and behind the death of any.
    """
    digest = hashlib.sha256(call_id.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
