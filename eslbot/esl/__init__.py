"""FreeSWITCH's outbound event socket: the wire, and one session on it.

Built on greenswitch, whose names and commands :class:`Session` keeps; reading, parsing, sending and waiting
are our own, because greenswitch's lose calls (``docs/architecture.md`` lists each defect and its test).
"""

from eslbot.esl.commands import execute_message, quote
from eslbot.esl.errors import (
    CallerHungUp,
    CommandFailed,
    CommandTimeout,
    ConnectionLost,
    EslError,
    ProtocolError,
    UnsafeArgument,
)
from eslbot.esl.frames import Event, Frame, FrameReader, whole_number
from eslbot.esl.session import Execution, Session

__all__ = [
    "CallerHungUp",
    "CommandFailed",
    "CommandTimeout",
    "ConnectionLost",
    "EslError",
    "Event",
    "Execution",
    "Frame",
    "FrameReader",
    "ProtocolError",
    "Session",
    "UnsafeArgument",
    "execute_message",
    "quote",
    "whole_number",
]
