"""How a session of the outbound socket ends, whatever was being waited for.

greenswitch.esl.OutboundSessionHasGoneAway
 ├── CallerHungUp       the channel is gone: the PBX sent BYE or CANCEL, or we refused the call
 └── ConnectionLost     the socket is gone; the call itself may well be alive
"""

from __future__ import annotations

from greenswitch.esl import OutboundSessionHasGoneAway


class CallerHungUp(OutboundSessionHasGoneAway):  # type: ignore[misc]  # greenswitch has no types
    """The channel is gone; ``linger`` keeps the socket for the last events."""


class ConnectionLost(OutboundSessionHasGoneAway):  # type: ignore[misc]  # greenswitch has no types
    """The event socket ended without a hang-up: the dialplan will call another controller."""
