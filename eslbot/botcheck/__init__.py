"""``eslbot bot check``: plays FreeSWITCH and eslbot to any bot, and grades what the bot does.

A bot is dialled, spoken to and read by the relay's own code (:mod:`eslbot.relay.dialler`,
:mod:`eslbot.relay.bot_connection`, :mod:`eslbot.relay.protocols`, :mod:`eslbot.relay.playout`); no protocol
is written down here a second time.

* :mod:`~eslbot.botcheck.target`: which bot, as a workspace has it, and how long it is waited for.
* :mod:`~eslbot.botcheck.call`: one call, over one or several connections.
* :mod:`~eslbot.botcheck.observations`: what was observed of it.
* :mod:`~eslbot.botcheck.clocked_line`, :mod:`~eslbot.botcheck.watched_socket` and
  :mod:`~eslbot.botcheck.caller_speech`: what stands for FreeSWITCH's line, a socket whose end is watched, and
  what the caller says.
* :mod:`~eslbot.botcheck.examination`: the calls of one run; first the plain call, which is the yardstick.
* :mod:`~eslbot.botcheck.checks`: one module a subject; :mod:`~eslbot.botcheck.findings`: what a check is.
* :mod:`~eslbot.botcheck.run` runs them, :mod:`~eslbot.botcheck.report` tells the result.
"""
