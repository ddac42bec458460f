"""What bots speak, each protocol in a file of its own: pure translators, without sockets.

* :mod:`~eslbot.relay.protocols.base`: what they translate from and to.
* :mod:`~eslbot.relay.protocols.eslbot`: our own, published as ``docs/bot-protocol.md``.
* :mod:`~eslbot.relay.protocols.twilio`, :mod:`~eslbot.relay.protocols.exotel`,
  :mod:`~eslbot.relay.protocols.plivo`: those of their owners (``docs/bots.md``), on
  :mod:`~eslbot.relay.protocols.envelope`, which they have in common.
* :mod:`~eslbot.relay.protocols.texts`: reading what a bot has sent.
* :mod:`~eslbot.relay.protocols.upgrade`: who is calling, on the upgrade request.

To add one: ``CONTRIBUTING.md``, "Extend".
"""

from __future__ import annotations

from collections.abc import Mapping

from eslbot.caller.invite import Invite
from eslbot.config.model import Bot
from eslbot.relay.protocols import upgrade
from eslbot.relay.protocols.base import Protocol
from eslbot.relay.protocols.eslbot import Eslbot
from eslbot.relay.protocols.exotel import Exotel
from eslbot.relay.protocols.plivo import Plivo
from eslbot.relay.protocols.twilio import Twilio

__all__ = ["PROTOCOLS", "Protocol", "headers", "speak"]

#: By their names in the configuration.
PROTOCOLS: Mapping[str, type[Protocol]] = {
    "eslbot": Eslbot,
    "twilio": Twilio,
    "exotel": Exotel,
    "plivo": Plivo,
}


def speak(invite: Invite, bot: Bot, trace: str) -> Protocol:
    """The protocol of ``bot``, for one connection of the call; ``trace`` as :func:`headers` has it."""
    return PROTOCOLS[bot.protocol](invite, bot, trace)


def headers(invite: Invite, bot: Bot, trace: str) -> dict[str, str]:
    """Who is calling, as headers of the upgrade request; the workspace's own are not among them.

    ``trace``: the call's `traceparent` (:mod:`eslbot.telemetry.trace_context`); empty where there is none.
    """
    told = upgrade.identity(invite, bot.sample_rate)
    return told | {"traceparent": trace} if trace else told
