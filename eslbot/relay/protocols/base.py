"""What every protocol translates from and to.

A protocol gets what happens on the line and returns the WebSocket messages that tell a bot of it (`str` is a
text message, `bytes` a binary one); and it reads a bot's message into what the bot wants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from eslbot.audio.decoder import EncodedAudio
from eslbot.caller.invite import Invite
from eslbot.config.model import Bot

#: One WebSocket message.
Message = str | bytes


class BadMessage(Exception):
    """A message that cannot be used: ``args[0]`` is a fixed word for the metric, ``args[1]`` says why."""


class Speech(EncodedAudio):
    """Speech to play behind what is queued, as the bot has sent it: unexamined."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Clear:
    """Barge-in: stop now, drop what is queued."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Tell the bot when the caller has heard everything up to here; the name may be empty."""

    name: str


@dataclass(frozen=True, slots=True)
class End:
    """The bot is finished. ``closed``: it did not say `end`, but what stands for closing the connection."""

    properties: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    closed: bool = False


@dataclass(frozen=True, slots=True)
class CallerSpeech:
    """The bot hears the caller begin to speak, or stop; for the call's timeline."""

    speaking: bool


Wish = Speech | Clear | Mark | End | CallerSpeech


class Protocol(ABC):
    """One bot's connection. Made anew for each; ``rate`` is that of the caller's audio it wants, in Hz.

    ``trace``: the call's `traceparent`; empty where there is none.
    """

    #: What a stream is called in the messages of both sides, and this one's id; None: they name none.
    stream_name: tuple[str, str] | None = None

    def __init__(self, invite: Invite, bot: Bot, trace: str) -> None:
        self.invite = invite
        self.bot = bot
        self.trace = trace
        self.rate = bot.sample_rate

    @abstractmethod
    def start(self, *, resumed: bool) -> Sequence[Message]:
        """The first messages, before any audio; ``resumed`` where an earlier connection was lost."""

    @abstractmethod
    def audio(self, linear: bytes, at: float) -> Message:
        """The caller's audio, L16 at :attr:`rate`; ``at`` seconds since the stream's beginning."""

    @abstractmethod
    def read(self, message: Message) -> Sequence[Wish]:
        """What the bot wants. Raises :class:`BadMessage`."""

    def key(self, digit: str, milliseconds: int) -> Sequence[Message]:
        """The caller pressed a key."""
        return ()

    def hold(self, on: bool) -> Sequence[Message]:
        """The PBX has put the caller on hold, or taken them off it."""
        return ()

    def mark(self, name: str, *, cleared: bool) -> Sequence[Message]:
        """Heard up to the bot's mark, or it was dropped by a clear."""
        return ()

    def cleared(self) -> Sequence[Message]:
        """Everything that was queued is dropped."""
        return ()

    def error(self, code: str, text: str) -> Sequence[Message]:
        """A message of the bot's was not used; told once a call for each ``code``."""
        return ()

    def ends_with(self, code: int) -> bool:
        """Whether a bot that closes with ``code`` is finished; with any other it has failed."""
        return code == 1000

    def stop(self, reason: str) -> Sequence[Message]:
        """The bot's part is over, the socket is about to be closed: caller_hangup, ended or max_duration."""
        return ()
