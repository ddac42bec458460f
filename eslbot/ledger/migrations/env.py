"""Alembic runs this file: migrations go through the connection and the transaction of the one who asks."""

from __future__ import annotations

from alembic import context

from eslbot.ledger.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True
)
with context.begin_transaction():
    context.run_migrations()
