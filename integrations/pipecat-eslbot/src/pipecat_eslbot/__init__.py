"""Pipecat bots on eslbot's telephone line.

:func:`run` serves a bot; :class:`Calls` is the same for a web application that there is already. Both give
each call to a function of the user's as a :class:`Call`. The protocol is eslbot's ``docs/bot-protocol.md``.
"""

from pipecat_eslbot.call import Call
from pipecat_eslbot.calls import Bot, Calls
from pipecat_eslbot.frames import HoldFrame, LineResumedFrame, MarkFrame, MarkPlayedFrame
from pipecat_eslbot.line import Line
from pipecat_eslbot.serializer import EslbotFrameSerializer
from pipecat_eslbot.server import application, run
from pipecat_eslbot.start import BadStart, Start
from pipecat_eslbot.transport import EslbotParams, EslbotTransport

__all__ = [
    "BadStart",
    "Bot",
    "Call",
    "Calls",
    "EslbotFrameSerializer",
    "EslbotParams",
    "EslbotTransport",
    "HoldFrame",
    "Line",
    "LineResumedFrame",
    "MarkFrame",
    "MarkPlayedFrame",
    "Start",
    "application",
    "run",
]
