"""Who gets to know what happens to a call, but for the ledger (:mod:`eslbot.ledger.observer`)."""
