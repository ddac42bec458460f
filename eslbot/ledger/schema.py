"""The ledger's tables. Times are epoch seconds (UTC); what is not known yet is NULL.

:mod:`eslbot.ledger.migrations` make the same tables; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    false,
    text,
)

#: A row of a table, by the names of its columns.
Row = dict[str, Any]

#: The ``stage`` of a call that was refused. All other stages are :class:`eslbot.outcome.Stage`.
REFUSED = "refused"

metadata = MetaData()


def _prefix_index(name: str, column: str) -> Index:
    """An index that finds texts by how they begin: in the order of their bytes, not of a language."""
    return Index(name, column, postgresql_ops={column: "varchar_pattern_ops"})


def _partial(sqlite: str, postgresql: str) -> dict[str, Any]:
    """The condition of an index that has few of the rows."""
    return {"sqlite_where": text(sqlite), "postgresql_where": text(postgresql)}


calls = Table(
    "calls",
    metadata,
    Column("call_id", String(64), primary_key=True),  # FreeSWITCH's channel UUID
    Column("workspace_id", String(36)),
    Column("workspace", String(64)),
    Column("did", String(32)),
    Column("crt_object_id", String(128)),
    Column("caller", String(128)),
    Column("called", String(128)),
    Column("source", String(64)),  # the PBX's address
    Column("sip_call_id", String(255)),  # of the INVITE: by it a capture has the call
    # When each stage began.
    Column("invited_at", Double, nullable=False),
    Column("answered_at", Double),
    Column("bot_connected_at", Double),
    Column("first_audio_at", Double),
    Column("bot_ended_at", Double),
    Column("notified_at", Double),  # the first attempt began
    Column("handed_off_at", Double),  # Ameyo accepted
    Column("ended_at", Double),
    Column("updated_at", Double, nullable=False),  # by the writer's clock
    # What it came to. `stage` is eslbot.outcome.Stage, or REFUSED; `outcome` and `fault` are
    # eslbot.outcome.Outcome and Fault.
    Column("stage", String(16), nullable=False),
    Column("outcome", String(32)),
    Column("fault", String(16)),
    Column("reason", Text),
    Column("refusal_status", Integer),
    Column("refusal", String(64)),
    Column("sip_hangup_disposition", String(32)),
    Column("hangup_cause", String(64)),
    Column("attempts", Integer, nullable=False, default=0),
    # The last attempt that has ended; eslbot.ameyo.retry.Verdict, and what Ameyo said.
    Column("attempt_verdict", String(16)),
    Column("attempt_status", Integer),
    Column("attempt_detail", Text),
    Column("take_overs", Integer, nullable=False, default=0),
    Column("unverified_at", Double),  # a controller has it and does not know whose it is
    Column("byes_overdue", Integer, nullable=False, default=0),
    # FreeSWITCH has died during the call and come back: how often, when last, and its longest absence in
    # seconds. A column that a later version adds has a server default, so that the version before can still
    # write.
    Column("restarts", Integer, nullable=False, default=0, server_default="0"),
    Column("restarted_at", Double),
    Column("restart_gap", Double),
    # Its turns (docs/turns.md): how many answers of the bot's, after how many seconds, and how many
    # barge-ins.
    Column("answers", Integer, nullable=False, default=0, server_default="0"),
    Column("answer_p50", Double),
    Column("answer_p95", Double),
    Column("answer_worst", Double),
    Column("barge_ins", Integer, nullable=False, default=0, server_default="0"),
    # Nobody saw its end: it fell between two controllers. `ended_at` is then the time of its last fact.
    Column("end_unseen", Boolean, nullable=False, default=False),
    # Somebody should look at it: eslbot.ledger.record.needs_attention.
    Column("attention", Boolean, nullable=False, default=False, server_default=false()),
    Column("media", JSON),
    Column("host", String(128)),  # whose writer wrote last
    Index("calls_invited_at", "invited_at"),
    Index("calls_ended_at", "ended_at"),
    _prefix_index("calls_crt_object_id", "crt_object_id"),
    _prefix_index("calls_did", "did"),
    _prefix_index("calls_caller", "caller"),
    # SQLite's primary key has that order already.
    _prefix_index("calls_call_id", "call_id").ddl_if(dialect="postgresql"),
    Index("calls_outcome", "outcome", **_partial("outcome IS NOT NULL", "outcome IS NOT NULL")),
    Index("calls_attention", "invited_at", **_partial("attention = 1", "attention")),
    Index("calls_workspace", "workspace_id", "invited_at"),
)

notifications = Table(
    "notifications",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("call_id", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("began_at", Double, nullable=False),
    # eslbot.ameyo.retry.Verdict; NULL while it is under way, or for ever where its sender died.
    Column("verdict", String(16)),
    Column("status", Integer),  # NULL: no answer came
    Column("seconds", Double),
    Column("detail", Text),
    Column("sent_by", String(64)),  # NULL: the service; else who ran `eslbot notify`
    Index("notifications_call", "call_id", "number"),
)

turns = Table(
    "turns",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("call_id", String(64), nullable=False),
    Column("number", Integer, nullable=False),  # as its relay counts
    Column("at", Double, nullable=False),  # when it was over
    Column("kind", String(16), nullable=False),  # eslbot.turns.Kind
    Column("seconds", Double, nullable=False),
    Column("bot", Double),  # of these, the bot's own share
    Column("by", String(16)),  # eslbot.turns.By: who spoke over the other
    Index("turns_call", "call_id", "at"),
    Index("turns_at", "at"),
)

timeline = Table(
    "timeline",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("call_id", String(64), nullable=False),
    Column("at", Double, nullable=False),
    Column("what", String(32), nullable=False),  # eslbot.ledger.facts.What
    Column("facts", JSON),  # its further fields, for a reader
    Index("timeline_call", "call_id", "at"),
)

#: How far each journal is in the database; written with what was read of it, in one transaction.
journals = Table(
    "journals",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("offset", BigInteger, nullable=False),
    Column("seen_at", Double, nullable=False),
)

#: What the calls of a quarter of an hour came to: see eslbot.ledger.summary.
summary = Table(
    "summary",
    metadata,
    Column("at", BigInteger, primary_key=True, autoincrement=False),  # its beginning
    Column("workspace_id", String(36), primary_key=True),  # or "", which is all calls together
    Column("figures", JSON, nullable=False),
)
