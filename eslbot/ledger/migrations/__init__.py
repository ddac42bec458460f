"""Alembic's scripts; :func:`eslbot.ledger.database.migrate` runs them."""
