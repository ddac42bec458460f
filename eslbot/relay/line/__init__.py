"""The line file: what is written into it is what the caller hears, at the time that its place stands for.

Two rings of L16 at 8,000 Hz a call, displaced onto the channel with ``mfl``: FreeSWITCH reads a frame of each
with every frame that it sends, and begins again at their end. There it reads nothing for one *tick*; in ring
A's ring B speaks, which is longer so that both ends fall together only after hours (nobody can be heard in
that tick, and it is left out). Time is counted in ticks since A's first read: a tick is one read, 20 ms where
FreeSWITCH sends such packets.

* :mod:`~eslbot.relay.line.line`: one call's line, which puts the others together.
* :mod:`~eslbot.relay.line.rings`: the two files, and where a tick's samples stand in them.
* :mod:`~eslbot.relay.line.read_counter`: how often FreeSWITCH has read a file (inotify).
* :mod:`~eslbot.relay.line.phase`, :mod:`~eslbot.relay.line.position`: when it reads, and which tick it reads.
* :mod:`~eslbot.relay.line.history`: what it has read, for a recording.
* :mod:`~eslbot.relay.line.checkpoint`: what a relay that dies leaves the next one.
* :mod:`~eslbot.relay.line.predecessor`: the rings of a relay that has died, which play on.

The files are ours alone to write and to open; FreeSWITCH reads them by their directory's group. Nothing else
may read them: it would be counted.
"""

from __future__ import annotations

from eslbot.relay.line.line import Line, LineFull

__all__ = ["Line", "LineFull"]
