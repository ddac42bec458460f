"""The controller's side of a bot's part: a stream to the relay, which carries the line and knows the bot.

* :mod:`~eslbot.calls.bot.leg`: the part itself, from the stream's start to the bot's last word.
* :mod:`~eslbot.calls.bot.link`: what is said with the relay, over streams and controllers that change.
* :mod:`~eslbot.calls.bot.stream`: the commands and events of mod_audio_stream.
* :mod:`~eslbot.calls.bot.prepare`: the bot is dialled while the call is being answered.
* :mod:`~eslbot.calls.bot.lines`: the relay's line files on the channel.
* :mod:`~eslbot.calls.bot.hold`, :mod:`~eslbot.calls.bot.keys`: what the PBX says of holds and keys.
"""

from eslbot.calls.bot.leg import EVENTS, PTIME, BotLeg, Found, leave_line
from eslbot.calls.bot.link import Way
from eslbot.calls.bot.prepare import Preparation, reachable

__all__ = ["EVENTS", "PTIME", "BotLeg", "Found", "Preparation", "Way", "leave_line", "reachable"]
