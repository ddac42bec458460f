"""What was observed of a bot in a call. Times are monotonic seconds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from eslbot.relay.protocols.base import Protocol, Wish

#: A sample beyond this, of 32,768, is in the middle of a sound.
LOUD = 1000


@dataclass(frozen=True, slots=True)
class Seen:
    """Something other than speech that the bot asked for, and on which connection of the call (from 0)."""

    at: float
    connection: int
    wish: Wish


@dataclass(frozen=True, slots=True)
class Piece:
    """Speech of so many ``seconds``, and whether it begins, and ends, in mid-sound."""

    at: float
    connection: int
    seconds: float
    begins_loud: bool
    ends_loud: bool


@dataclass(frozen=True, slots=True)
class Bad:
    """A message that was not used, by the relay's word for it."""

    at: float
    why: str
    detail: str


@dataclass(frozen=True, slots=True)
class Lost:
    """The bot's side has ended a connection; ``code`` 0: without a close frame."""

    at: float
    connection: int
    code: int
    reason: str
    ends: bool


@dataclass(slots=True)
class Sound:
    """The caller hears the bot, from ``begun`` on."""

    begun: float
    ended: float | None = None
    cut: bool = False


def loud(linear: bytes) -> bool:
    """Whether L16 has a sample that nobody would take for silence, nor for the end of a word."""
    samples = np.frombuffer(linear, "<i2", len(linear) // 2)
    return len(samples) > 0 and bool(samples.max() > LOUD or samples.min() < -LOUD)


def names_another_stream(protocol: Protocol, message: str) -> bool:
    """Whether a message of the bot's has a stream's id, and it is not this connection's."""
    if protocol.stream_name is None:
        return False
    key, value = protocol.stream_name
    return f'"{key}"' in message and f'"{value}"' not in message
