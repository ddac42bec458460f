"""A call and bots for tests of what bots speak."""

from __future__ import annotations

from dataclasses import replace

from eslbot.config.model import Bot
from eslbot.relay import protocols
from eslbot.relay.protocols.base import Protocol
from eslbot.telemetry.trace_context import traceparent
from tests.support import invites

#: A CRT Object ID may be any text.
INVITE = replace(invites.INVITE, crt_object_id="d444-$\\{};'3883")

#: What a bot is told of its trace.
TRACE = traceparent(INVITE.call_id, 1.0)


def bot_of(protocol: str, rate: int = 8000) -> Bot:
    """A workspace's bot."""
    return Bot(
        urls=("ws://127.0.0.1/",),
        sample_rate=rate,
        connect_timeout=3.0,
        first_audio_timeout=10.0,
        headers={},
        insecure=True,
        protocol=protocol,
    )


def speak(protocol: str, rate: int = 8000) -> Protocol:
    """One connection of :data:`INVITE`'s call."""
    return protocols.speak(INVITE, bot_of(protocol, rate), TRACE)
