"""Who speaks when in a call, measured from what the relay sees of both directions (``docs/turns.md``).

* :mod:`~eslbot.relay.turn_taking.conversation`: both directions, put in order; what a call uses.
* :mod:`~eslbot.relay.turn_taking.vad`: whether the caller speaks, and since when.
* :mod:`~eslbot.relay.turn_taking.states`: who is heard, as a state machine, and which turns that makes.
"""
