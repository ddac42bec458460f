"""Traces: which one a call is (:mod:`~eslbot.tracing.context`), its spans, and how they leave us.

Nothing in here is imported where calls are carried but :mod:`~eslbot.tracing.context`, which is pure. The
spans are made in the page process when a call is over, from what the ledger has of it:
:mod:`~eslbot.tracing.plan` says which, :mod:`~eslbot.tracing.export` makes them with OpenTelemetry's SDK and
sends them.
"""
