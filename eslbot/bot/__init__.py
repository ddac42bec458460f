"""The bot's side of a call: a stream of ``mod_audio_stream``, messages, speech."""

from eslbot.bot.folder import SpeechFolder
from eslbot.bot.leg import EVENTS, BotEnd, BotLeg, Found

__all__ = ["EVENTS", "BotEnd", "BotLeg", "Found", "SpeechFolder"]
