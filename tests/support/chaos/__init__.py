"""Whatever dies: faults done to a lab under load, and the account of what became of every call.

============  =======================================================================================
``witness``   gathers what the PBX, Ameyo, the bot, eslbot and the machine saw; makes the account
``faults``    does one fault
``plan``      which calls and which faults at which times: all of it out of one seed
``run``       carries a plan out
============  =======================================================================================

By hand: ``scripts/chaos``; in the tests: ``tests/process/chaos``.
"""
