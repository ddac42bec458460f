"""What a call that lives needs somebody for, and by which Call-ID it is found in a capture."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add them; a writer of the version before, which does not name them, can still write."""
    op.add_column("calls", sa.Column("sip_call_id", sa.String(255)))
    op.add_column("calls", sa.Column("attempt_verdict", sa.String(16)))
    op.add_column("calls", sa.Column("attempt_status", sa.Integer()))
    op.add_column("calls", sa.Column("attempt_detail", sa.Text()))
    op.add_column("calls", sa.Column("unverified_at", sa.Double()))
