"""One call to the bot that is checked: what the relay would say and hear, and all that was seen of it.

The bot is read as in the relay (:mod:`eslbot.relay.bot_connection`), and what it says is heard in real time
by nobody (:mod:`eslbot.botcheck.clocked_line`), so its marks come back when a caller would have heard them. A
check says what happens next: the caller speaks, a key, a hold, a connection that breaks.

Times are monotonic seconds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import Any, Self

from eslbot.audio import SAMPLE_RATE, UnusableAudio
from eslbot.audio.levels import audible
from eslbot.botcheck.clocked_line import SAMPLES, ClockedLine
from eslbot.botcheck.observations import Bad, Lost, Piece, Seen, Sound, loud, names_another_stream
from eslbot.botcheck.target import Target, Times
from eslbot.botcheck.watched_socket import WatchedSocket
from eslbot.caller.invite import Invite
from eslbot.relay import dialler, protocols
from eslbot.relay.bot_connection import Connection, guarded
from eslbot.relay.dialler import BotUnreachable
from eslbot.relay.playout import Playout, QueueFull
from eslbot.relay.playout_delay import PlayoutDelay
from eslbot.relay.protocols import texts
from eslbot.relay.protocols.base import BadMessage, Clear, End, Mark, Message, Speech, Wish

#: Seconds after which a condition that depends on the clock is evaluated again.
POLL = 0.05
FRAME, FRAME_SECONDS = 2 * SAMPLES, SAMPLES / SAMPLE_RATE
#: Seconds of speech that are kept of a connection; messages that are noted of a call.
KEPT, MOST_NOTED = 20, 10_000


class CheckedConnection(Connection):
    """One connection of a call; ``reworded`` changes each message to the bot before it is sent."""

    def __init__(self, owner: BotCall, protocol: protocols.Protocol, number: int) -> None:
        super().__init__(owner, protocol)
        self.number = number
        self.reworded: Callable[[Message], Message] = lambda message: message
        self.audio = bytearray()
        self._call = owner

    @property
    def watched(self) -> WatchedSocket:
        """Its socket."""
        assert isinstance(self.socket, WatchedSocket)
        return self.socket

    def say(self, words: Callable[[protocols.Protocol], Sequence[Message]]) -> None:
        """Send messages, reworded."""
        super().say(lambda protocol: [self.reworded(message) for message in words(protocol)])

    def send(self, message: Message) -> None:
        """Send something that no protocol makes."""
        if self.socket is not None:
            self.socket.send(message)

    def received(self, message: Message) -> None:
        """Note it, and go on as the relay does."""
        self._call.note_message(self, message)
        super().received(message)


class BotCall:
    """A call; a context manager. See the attributes for what was seen.

    Attributes:
        begun, connected: when the first connection was wanted, and its `start` was sent.
        spoke_at, loud_at: speech that can be heard has come, first and last; ``speech``: each piece of it.
        wishes, bad, lost, heard, marks: in their order; ``marks`` are those that were answered.
        finished_at: the bot has said that it is finished: by `end`, or by its way to close.
        over_budget: it has sent more than it may.
        ends: each `end` as it came; other_streams: messages with the id of a stream that is not theirs.
        messages, largest: how many came, and the bytes of the largest.
        halves: how often half a sample was left when an utterance was over.
        onset, first_onset: the caller's first frame that can be heard since :meth:`says`, and of all.
        late, stalled: by how much the caller's frames were late at most, and all that together.
        error: a fault of ours.
    """

    def __init__(self, target: Target, times: Times, name: str, invite: Invite | None = None) -> None:
        self.name, self.target, self.times = name, target, times
        self.invite = invite or target.invite()
        self.begun = self.connected = monotonic()
        self.connections: list[CheckedConnection] = []
        self.line = ClockedLine()
        self.playout = Playout(self.line, PlayoutDelay(), self)
        self.spoke_at: float | None = None
        self.loud_at = 0.0
        self.finished_at: float | None = None
        self.speech: list[Piece] = []
        self.wishes: list[Seen] = []
        self.bad: list[Bad] = []
        self.lost: list[Lost] = []
        self.heard: list[Sound] = []
        self.marks: list[tuple[str, bool]] = []
        self.over_budget: str | None = None
        self.other_streams = 0
        self.ends: list[Mapping[str, Any]] = []
        self.messages = self.largest = self.halves = 0
        self._by_second: Counter[int] = Counter()
        self.onset: float | None = None
        self.first_onset: float | None = None
        self.error: Exception | None = None
        self.muted = False
        self.held = False
        self.late = self.stalled = 0.0
        self._frames = bytearray()
        self._sent = 0
        self._errors_sent: set[str] = set()
        self._caller: asyncio.Task[None] | None = None
        self._due: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._caller is not None:
            self._caller.cancel()
        if self._due is not None:
            self._due.cancel()
        for connection in self.connections:
            await connection.watched.gone()
        if self.error is not None:
            raise self.error

    # -- what a check makes happen --------------------------------------------------------------------------

    async def connect(self, *, resumed: bool = False, start: bool = True) -> float:
        """Dial the bot, and say `start` unless that is not wanted yet; seconds. Raises BotUnreachable."""
        bot = self.target.bot
        connection = CheckedConnection(
            self, protocols.speak(self.invite, bot, ""), number=len(self.connections)
        )
        headers = protocols.headers(self.invite, bot, "")
        begun = monotonic()
        if not self.connections:
            self.begun = begun
        last = BotUnreachable("it has no URL")
        for url in bot.urls:
            watched = WatchedSocket(connection, self.times.close, self.changed)
            try:
                await dialler.connect(bot, url, headers, watched)
            except BotUnreachable as error:
                last = error
                continue
            connection.socket = watched
            self.connections.append(connection)
            took = monotonic() - begun
            if start:
                self.start(resumed=resumed)
            return took
        raise last

    def start(self, *, resumed: bool = False) -> None:
        """Say `start`; the caller is there from now on."""
        connection = self.connection
        if not resumed:
            self.connected = monotonic()
        connection.start(resumed=resumed, held=self.held)
        connection.catch_up()
        if self._caller is None:
            self._caller = asyncio.get_running_loop().create_task(self._pace())
        self._go_on()

    def tell(self, words: Callable[[protocols.Protocol], Sequence[Message]]) -> None:
        """Say something to the bot."""
        self.connection.say(words)

    def hold(self, on: bool) -> None:
        """The PBX puts the caller on hold, or takes them off it."""
        self.held = on
        self.playout.hold(on)
        self.tell(lambda protocol: protocol.hold(on))
        self._go_on()

    def says(self, linear: bytes) -> None:
        """The caller speaks."""
        self.onset = None
        self._frames += linear

    @property
    def speaks(self) -> bool:
        """Whether the caller has more to say."""
        return bool(self._frames)

    def hush(self) -> None:
        """The caller stops speaking."""
        self._frames.clear()

    def break_off(self) -> None:
        """The connection breaks, as when a relay is killed."""
        self.connection.watched.abandon()

    async def part(self, reason: str) -> bool:
        """Say `stop`, close, and see the bot out; whether TCP has ended by itself."""
        watched = self.connection.watched
        self.tell(lambda protocol: protocol.stop(reason))
        self.connection.close()
        await self.until(lambda: watched.ended_at is not None, self.times.close + 1)
        return watched.ended_at is not None and not watched.left_open

    async def until(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait until it holds, at most so long; whether it does."""
        deadline = monotonic() + seconds
        while not holds():
            rest = deadline - monotonic()
            if rest <= 0:
                return False
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), min(rest, POLL))
            except TimeoutError:
                continue
        return True

    async def stays(self, seconds: float) -> bool:
        """Wait so long, or until the bot's part is over; whether it is not."""
        return not await self.until(lambda: self.over, seconds)

    async def until_quiet(self, limit: float) -> bool:
        """Until nothing was to be heard of the bot for a while, or its part is over."""
        return await self.until(lambda: self.over or self.quiet_for() >= self.times.hush, limit)

    def quiet_for(self) -> float:
        """Seconds since the caller last heard the bot, something to be heard has come, or `start`."""
        since = max(self.connected, self.loud_at)
        if self.heard:
            ended = self.heard[-1].ended
            since = monotonic() if ended is None else max(since, ended)
        return monotonic() - since

    # -- what was seen ---------------------------------------------------------------------------------------

    @property
    def connection(self) -> CheckedConnection:
        """The newest."""
        return self.connections[-1]

    @property
    def broken(self) -> str | None:
        """How the bot has failed, as the relay would see it; None: it has not."""
        if self.over_budget is not None:
            return f"sent {self.over_budget}"
        for lost in self.lost:
            if not lost.ends:
                how = f"closed with {lost.code} {lost.reason}".strip() if lost.code else lost.reason
                return how.removeprefix("the connection broke").strip() or "broke the connection off"
        return None

    @property
    def over(self) -> bool:
        """Whether the bot is finished, or has failed."""
        return self.finished_at is not None or bool(self.lost) or self.over_budget is not None

    @property
    def end(self) -> End | None:
        """The bot's first `end`."""
        return next((seen.wish for seen in self.wishes if isinstance(seen.wish, End)), None)

    @property
    def sounding(self) -> bool:
        """Whether the caller hears the bot."""
        return bool(self.heard) and self.heard[-1].ended is None

    def first(self, kind: type[Wish], since: float = 0.0) -> float | None:
        """When the bot first wanted this, from a time on."""
        return next((s.at for s in self.wishes if isinstance(s.wish, kind) and s.at >= since), None)

    def spoken(self, connection: int) -> float:
        """Seconds of speech that came on a connection."""
        return sum(piece.seconds for piece in self.speech if piece.connection == connection)

    @property
    def messages_a_second(self) -> int:
        """The most that came within one second of the clock."""
        return max(self._by_second.values(), default=0)

    def changed(self) -> None:
        """Something has happened."""
        self._changed.set()

    def note_message(self, connection: CheckedConnection, message: Message) -> None:
        """A message has come, whatever it is."""
        self.messages += 1
        self._by_second[int(monotonic())] += 1
        self.largest = max(self.largest, len(message))
        if isinstance(message, str) and names_another_stream(connection.protocol, message):
            self.other_streams += 1
        if isinstance(message, str) and '"end"' in message and len(self.ends) < MOST_NOTED:
            try:
                document, _ = texts.read(message, "audioData")
            except BadMessage:
                return  # told by whoever reads it for good
            if document.get("type") == "end":
                self.ends.append(document)

    # -- what the connection tells (eslbot.relay.bot_connection.Owner) ---------------------------------------

    @guarded
    def bot_wants(self, connection: Connection, wish: Wish) -> None:
        """As in the relay."""
        assert isinstance(connection, CheckedConnection)
        if isinstance(wish, Speech):
            self.bot_speaks(connection, wish)
            return
        if len(self.wishes) < MOST_NOTED:
            self.wishes.append(Seen(monotonic(), connection.number, wish))
        match wish:
            case Clear():
                connection.decoder.reset()
                self.playout.clear()
                connection.say(lambda protocol: protocol.cleared())
            case Mark():
                try:
                    self.playout.mark(wish.name)
                except QueueFull as error:
                    self.refuse("queue_full", str(error))
            case End():
                self.finished_at = self.finished_at or monotonic()
                self.playout.finish()
        self._go_on()

    @guarded
    def bot_speaks(self, connection: Connection, speech: Speech) -> None:
        """As in the relay."""
        try:
            linear = connection.decoder.decode(speech)
        except UnusableAudio as error:
            self.refuse("unusable_audio", str(error))
        else:
            self.bot_says(connection, linear)

    def bot_says(self, connection: Connection, linear: bytes) -> bool:
        """As in the relay."""
        assert isinstance(connection, CheckedConnection)
        now = monotonic()
        try:
            self.playout.say(linear)
        except QueueFull as error:
            self.refuse("queue_full", str(error))
            return False
        if audible(linear):
            self.spoke_at, self.loud_at = self.spoke_at or now, now
        if len(self.speech) < MOST_NOTED:
            edges = loud(linear[:FRAME]), loud(linear[-FRAME:])
            self.speech.append(Piece(now, connection.number, len(linear) / (2 * SAMPLE_RATE), *edges))
        if len(connection.audio) < KEPT * 2 * SAMPLE_RATE:
            connection.audio += linear
        self._go_on()
        return True

    def bot_lost(self, connection: Connection, code: int, reason: str, *, ends: bool) -> None:
        """The bot has closed, or broken off."""
        assert isinstance(connection, CheckedConnection)
        self.lost.append(Lost(monotonic(), connection.number, code, reason, ends))
        if ends:
            self.finished_at = self.finished_at or monotonic()
            self.playout.finish()
        self.changed()

    def bot_is_over_budget(self, connection: Connection, why: str) -> None:
        """It has failed."""
        self.over_budget = self.over_budget or why
        connection.close()
        self.changed()

    def refuse(self, code: str, text: str) -> None:
        """Told once a call."""
        self.ignore(code, text, 0)
        if code not in self._errors_sent:
            self._errors_sent.add(code)
            self.tell(lambda protocol: protocol.error(code, text))

    def ignore(self, why: str, detail: str, size: int) -> None:
        """It is noted."""
        if len(self.bad) < MOST_NOTED:
            self.bad.append(Bad(monotonic(), why, detail))
        self.changed()

    def fault(self, error: Exception) -> None:
        """Raised when the call is over."""
        self.error = self.error or error
        self.changed()

    # -- what the playout tells (eslbot.relay.playout.PlayoutListener) --------------------------------------

    def mark_reached(self, name: str, cleared: bool) -> None:
        """Told to the bot."""
        self.marks.append((name, cleared))
        self.line.heard_out()
        self.tell(lambda protocol: protocol.mark(name, cleared=cleared))
        self.changed()

    def utterance_began(self, ago: float) -> None:
        """Of no use here."""

    def utterance_over(self, cut: bool, ago: float) -> None:
        """The utterance is over."""
        self.halves += self.connection.decoder.half
        self.line.utterance_over()
        self.connection.decoder.reset()

    def bot_audible(self, at: float, arrived: float) -> None:
        """The caller hears the bot."""
        self.heard.append(Sound(at))
        self.changed()

    def bot_inaudible(self, at: float, cut: bool) -> None:
        """The caller hears it no more."""
        if self.heard:
            self.heard[-1].ended, self.heard[-1].cut = at, cut
        self.changed()

    # -- the clock -------------------------------------------------------------------------------------------

    @guarded
    def _go_on(self) -> None:
        if self._due is not None:
            self._due.cancel()
        due = self.playout.tick()
        assert due is not None  # nobody else has the line
        self._due = asyncio.get_running_loop().call_at(due, self._go_on)
        self.changed()

    async def _pace(self) -> None:
        """The caller: 20 ms every 20 ms, as long as the call lasts."""
        begun, before = monotonic(), 0.0
        while True:
            self._sent += 1
            due = begun + self._sent * FRAME_SECONDS
            await asyncio.sleep(due - monotonic())
            late = monotonic() - due
            self.late = max(self.late, late)
            if late - before > FRAME_SECONDS:  # less is a loop's own unevenness
                self.stalled += late - before
            before = late
            if self.muted:
                continue
            frame = bytes(self._frames[:FRAME]).ljust(FRAME, b"\0")
            del self._frames[:FRAME]
            if self.onset is None and audible(frame):
                self.onset = monotonic()
                self.first_onset = self.first_onset or self.onset
            self.connection.send_audio(frame, self._sent * FRAME_SECONDS)
