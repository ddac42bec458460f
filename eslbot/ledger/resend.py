"""Sends the notification of a recorded call once more, when an operator wants it: ``eslbot notify``.

It is one attempt of the service's own client, :class:`eslbot.ameyo.client.AmeyoClient`. It is recorded before
it is sent, so that no customer is handed over twice without a trace.
"""

from __future__ import annotations

import getpass
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import structlog
from gevent.event import Event as Flag
from sqlalchemy import Engine, func, insert, select, update

from eslbot.ameyo.client import AmeyoClient, Attempt
from eslbot.ameyo.notification import PATH, headers, notification
from eslbot.config.model import Config, Workspace
from eslbot.config.placeholders import fill
from eslbot.config.urls import MASK
from eslbot.ledger import queries
from eslbot.ledger.database import LedgerDown, reading, writing
from eslbot.ledger.schema import REFUSED, Row, notifications
from eslbot.ledger.terminal import format_time, printable
from eslbot.telemetry.masking import masked_text

log = structlog.get_logger()


class CannotResend(Exception):
    """There is nothing to send; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Resend:
    """A notification that is about to be sent."""

    call: Row
    workspace: Workspace
    body: bytes

    @classmethod
    def prepare(cls, engine: Engine, config: Config, name: str) -> Resend:
        """For a call id or a CRT Object ID. Raises :class:`CannotResend` and LedgerDown."""
        with reading(engine) as connection:
            found = queries.call_ids_named(connection, name)
            details = queries.call_details(connection, found[0]) if len(found) == 1 else None
        if details is None:
            raise CannotResend(
                f"{len(found)} calls have this CRT Object ID; name one by its call id: {', '.join(found)}"
                if found
                else f"the ledger has no call {printable(name)!r}"
            )
        call = details.call
        workspace = config.workspaces.get(call["workspace_id"] or "")
        if call["stage"] == REFUSED or call["answered_at"] is None:
            raise CannotResend(
                f"call {call['call_id']} was never answered: there is no customer to hand over"
            )
        if workspace is None:
            raise CannotResend(
                f"workspace {call['workspace_id']} is not configured any more, nor where its Ameyo is; "
                "put it back into the configuration"
            )
        if not call["crt_object_id"]:
            raise CannotResend(f"the CRT Object ID of call {call['call_id']} is not in the ledger")
        properties = fill(workspace.ameyo.properties, _property_values(call, workspace))
        return cls(call, workspace, notification(call["crt_object_id"], properties))

    def shown(self, *, numbers: bool) -> Iterator[str]:
        """What is going to be sent, and where. The token is masked, and so are numbers unless ``numbers``."""
        ameyo, body = self.workspace.ameyo, json.loads(self.body)
        if not numbers:  # they are in the properties; the user has to see the CRT Object ID
            body["properties"] = {
                name: masked_text(value) if isinstance(value, str) else value
                for name, value in body["properties"].items()
            }
        yield f"POST {ameyo.url}{PATH}"
        yield from (f"  {name}: {text}" for name, text in headers(ameyo.tenant_host, MASK).items())
        yield f"  {printable(json.dumps(body, ensure_ascii=False))}"
        if self.workspace.ameyo.bot_properties:
            yield "The bot's own properties are not in the ledger and are not sent."
        if self.call["handed_off_at"] is not None:
            yield f"Ameyo accepted this call already, at {format_time(self.call['handed_off_at'])} UTC."
        if self.call["ended_at"] is not None:
            ended = format_time(self.call["ended_at"])
            yield f"The call ended at {ended} UTC: Ameyo may not know it any more."
        else:
            yield "The call lives: the service itself goes on with it, whatever is sent now."

    def send(self, engine: Engine) -> Attempt:
        """One attempt. Raises LedgerDown where it cannot be recorded: nothing is sent then."""
        call_id = self.call["call_id"]
        with writing(engine) as connection:
            c = notifications.c
            most = connection.execute(select(func.max(c.number)).where(c.call_id == call_id)).scalar()
            number = max(most or 0, self.call["attempts"]) + 1
            made = connection.execute(
                insert(notifications).values(
                    call_id=call_id, number=number, began_at=time.time(), sent_by=user()
                )
            )
            key = made.inserted_primary_key
            assert key is not None
        client = AmeyoClient(self.workspace.ameyo)
        try:
            attempt = next(client.notify(self.body, Flag(), before=number - 1))
        finally:
            client.close()
        answer = {
            "verdict": str(attempt.verdict),
            "status": attempt.status,
            "seconds": attempt.seconds,
            "detail": attempt.detail,
        }
        try:
            with writing(engine) as connection:
                connection.execute(update(notifications).where(notifications.c.id == key[0]).values(answer))
        except LedgerDown as error:  # that it was sent is recorded, and the user sees the answer
            log.error("answer_not_recorded", call_id=call_id, error=str(error))
        return attempt


def user() -> str:
    """The name that the user logged in with."""
    name = os.environ.get("SUDO_USER")
    if not name:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):
            name = str(os.getuid())
    return printable(name)[:64]


def _property_values(call: Row, workspace: Workspace) -> Mapping[str, str]:
    """The values that a configured property may name, as the ledger has them."""
    values = {
        "did": call["did"],
        "crt_object_id": call["crt_object_id"],
        "workspace_id": workspace.id,
        "workspace": workspace.name,
        "call_id": call["call_id"],
        "from": call["caller"],
        "to": call["called"],
        "outcome": call["outcome"],
        "reason": call["reason"],
    }
    return {name: value or "" for name, value in values.items()}
