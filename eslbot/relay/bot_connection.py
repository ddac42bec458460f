"""One connection to a bot, as whoever owns it sees it: what is said on it, and what the bot wants, in order.

The owner is a call of the relay's (:mod:`eslbot.relay.call`), or one that only looks how the bot behaves
(:mod:`eslbot.botcheck`): a bot is read by the same code in both.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from eslbot.audio import SAMPLE_RATE, UnusableAudio
from eslbot.audio.decoder import PIECE, Decoder
from eslbot.audio.resample import Upsampler
from eslbot.relay import protocols
from eslbot.relay.budgets import Budget
from eslbot.relay.dialler import BotSocket
from eslbot.relay.protocols.base import BadMessage, Clear, Message, Speech, Wish

#: Messages from before there was a caller that are taken in one of the loop's turns.
MESSAGES_A_TURN = 300

P = ParamSpec("P")


class _Faulty(Protocol):
    def fault(self, error: Exception) -> None:
        """Of ours."""


F = TypeVar("F", bound=_Faulty)


def guarded(method: Callable[Concatenate[F, P], None]) -> Callable[Concatenate[F, P], None]:
    """A fault of ours in one call ends its bot's part, so the customer gets to a human; and no other call."""

    @wraps(method)
    def guarded(own: F, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(own, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  # told there
            own.fault(error)

    return guarded


class Owner(Protocol):
    """Whose connection it is. Nothing in it waits."""

    def bot_wants(self, connection: Connection, wish: Wish) -> None:
        """One wish of the bot's."""

    def bot_speaks(self, connection: Connection, speech: Speech) -> None:
        """A short piece of speech, not decoded yet."""

    def bot_says(self, connection: Connection, linear: bytes) -> bool:
        """A piece of a long speech, L16 at 8,000 Hz; whether more of it is wanted."""

    def bot_lost(self, connection: Connection, code: int, reason: str, *, ends: bool) -> None:
        """The socket has ended; ``ends`` where that is the bot's way to say that it is finished."""

    def bot_is_over_budget(self, connection: Connection, why: str) -> None:
        """It sends more than any bot has to say."""

    def refuse(self, code: str, text: str) -> None:
        """Something of the bot's cannot be used, and it is to be told."""

    def ignore(self, why: str, detail: str, size: int) -> None:
        """Something of the bot's is not understood; ``detail`` is the bot's own word, or ours of it."""

    def fault(self, error: Exception) -> None:
        """A fault of ours."""


@dataclass(frozen=True, slots=True)
class Closed:
    """The bot's socket has ended; code 0 where no close frame came."""

    code: int
    reason: str


class Connection:
    """One socket to the bot, and what is spoken on it (:class:`eslbot.relay.dialler.BotListener`)."""

    def __init__(self, owner: Owner, protocol: protocols.Protocol) -> None:
        self._owner = owner
        self.socket: BotSocket | None = None
        self.protocol = protocol
        self.decoder = Decoder()
        self._budget = Budget(time.monotonic)
        #: None: it hears what we hear.
        self._upsampler = Upsampler(self.protocol.rate) if self.protocol.rate != SAMPLE_RATE else None
        self._loop = asyncio.get_running_loop()
        #: What came before there was a caller to hear it, as the budget lets it; and how the socket ended, if
        #: it did.
        self._early: deque[Message] = deque()
        self._early_end: Closed | None = None
        self._started = False
        #: What is to be done, and the speech that is worked on.
        self._waiting: deque[Wish | Closed] = deque()
        self._speech: Iterator[bytes] | None = None

    def start(self, *, resumed: bool, held: bool) -> None:
        """Say what comes before all else."""
        self.say(lambda protocol: protocol.start(resumed=resumed))
        if held:
            self.say(lambda protocol: protocol.hold(True))

    def fault(self, error: Exception) -> None:
        """A fault of ours; the owner is told."""
        self._owner.fault(error)

    @guarded
    def catch_up(self) -> None:
        """Take what the bot has said before there was a caller, bit by bit: others have calls, too."""
        for _ in range(min(MESSAGES_A_TURN, len(self._early))):
            self._take(self._early.popleft())
        if self._early:
            self._loop.call_soon(self.catch_up)
            return
        self._started = True
        if self._early_end is not None:
            self._wants(self._early_end)

    def say(self, words: Callable[[protocols.Protocol], Sequence[Message]]) -> None:
        """Send messages."""
        if self.socket is not None:
            for message in words(self.protocol):
                self.socket.send(message)

    def send_audio(self, linear: bytes, at: float) -> None:
        """The caller's audio, L16 at 8,000 Hz."""
        audio = linear if self._upsampler is None else self._upsampler.resample(linear)
        if audio and self.socket is not None:
            self.socket.send(self.protocol.audio(audio, at))

    def close(self) -> None:
        """Part with the bot; never waits."""
        self._early.clear()
        self._waiting.clear()
        self._speech = None
        if self.socket is not None:
            self.socket.close()

    # What the socket tells.

    def received(self, message: Message) -> None:
        """A message of the bot's."""
        why = self._budget.message(len(message))
        if why is not None:
            self._owner.bot_is_over_budget(self, why)
        elif self._started:
            self._take(message)
        else:
            self._early.append(message)

    def lost(self, code: int, reason: str) -> None:
        """The socket has ended; 0 where no close frame came."""
        if self._started:
            self._wants(Closed(code, reason))
        else:
            self._early_end = Closed(code, reason)

    def _take(self, message: Message) -> None:
        try:
            wishes = self.protocol.read(message)
        except BadMessage as bad:
            why, detail = bad.args
            if why == "unusable_audio":
                self._owner.refuse(why, detail)
            else:
                self._owner.ignore(why, detail, len(message))
            return
        for wish in wishes:
            if type(wish) is Speech and self._idle and len(wish.audio) <= PIECE:
                self._owner.bot_speaks(self, wish)  # nearly all that bots say; the rest goes the long way
            else:
                self._wants(wish)

    @property
    def _idle(self) -> bool:
        return self._speech is None and not self._waiting

    # Wishes are done in the order in which they came; a long speech is worked on bit by bit, and what comes
    # behind it waits.

    def _wants(self, wish: Wish | Closed) -> None:
        if isinstance(wish, Clear):  # what would be dropped need not be worked on
            self._speech = None
            self._waiting = deque(w for w in self._waiting if not isinstance(w, Speech))
        self._waiting.append(wish)
        self._work()

    @guarded
    def _work(self) -> None:
        while self._waiting and self._speech is None:
            wish = self._waiting.popleft()
            if isinstance(wish, Closed):
                self._owner.bot_lost(self, wish.code, wish.reason, ends=self.protocol.ends_with(wish.code))
            elif isinstance(wish, Speech) and len(wish.audio) > PIECE:
                self._begin_speech(wish)
            else:
                self._owner.bot_wants(self, wish)

    def _begin_speech(self, wish: Speech) -> None:
        try:
            self._speech = self.decoder.pieces(wish)
        except UnusableAudio as error:
            self._owner.refuse("unusable_audio", str(error))
        else:
            self._go_on_with(self._speech)

    @guarded
    def _go_on_with(self, speech: Iterator[bytes]) -> None:
        """The next bit, and the rest when everybody else has had a turn."""
        if speech is not self._speech:
            return
        linear = next(speech, None)
        if linear is not None and self._owner.bot_says(self, linear):
            self._loop.call_soon(self._go_on_with, speech)
            return
        self._speech = None
        self._loop.call_soon(self._work)
