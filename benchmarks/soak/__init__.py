"""A day in eight hours: calls that come and go while everything dies in turn, and the account of it.

============  =======================================================================================
``plan``      which calls, and which faults at which times: all of it out of one seed
``bot``       the voice bot, in a process of its own that can be killed; ``bots`` starts it and listens
``callers``   places calls, keeps so many of them up, and tells what the PBX saw of each
``log``       eslbot's log, read as it grows and cut where it gets long
``faults``    what :mod:`tests.support.chaos.faults` does not have: relay, FreeSWITCH, disk, Ameyo, clock
``tally``     the accounts of thousands of calls as one, of bounded size
``samples``   memory, descriptors, threads of every process and the line files, into a CSV file
``clock``     the drift of the RTP clock, from the arrivals of one long call
``growth``    what grew over the last half, whoever died meanwhile, and whether that is too much
``picture``   the CSV as one SVG
``run``       carries a plan out
============  =======================================================================================

By hand: ``scripts/soak``, docs/soak.md. Nothing here keeps what grows with the number of calls but counts.
"""
