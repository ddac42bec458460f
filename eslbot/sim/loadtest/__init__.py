"""A load test for FreeSWITCH and eslbot, ``eslbot loadtest``: docs/loadtest.md.

``profiles``   what is placed when: rate, ramp, hold; and when a ramp stops
``sites``      what is called: a laboratory on this machine, or an installation that exists
``run``        one test, from its beginning to its report
``drive``      places the calls and gathers what was seen
``calls``      what became of every call, from all that was seen
``figures``    counts, percentiles, and what broke first
``usage``      processor time and memory of processes
``machine``    the machine on which it is measured
``report``     the tables; ``tables`` is how they are written
``bot``        a bot for hundreds of calls
"""
