"""Summaries for the charts, and what the search needs: attention, and indexes in the order of bytes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

#: An index in the order of bytes, whatever the database's own is.
_BYTES = "varchar_pattern_ops"
_ATTENTION = """UPDATE calls SET attention = {true} WHERE CASE
    WHEN stage = 'refused' THEN fault = 'eslbot'
    WHEN byes_overdue > 0 OR end_unseen = {true} OR sip_hangup_disposition = 'send_bye' THEN {true} = {true}
    WHEN ended_at IS NULL THEN attempts > 1 AND handed_off_at IS NULL
    ELSE fault <> 'none' END"""


def upgrade() -> None:
    """Add them; who migrates makes the summaries of the calls there are, behind it."""
    postgresql = op.get_bind().dialect.name == "postgresql"
    op.create_table(
        "summary",
        sa.Column("at", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("workspace_id", sa.String(36), primary_key=True),
        sa.Column("figures", sa.JSON(), nullable=False),
    )
    op.add_column("calls", sa.Column("attention", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.execute(_ATTENTION.format(true="true" if postgresql else "1"))
    op.create_index("calls_caller", "calls", ["caller"], postgresql_ops={"caller": _BYTES})
    if postgresql:  # SQLite's indexes have that order already
        for column in ("crt_object_id", "did"):
            op.drop_index(f"calls_{column}", "calls")
            op.create_index(f"calls_{column}", "calls", [column], postgresql_ops={column: _BYTES})
        op.create_index("calls_call_id", "calls", ["call_id"], postgresql_ops={"call_id": _BYTES})
    for name, column, sqlite, condition in (
        ("calls_outcome", "outcome", "outcome IS NOT NULL", "outcome IS NOT NULL"),
        ("calls_attention", "invited_at", "attention = 1", "attention"),
    ):
        op.create_index(
            name, "calls", [column], sqlite_where=sa.text(sqlite), postgresql_where=sa.text(condition)
        )
