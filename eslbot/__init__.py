"""eslbot: connects an Ameyo contact centre to a voice bot through FreeSWITCH.

One call is told in :mod:`eslbot.calls.call`; the rooms around it are described in ``docs/architecture.md``.
"""

__version__ = "0.2.0"
