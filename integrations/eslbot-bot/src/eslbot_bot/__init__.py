"""Voice bots for eslbot: its bot protocol as asyncio, without a framework.

A bot is a coroutine that is called once for each call::

    async def bot(call: Call) -> None:
        call.say(greeting)
        async for event in call:
            match event:
                case Dtmf(digit):
                    call.end(reason=f"pressed {digit}")

    asyncio.run(serve(bot, "127.0.0.1", 9000))

* :mod:`~eslbot_bot.call`: one call, over all its connections.
* :mod:`~eslbot_bot.events`: what it is told.
* :mod:`~eslbot_bot.server`: who calls the coroutine, and ends gracefully.
* :mod:`~eslbot_bot.sound`: sounds to say; :mod:`~eslbot_bot.vad`: whether the caller speaks.
* :mod:`~eslbot_bot.outgoing`, :mod:`~eslbot_bot.budget`, :mod:`~eslbot_bot.messages`: what is sent, what of
  it is sent again, how fast, and how it is spelt.
"""

from eslbot_bot.call import Call, QueueFull
from eslbot_bot.events import Audio, Cleared, Dtmf, Error, Event, Hold, Mark, Resumed, Start, Stop
from eslbot_bot.outgoing import Heard
from eslbot_bot.server import Bot, Handler, serve
from eslbot_bot.sound import Sound, UnusableSound, tone
from eslbot_bot.vad import EnergyVad

__all__ = [
    "Audio",
    "Bot",
    "Call",
    "Cleared",
    "Dtmf",
    "EnergyVad",
    "Error",
    "Event",
    "Handler",
    "Heard",
    "Hold",
    "Mark",
    "QueueFull",
    "Resumed",
    "Sound",
    "Start",
    "Stop",
    "UnusableSound",
    "serve",
    "tone",
]
