"""FreeSWITCH's event sockets: the wire, one session on the outbound one, and questions on the inbound one.

The session is built on greenswitch, whose names and commands it keeps; reading, parsing, sending and waiting
are our own, because greenswitch's lose calls (``docs/architecture.md`` lists each defect and its test). It
brings gevent along: ``session``, ``waiting``, ``events`` and ``gone`` are for the processes that carry calls,
the others for everybody.
"""
