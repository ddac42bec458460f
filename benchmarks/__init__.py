"""Measures of the whole. ``python -m benchmarks`` runs those of speed and memory and writes a report.

The packages ``bots``, ``hostile``, ``ledger``, ``page``, ``recording``, ``reliability``, ``speech`` and
``turns`` are each run by ``python -m benchmarks.NAME``, and so is ``soak``, which is a test of hours.

=============  =========================================================================================
``frame``      of every measure: its clock and folder, how its report begins, and the ways it ends
``plan``       how much of everything, in full and with ``--quick``
``esl``        cases at the event socket: a load generator in C plays FreeSWITCH and Ameyo
``switch``     cases with real calls on a real FreeSWITCH
``outcome``    what became of a case, and against its bar; how figures of several rounds are shown
``report``     report.md of all cases, and measures against their bars; no network, tested by itself
``plots``      the same as pictures
``machine``    processor time and memory of processes; ``versions`` of all that is measured
=============  =========================================================================================

A case is three functions: one measures and returns what can be written as JSON, one tells that in tables and
judges it, one draws it. The last two know nothing but that JSON.
"""
