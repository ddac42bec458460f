"""The tables of the first ledger."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "calls",
        sa.Column("call_id", sa.String(64), primary_key=True),
        sa.Column("workspace_id", sa.String(36)),
        sa.Column("workspace", sa.String(64)),
        sa.Column("did", sa.String(32)),
        sa.Column("crt_object_id", sa.String(128)),
        sa.Column("caller", sa.String(128)),
        sa.Column("called", sa.String(128)),
        sa.Column("source", sa.String(64)),
        sa.Column("invited_at", sa.Double(), nullable=False),
        sa.Column("answered_at", sa.Double()),
        sa.Column("bot_connected_at", sa.Double()),
        sa.Column("first_audio_at", sa.Double()),
        sa.Column("bot_ended_at", sa.Double()),
        sa.Column("notified_at", sa.Double()),
        sa.Column("handed_off_at", sa.Double()),
        sa.Column("ended_at", sa.Double()),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.Column("stage", sa.String(16), nullable=False),
        sa.Column("outcome", sa.String(32)),
        sa.Column("fault", sa.String(16)),
        sa.Column("reason", sa.Text()),
        sa.Column("refusal_status", sa.Integer()),
        sa.Column("refusal", sa.String(64)),
        sa.Column("sip_hangup_disposition", sa.String(32)),
        sa.Column("hangup_cause", sa.String(64)),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("take_overs", sa.Integer(), nullable=False),
        sa.Column("byes_overdue", sa.Integer(), nullable=False),
        sa.Column("end_unseen", sa.Boolean(), nullable=False),
        sa.Column("media", sa.JSON()),
        sa.Column("host", sa.String(128)),
    )
    op.create_index("calls_invited_at", "calls", ["invited_at"])
    op.create_index("calls_ended_at", "calls", ["ended_at"])
    op.create_index("calls_crt_object_id", "calls", ["crt_object_id"])
    op.create_index("calls_did", "calls", ["did"])
    op.create_index("calls_workspace", "calls", ["workspace_id", "invited_at"])
    op.create_table(
        "notifications",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("call_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("began_at", sa.Double(), nullable=False),
        sa.Column("verdict", sa.String(16)),
        sa.Column("status", sa.Integer()),
        sa.Column("seconds", sa.Double()),
        sa.Column("detail", sa.Text()),
        sa.Column("sent_by", sa.String(64)),
    )
    op.create_index("notifications_call", "notifications", ["call_id", "number"])
    op.create_table(
        "timeline",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("call_id", sa.String(64), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("what", sa.String(32), nullable=False),
        sa.Column("facts", sa.JSON()),
    )
    op.create_index("timeline_call", "timeline", ["call_id", "at"])
    op.create_table(
        "journals",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
    )
