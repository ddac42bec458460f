"""What hostile requests at the page and at the workers' port cost the calls: INVITE → 200 with and without.

Run it with ``python -m benchmarks.hostile``; ``--help`` tells the options. Calls are placed all the time; a
round without requests and one with 100 a second of one kind at one port take turns.

============  =========================================================================
``kinds``     the requests, as bytes
``attacker``  a process that sends them, each on a connection of its own, at a rate
============  =========================================================================
"""
