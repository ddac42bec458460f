"""How often FreeSWITCH has restarted under a call, when last, and for how long it was away."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; a writer of the version before, which does not name them, can still write."""
    op.add_column("calls", sa.Column("restarts", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("calls", sa.Column("restarted_at", sa.Double()))
    op.add_column("calls", sa.Column("restart_gap", sa.Double()))
