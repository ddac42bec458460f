"""One call, over all its connections.

The socket's side (:mod:`eslbot_bot.server`) attaches connections; the bot's side reads events and speaks.
Neither waits for the other: events wait in a queue, and what is said waits in :mod:`eslbot_bot.outgoing`.

A bot that is slow to read its events loses the oldest of the caller's audio, 10 s behind: what it has missed
is worth less than what the caller says now, and one that leaves its socket unread is taken for a failed one.
No other event is lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from eslbot_bot import messages
from eslbot_bot.budget import Budget
from eslbot_bot.events import Audio, Cleared, Error, Event, Hold, Mark, Resumed, Start, Stop
from eslbot_bot.messages import RATES, Value
from eslbot_bot.outgoing import Heard, Outgoing, PendingMark, QueueFull
from eslbot_bot.sound import Sound, UnusableSound

__all__ = ["Call", "QueueFull"]

log = logging.getLogger("eslbot_bot")

#: Frames of the caller that wait for the bot: 10 s; and other events, which a bot that reads none may have.
MAX_AUDIO, MAX_EVENTS = 500, 10_000
#: Messages of speech a second: of 200 ms.
PIECES = 5
#: What ``Stop`` says where the connection broke and no other came.
LOST = "lost"
#: Why a connection is closed whose bot has raised; what it has raised is nobody's business there.
FAILED = "the bot has failed"


class Call:
    """What a bot talks to. ``async for`` gives its events, the last of which is :class:`Stop`; read by one.

    ``say``, ``clear``, ``mark``, ``end`` return at once and are sent in their order, on another connection
    where this one breaks; behind the call's end they do nothing.

    Attributes:
        start: who is calling.
        headers: of the upgrade request of the first connection.
        held: whether the caller was on hold at the event that was read last.
        dropped: frames of the caller's audio that the bot was too slow for.
    """

    def __init__(self, start: Start, headers: Mapping[str, str]) -> None:
        self.start = start
        self.headers = headers
        self.held = False
        self.dropped = 0
        self._held_now = False
        self._events: deque[Event] = deque()
        self._audio_waiting = 0
        self._event = asyncio.Event()
        self._outgoing = Outgoing()
        self._to_send = asyncio.Event()
        self._connection: ServerConnection | None = None
        self._writer: asyncio.Task[None] | None = None
        self._connections = 0
        self._closing: set[asyncio.Task[None]] = set()
        self._over = asyncio.Event()
        self._failed = 0
        self._shutdown = self._stopped = False

    # -- for the bot --------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """``X-Call-ID``."""
        return self.start.call_id

    @property
    def rate(self) -> int:
        """Of the audio in both directions, in Hz."""
        return self.start.rate

    @property
    def resumed(self) -> bool:
        """Whether the call was under way when this process first heard of it: it was greeted by another."""
        return self.start.resumed

    @property
    def speaking(self) -> bool:
        """Whether anything said is still to be heard."""
        return self._outgoing.speaking

    @property
    def over(self) -> bool:
        """Whether the bot's part is over."""
        return self._over.is_set()

    def say(self, sound: bytes | Sound, *, more: bool = False) -> Heard:
        """Speech behind all that was said before; as fast as you have it, there is no pacing to do.

        Args:
            sound: L16 at the call's :attr:`rate`, cut anywhere, or a :class:`Sound` at 8000, 16000, 24000 Hz.
            more: whether another piece of the same utterance follows, as from a TTS that streams.

        Returns:
            Whether it was heard; of pieces, all of them. Await it, or go on.

        Raises:
            UnusableSound: at another rate. QueueFull: more than can be heard in ten minutes.
        """
        if isinstance(sound, bytes):
            sound = Sound(sound, self.rate)
        if sound.rate not in RATES:
            raise UnusableSound(f"{sound.rate} Hz; take {', '.join(map(str, RATES))}: sound.at(call.rate)")
        size = sound.rate * 2 // PIECES
        pieces = [sound.l16[at : at + size] for at in range(0, len(sound.l16), size)]
        frames: list[bytes | str] = [
            piece if sound.rate == self.rate else messages.speech(piece, sound.rate) for piece in pieces
        ]
        heard = self._outgoing.say(frames, more=more)
        self._said()
        return heard

    def clear(self) -> None:
        """Barge-in: the caller hears nothing more of what was said; what is said next comes at once."""
        self._tell_marks(self._outgoing.clear())
        self._said()

    def mark(self, name: str) -> Heard:
        """Ask for :class:`Mark` when everything said so far was heard; the answer is awaitable, too.

        Raises ValueError for a name that is empty or has over 116 characters.
        """
        heard = self._outgoing.mark(name)
        self._said()
        return heard

    def end(self, properties: Mapping[str, Value] | None = None, reason: str = "") -> None:
        """The bot is finished: what was said is heard, then an agent takes over. The first one counts.

        Args:
            properties: for Ameyo, at most 64; those that the workspace lists reach it.
            reason: for the operator; 200 characters.

        Raises ValueError or TypeError for a property that cannot be sent.
        """
        self._outgoing.end(messages.end(properties or {}, reason))
        self._said()

    def caller_speech(self, speaking: bool) -> None:
        """Tell the operator's timeline that the bot hears the caller begin to speak, or stop."""
        if self._connection is not None:
            self._outgoing.put(messages.caller_speech(speaking))
            self._said()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._events:
            if self._stopped:
                raise StopAsyncIteration
            self._event.clear()
            await self._event.wait()
        event = self._events.popleft()
        self._audio_waiting -= isinstance(event, Audio)
        if isinstance(event, Hold):
            self.held = event.on
        return event

    def _said(self) -> None:
        if self.over:
            self._outgoing.over()
        self._to_send.set()

    # -- for the server -----------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether :meth:`end` was said."""
        return self._outgoing.ended

    @property
    def connected(self) -> bool:
        """Whether there is a connection."""
        return self._connection is not None

    @property
    def connections(self) -> int:
        """How many there were, with this one."""
        return self._connections

    async def wait_over(self) -> None:
        """Until the bot's part is over."""
        await self._over.wait()

    async def converse(self, connection: ServerConnection, early: list[bytes], *, resumed: bool) -> bool:
        """Carry the call on ``connection`` until that ends; whether the bot's part is over with it.

        ``early`` is what the caller has said before ``start``.
        """
        self._leave()
        if self._failed:
            await connection.close(self._failed, FAILED)
            return True
        self._connection = connection
        self._connections += 1
        self._shutdown = False
        if resumed:
            self._resume()
        for frame in early:
            self._put(Audio(frame))
        self._writer = asyncio.create_task(self._write(connection))
        try:
            async for message in connection:
                if self._connection is not connection:
                    return False
                self._receive(message)
                if len(self._events) - self._audio_waiting > MAX_EVENTS:
                    await self.fail(1008, f"{MAX_EVENTS} events wait to be read")
        except ConnectionClosed:
            pass  # its code tells how
        if self._connection is not connection:
            return False
        self._leave()
        return connection.close_code == 1000 and not self._shutdown

    def _leave(self) -> None:
        """Part with the connection there is; that its other end is gone may be known late."""
        if self._writer is not None:
            self._writer.cancel()
        if self._connection is not None:
            closing = asyncio.create_task(
                self._connection.close(1001, "this connection is not the call's any more")
            )
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
        self._writer = self._connection = None

    def _resume(self) -> None:
        self._outgoing.again()
        self._to_send.set()
        if self._held_now:  # eslbot says it again where it is still so
            self._held_now = False
            self._put(Hold(False))
        self._put(Resumed())

    async def fail(self, code: int, why: str) -> None:
        """The bot has failed: its connection is closed with ``code``, and any other that comes."""
        self._failed = code
        if self._connection is not None:
            await self._connection.close(code, why)

    def finish(self, reason: str = "") -> None:
        """The bot's part is over, once; ``reason`` unless eslbot has given one."""
        if self.over:
            return
        self._over.set()
        self._outgoing.over()
        if not self._stopped:
            self._put(Stop(reason))

    def abandon(self) -> None:
        """The call is over here, whatever becomes of its connection."""
        self._leave()
        self.finish(LOST)

    async def _write(self, connection: ServerConnection) -> None:
        loop = asyncio.get_running_loop()
        budget = Budget(loop.time())
        while True:
            if wait := budget.wait(loop.time()):
                await asyncio.sleep(wait)
            item = self._outgoing.take()
            if item is None:
                self._to_send.clear()
                await self._to_send.wait()
                continue
            budget.sent(len(item.frame))
            try:
                await connection.send(item.frame)
            except ConnectionClosed:
                return  # another one may come
            self._outgoing.landed()

    # -- what comes ---------------------------------------------------------------------------------------

    def _receive(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._put(Audio(message))
            return
        document = messages.read(message)
        if document is None:
            return
        if document.get("type") == "resumed":
            self._outgoing.put(messages.resumed())
            self._outgoing.end_again()
            self._to_send.set()
            return
        match messages.event(document):
            case Mark(name, cleared):
                mark = self._outgoing.marked(name, cleared=cleared)
                self._tell_marks([] if mark is None else [mark], cleared=cleared)
            case Cleared() as event:
                self._tell_marks(self._outgoing.cleared())
                self._put(event)
            case Stop("shutdown"):
                self._shutdown = True  # another relay has the call, or will
            case Hold(on) as event:
                self._held_now = on
                self._put(event)
            case Error(code) as event:
                log.warning("call %s: eslbot could not use what the bot sent: %s", self.id, code)
                self._put(event)
            case None:
                return
            case event:
                self._put(event)

    def _tell_marks(self, marks: list[PendingMark], *, cleared: bool = True) -> None:
        for mark in marks:
            if mark.name is not None:
                self._put(Mark(mark.name, cleared))

    def _put(self, event: Event) -> None:
        if isinstance(event, Audio):
            if self._audio_waiting >= MAX_AUDIO:
                self._drop_audio()
            self._audio_waiting += 1
        self._stopped = self._stopped or isinstance(event, Stop)
        self._events.append(event)
        self._event.set()

    def _drop_audio(self) -> None:
        """The oldest."""
        for index, event in enumerate(self._events):
            if isinstance(event, Audio):
                del self._events[index]
                break
        self._audio_waiting -= 1
        self.dropped += 1
        if self.dropped == 1:
            log.warning("call %s: the bot is slow to read events; the caller's audio is dropped", self.id)
