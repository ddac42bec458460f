"""What can go wrong on an event socket. That a session is over stands in :mod:`eslbot.esl.gone`.

EslError
 ├── CommandFailed      FreeSWITCH answered ``-ERR``
 ├── CommandTimeout     FreeSWITCH did not answer, or an application did not complete, in time
 ├── ProtocolError      what came in is not the event-socket protocol, or breaks a bound
 └── UnsafeArgument     (a ValueError, too) an argument that would become a command of its own
"""

from __future__ import annotations


class EslError(Exception):
    """Something went wrong on an event socket."""


class CommandFailed(EslError):
    """FreeSWITCH answered a command with ``-ERR`` or ``-USAGE``."""


class CommandTimeout(EslError):
    """No answer within the bound."""


class ProtocolError(EslError):
    """Not the event-socket protocol, or a frame beyond the bounds of :mod:`eslbot.esl.frames`."""


class UnsafeArgument(EslError, ValueError):
    """An argument holds a line end or NUL and would break out of its line."""
