"""Traces of calls for a collector, made in the page process from the ledger when a call has ended.

:mod:`~eslbot.tracing.spans` says which spans a call has, :mod:`~eslbot.tracing.export` makes them with
OpenTelemetry's SDK and sends them. Which trace a call is (:mod:`eslbot.telemetry.trace_context`) every
process knows; nothing in here is imported where calls are carried.
"""
