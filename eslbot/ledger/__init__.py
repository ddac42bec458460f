"""The call ledger: one record a call.

Workers append facts (:mod:`eslbot.ledger.facts`) to journals, files of this host
(:mod:`eslbot.ledger.journal`). In the page process one thread, the ledger writer
(:mod:`eslbot.ledger.writer`), reads the journals and writes the database. So no call ever waits for a
database, and one that is down is a gap that is filled later.

This package imports nothing: workers need the journal only, and none of SQLAlchemy.
"""
