"""What can go wrong on an event socket.

greenswitch.esl.OutboundSessionHasGoneAway
 ├── CallerHungUp       the channel is gone: the PBX sent BYE or CANCEL, or we refused the call
 └── ConnectionLost     the socket is gone; the call itself may well be alive
EslError
 ├── CommandFailed      FreeSWITCH answered ``-ERR``
 ├── CommandTimeout     FreeSWITCH did not answer, or an application did not complete, in time
 ├── ProtocolError      what came in is not the event-socket protocol, or breaks a bound
 └── UnsafeArgument     (a ValueError, too) an argument that would become a command of its own
"""

from __future__ import annotations

from greenswitch.esl import OutboundSessionHasGoneAway


class CallerHungUp(OutboundSessionHasGoneAway):  # type: ignore[misc]  # greenswitch has no types
    """The channel is gone; ``linger`` keeps the socket for the last events."""


class ConnectionLost(OutboundSessionHasGoneAway):  # type: ignore[misc]  # greenswitch has no types
    """The event socket ended without a hang-up: the dialplan will call another controller."""


class EslError(Exception):
    """Anything else that went wrong on an event socket."""


class CommandFailed(EslError):
    """FreeSWITCH answered a command with ``-ERR`` or ``-USAGE``."""


class CommandTimeout(EslError):
    """No answer within the bound."""


class ProtocolError(EslError):
    """Not the event-socket protocol, or a frame beyond the bounds of :mod:`eslbot.esl.frames`."""


class UnsafeArgument(EslError, ValueError):
    """An argument holds a line end or NUL and would break out of its line."""
