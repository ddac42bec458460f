"""How exact the measured turns are: each beside what a capture of the RTP on both legs says of it.

Run it with ``python -m benchmarks.turns``; ``--help`` tells the options. Callers speak, bots answer and are
broken in on, at times of their own; the ledger's turns are then held against the packets.

===========  ===========================================================================================
``talker``   a caller's RTP: sends what it is told on time, keeps the kernel's times of what comes
``measure``  conversations, what the capture says of them, and how far the ledger's turns are off
===========  ===========================================================================================
"""
