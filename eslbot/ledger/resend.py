"""Sends the notification of a call of the ledger once more, because an operator wants it to be sent.

It goes the service's own way: :class:`eslbot.ameyo.client.AmeyoClient`, one attempt. It is recorded before it
is sent, so that no customer is handed over twice without a trace.
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
from eslbot.ledger.console import clean, shown_time
from eslbot.ledger.database import LedgerDown, reading, writing
from eslbot.ledger.fold import REFUSED, Row
from eslbot.ledger.masks import masked_facts
from eslbot.ledger.schema import notifications

log = structlog.get_logger()


class CannotResend(Exception):
    """There is nothing that could be sent; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Resend:
    """A notification that is about to be sent."""

    call: Row
    workspace: Workspace
    body: bytes

    @classmethod
    def prepare(cls, engine: Engine, config: Config, name: str) -> Resend:
        """For the call of a call id or a CRT Object ID. Raises :class:`CannotResend` and LedgerDown."""
        with reading(engine) as connection:
            found = queries.named(connection, name)
            story = queries.one(connection, found[0]) if len(found) == 1 else None
        if story is None:
            raise CannotResend(
                f"{len(found)} calls have this CRT Object ID; name one by its call id: {', '.join(found)}"
                if found
                else f"the ledger has no call {clean(name)!r}"
            )
        call = story.call
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
        properties = fill(workspace.ameyo.properties, _facts(call, workspace))
        return cls(call, workspace, notification(call["crt_object_id"], properties))

    def shown(self, *, numbers: bool) -> Iterator[str]:
        """What will be sent, and where; the token masked, and phone numbers, unless ``numbers``."""
        ameyo, body = self.workspace.ameyo, json.loads(self.body)
        if not numbers:  # those are in the properties; the CRT Object ID is what the user has to see
            body["properties"] = masked_facts(body["properties"])
        yield f"POST {ameyo.url}{PATH}"
        yield from (f"  {name}: {text}" for name, text in headers(ameyo.tenant_host, MASK).items())
        yield f"  {clean(json.dumps(body, ensure_ascii=False))}"
        if self.workspace.ameyo.bot_properties:
            yield "The bot's own properties are not in the ledger and are not sent."
        if self.call["handed_off_at"] is not None:
            yield f"Ameyo accepted this call already, at {shown_time(self.call['handed_off_at'])} UTC."
        if self.call["ended_at"] is not None:
            ended = shown_time(self.call["ended_at"])
            yield f"The call ended at {ended} UTC: Ameyo may not know it any more."
        else:
            yield "The call lives: the service itself goes on with it, whatever is sent now."

    def send(self, engine: Engine) -> Attempt:
        """One attempt, recorded. Raises LedgerDown where it could not be, and then nothing is sent."""
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
        except LedgerDown as error:  # that it was sent is recorded; what came of it is what the user needs
            log.error("answer_not_recorded", call_id=call_id, error=str(error))
        return attempt


def user() -> str:
    """Who runs this, by the name they logged in with."""
    name = os.environ.get("SUDO_USER")
    if not name:
        try:
            name = getpass.getuser()
        except (KeyError, OSError):
            name = str(os.getuid())
    return clean(name)[:64]


def _facts(call: Row, workspace: Workspace) -> Mapping[str, str]:
    """What a configured property may name, as the ledger has it."""
    named = {
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
    return {name: value or "" for name, value in named.items()}
