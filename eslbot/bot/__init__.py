"""The bot's side of a call: a stream of ``mod_audio_stream``, messages, speech."""

from eslbot.bot.folder import SpeechFolder
from eslbot.bot.leg import EVENTS, BotEnd, BotLeg, Found
from eslbot.bot.stream import AudioStream

__all__ = ["EVENTS", "AudioStream", "BotEnd", "BotLeg", "Found", "SpeechFolder"]
