"""A call and bots for tests of what bots speak."""

from __future__ import annotations

from eslbot.config.model import Bot
from eslbot.invite import Invite
from eslbot.relay import protocols
from eslbot.relay.protocols.base import Protocol

INVITE = Invite(
    call_id="6e7cd1a1-0b1a-4ad5-8a2c-1d1b3b3b3b3b",
    did="00919990152080",
    crt_object_id="d444-$\\{};'3883",
    workspace_id="2b37ba17-7b20-4b3e-b138-1161e351d5c5",
    source_ip="203.0.113.10",
    caller="0401234567",
    to="bot",
)


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
    return protocols.speak(INVITE, bot_of(protocol, rate))
