"""The body of the notification (the mission's document, section 2, "Transfer API call")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from marshmallow import Schema, fields

from eslbot.caller.invite import Invite
from eslbot.config.model import Workspace
from eslbot.config.placeholders import fill

#: Where every notification goes, below the workspace's ``ameyo.url``.
PATH = "/ameyorestapi/voice/sendAgentResponseForCallNotification"


class NotificationSchema(Schema):
    """The five fields; three of them are constants of the protocol, not configuration."""

    notification_id = fields.Constant("95", data_key="notificationId")
    unique_id = fields.String(required=True, data_key="uniqueId")
    call_response = fields.Constant(True, data_key="callResponse")
    session_id = fields.Constant("na", data_key="sessionId")
    properties = fields.Dict(keys=fields.String(), required=True)


#: Made once: making it takes longer than using it.
_SCHEMA = NotificationSchema()


def notification(crt_object_id: str, properties: Mapping[str, Any]) -> bytes:
    """The JSON of one notification, as it goes over the wire."""
    body = _SCHEMA.dump({"unique_id": crt_object_id, "properties": properties})
    return json.dumps(body).encode()


def notification_of(
    workspace: Workspace, invite: Invite, outcome: str, reason: str, properties: Mapping[str, Any]
) -> bytes:
    """The notification of a call whose bot's part is over; ``properties`` are the bot's.

    What the operator has fixed, no bot changes.
    """
    facts = {
        "did": invite.did,
        "crt_object_id": invite.crt_object_id,
        "workspace_id": invite.workspace_id,
        "workspace": workspace.name,
        "call_id": invite.call_id,
        "from": invite.caller,
        "to": invite.to,
        "outcome": outcome,
        "reason": reason,
    }
    fixed = fill(workspace.ameyo.properties, facts)
    return notification(invite.crt_object_id, {**properties, **fixed})


def headers(tenant_host: str, token: str) -> dict[str, str]:
    """The headers of the POST; ``token`` in the clear."""
    return {
        "Authorization": token,
        "Host": tenant_host,
        "policy-name": "token",
        "Content-Type": "application/json",
    }
