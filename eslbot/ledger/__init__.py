"""The call ledger: one record a call.

Workers write down facts as they happen (:mod:`eslbot.ledger.facts`) in journals, files of this host's own
(:mod:`eslbot.ledger.journal`). One thread a service reads them into the database, in the page process
(:mod:`eslbot.ledger.writer`). So no call
ever waits for a database, and one that is down is a gap that is filled later.

This package imports nothing: workers need the journal only, and none of SQLAlchemy.
"""
