"""What eslbot renders for FreeSWITCH's host, and what it hears of FreeSWITCH's own refusals.

``configuration``, ``edge`` and ``firewall`` render (``eslbot conf``), ``files`` writes what they made,
``password`` is the event socket's; ``capture`` counts the INVITEs that FreeSWITCH refuses before any
dialplan.
"""
