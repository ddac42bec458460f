"""``eslbot bot check``: plays FreeSWITCH and eslbot to any bot, and grades what the bot does.

A bot is dialled, spoken to and read by the relay's own code (:mod:`eslbot.relay.dialler`,
:mod:`eslbot.relay.bot_connection`, :mod:`eslbot.relay.protocols`, :mod:`eslbot.relay.playout`); nothing of a
protocol is written down here a second time.

* :mod:`~eslbot.botcheck.target`: which bot, as a workspace has it, and how long it is waited for.
* :mod:`~eslbot.botcheck.line`, :mod:`~eslbot.botcheck.socket`, :mod:`~eslbot.botcheck.speech`: what stands
  for FreeSWITCH's line, a bot's socket that is watched at its end, and what the caller says.
* :mod:`~eslbot.botcheck.call`: one call, over one or several connections; :mod:`~eslbot.botcheck.seen`: what
  was seen of it.
* :mod:`~eslbot.botcheck.kit`: the calls of one run; the plain call, which the others are held against.
* :mod:`~eslbot.botcheck.checks`: one room a subject; :mod:`~eslbot.botcheck.findings`: what a check is.
* :mod:`~eslbot.botcheck.run` runs them, :mod:`~eslbot.botcheck.report` tells the result.
"""
