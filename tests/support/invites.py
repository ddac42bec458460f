"""A call as its INVITE tells of it."""

from __future__ import annotations

from eslbot.caller.invite import Invite

INVITE = Invite(
    call_id="6e7cd1a1-0b1a-4ad5-8a2c-1d1b3b3b3b3b",
    did="00919990152080",
    crt_object_id="d444-69139d35-vce-daf-3883",
    workspace_id="2b37ba17-7b20-4b3e-b138-1161e351d5c5",
    source_ip="203.0.113.10",
    caller="0401234567",
    to="bot",
)
