"""How long a caller waits for the bot's answer, and who speaks over whom."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add them; a writer of the version before, which does not name them, can still write."""
    op.add_column("calls", sa.Column("answers", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("calls", sa.Column("answer_p50", sa.Double()))
    op.add_column("calls", sa.Column("answer_p95", sa.Double()))
    op.add_column("calls", sa.Column("answer_worst", sa.Double()))
    op.add_column("calls", sa.Column("barge_ins", sa.Integer(), nullable=False, server_default="0"))
    op.create_table(
        "turns",
        sa.Column("id", _ID, primary_key=True, autoincrement=True),
        sa.Column("call_id", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("bot", sa.Double()),
        sa.Column("by", sa.String(16)),
    )
    op.create_index("turns_call", "turns", ["call_id", "at"])
    op.create_index("turns_at", "turns", ["at"])
