"""One call in the relay, from its stream's first frame to its bot's end.

The bot's part::

    dialling ──▶ connected ──▶ over ──▶ done
        ▲            │ (a break, where the workspace has `reconnect`)
        └────────────┘

*Over* is told as ENDED: what the bot wants Ameyo to know is known. Behind an ``end`` (or a close that means
it) what is queued is still heard; *done* is told as DONE when the line is silent. A bot that has failed is
cut off at once, so the two come together.

Streams come and go: the call is in here until its stream was closed with 1000, which is how mod_audio_stream
says that the channel is gone or that a controller stopped it, or until nobody has brought another one within
:data:`KEEP` seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Any

import structlog

from eslbot.ameyo.properties import allowed
from eslbot.caller.invite import Invite
from eslbot.config.model import Workspace
from eslbot.outcome import Outcome
from eslbot.recording.recorder import CallRecording
from eslbot.relay import control, protocols
from eslbot.relay.audio import UnusableAudio, audible
from eslbot.relay.caller import FRAME, CallerAudio
from eslbot.relay.connection import Connection, guarded
from eslbot.relay.control import News, Order, Part
from eslbot.relay.conversation import Conversation
from eslbot.relay.dialler import BotUnreachable, dial
from eslbot.relay.line import Line
from eslbot.relay.module import Call, Stream
from eslbot.relay.outbox import Outbox
from eslbot.relay.playout import Playout, QueueFull
from eslbot.relay.protocols.base import (
    CallerSpeech,
    Clear,
    End,
    Mark,
    Message,
    Speech,
    Wish,
)
from eslbot.relay.shared import Shared
from eslbot.relay.turns import Turn
from eslbot.telemetry import metrics, redaction
from eslbot.telemetry.trace_context import traceparent

log = structlog.get_logger()

#: Seconds that a call whose stream broke off is kept for another one: FreeSWITCH may come back.
KEEP = 30.0
#: Seconds that a call waits for a stream that its controller has announced; the caller may hang up meanwhile.
AGAIN_DUE = 10.0
#: Seconds that what is queued may still play when the bot has ended; the last word of a bot that talks and
#: talks is not worth more of the customer's time.
LAST_WORDS = 60.0
#: Seconds by which the caller's audio may be late: more than a frame, less than two.
LATE = 0.03
#: Seconds between two looks at that: it is measured over a quarter of a second and more.
LOOK = 0.1
#: Milliseconds of the packets by which turns are measured: with others all times would be coarser.
MEASURED_PTIME = 20
#: What mod_audio_stream brings where no packet has come.
FILLER = b"\xff" * FRAME
#: Samples of the caller's audio that are missing for good.
MISSING = control.RATE
#: In which its time is told.
FRAME_SAMPLES, FRAME_SECONDS = control.RATE // 50, 0.02
#: Ways to end that leave the bot its last words.
_FINISHED = (Outcome.BOT_ENDED, Outcome.BOT_CLOSED)


class Bot(StrEnum):
    """Where a call's bot is; the words of STATE."""

    DIALLING = "dialling"
    CONNECTED = "connected"
    OVER = "over"


class RelayCall(Call):
    """The call of ``invite``. Every method returns at once; all run in the relay's loop."""

    def __init__(self, invite: Invite, workspace: Workspace, shared: Shared) -> None:
        self.invite = invite
        self.workspace = workspace
        self._shared = shared
        #: What a bot is told of the call's trace; empty where no traces are made.
        self.trace = "" if shared.traced is None else traceparent(invite.call_id, shared.traced)
        self._loop = asyncio.get_running_loop()
        self._log = log.bind(
            call_id=invite.call_id, workspace=workspace.name, crt_object_id=invite.crt_object_id
        )
        #: Made by :meth:`lay`; until then there is nobody to speak to.
        self._line: Line
        self._playout: Playout
        self._laid = False
        #: The earlier relays' files that STATE has named.
        self._old_told: tuple[Path, ...] = ()
        self._caller = CallerAudio()
        self._outbox = Outbox()
        self._stream: Stream | None = None
        self._stream_since = 0.0
        #: Whether the controller wants another stream behind this one.
        self._again = False
        #: Samples of the caller's audio that have come, which is its time: bots take a time stamp that is
        #: later than the audio before it, be it by a millisecond, for lost audio.
        self._heard = 0
        self._bot = Bot.DIALLING
        self._begun = self._gone = False
        self._ended: dict[str, Any] | None = None
        self._done = False
        self._spoken = self._held = False
        self._reconnects = int(workspace.bot.reconnect)
        self._told: set[str] = set()
        #: Seconds of speech that were lost, as counted.
        self._lost: dict[str, float] = {}
        self._short_told = False
        self._caller_looked = float("-inf")
        #: The turns; None where they cannot be measured.
        self._conversation: Conversation | None = None
        #: Of the bot that has its `start`; it may be there before the caller is.
        self._connection: Connection | None = None
        self._dialling: asyncio.Task[None] | None = None
        self._first_audio: asyncio.TimerHandle | None = None
        self._last_words: asyncio.TimerHandle | None = None
        self._keep: asyncio.TimerHandle | None = None
        self._tick: asyncio.TimerHandle | None = None
        #: Whether what the bot has said will be placed in the loop's next turn.
        self._placing = False
        #: What is recorded of the call, and whether the caller is being told so: the bot waits for its end.
        self._recording: CallRecording | None = None
        self._recording_told: str | None = None
        self._announced = self._announcing = False
        #: The bot whose speech is taken.
        self._speaks: Connection | None = None

    # -- the stream ---------------------------------------------------------------------------------------

    @guarded
    def prepare(self) -> None:
        """Dial the bot of a call that is about to be answered."""
        self._begin(Part.NEW)

    def lay(self, ptime: int, switch: str) -> None:
        """Make the line's files, and find what a relay before us has left; see :meth:`Call.lay`."""
        shared = self._shared
        try:
            if self._laid:
                if self._recording is not None:
                    self._recording.restarts()
                if self._playout.read_by(switch):
                    self._break_turns()
                    self._log.warning("switch_restarted", switch=switch)
                    self._short_told = False  # its jitter buffer is gone, too
                    if self._recording is not None:
                        self._recording.restarted()
                return
            recorded = shared.recorder.wants(self.invite.call_id, self.workspace)
            self._line = Line.open(
                shared.directory,
                self.invite.call_id,
                shared.reads,
                samples=ptime * control.RATE // 1000,
                switch=switch,
                kept=recorded,
            )
        except (OSError, ValueError) as error:
            self._without_line(error)
            return
        self._playout = Playout(self._line, shared.margin(self.workspace.id).of_call(), self)
        if ptime == MEASURED_PTIME:
            self._conversation = Conversation(self._turn, self._bot_level)
        self._laid = True
        if recorded:
            self._recording = shared.recorder.record(self.invite, self.workspace, self._line)

    def _without_line(self, error: OSError | ValueError) -> None:
        """All relays of this host have the same directory: there is no other to wait for."""
        metrics.RELAY_REFUSED.labels("not_made").inc()
        self._log.error(
            "line_not_made",
            error=str(error),
            remedy="see relay.directory: is it there, is there room in it, and may the relay write there?",
        )
        self._begun = True
        why = error.strerror if isinstance(error, OSError) else None
        self._give_up(Outcome.RELAY_LOST, f"the relay cannot make its line files: {why or error}")

    @guarded
    def stream_up(self, stream: Stream, part: Part) -> None:
        """Go on, or begin, with a stream of the module's; one that there was is nobody's any more."""
        _cancel(self._keep)
        self._stream, self._stream_since, self._heard = stream, self._loop.time(), 0
        self._again = False
        self._caller = CallerAudio()
        if self._conversation is not None:
            self._conversation.new_stream(time.monotonic())
        self._begin(part)
        self._tell_state(self._held)
        self._announce(part)
        if self._connection is not None and self._bot is Bot.DIALLING:
            self._connected(self._connection, "", resumed=False)
        self._go_on()

    @guarded
    def stream_gone(self, clean: bool) -> None:
        """The stream has ended; ``clean`` where the module has closed it with 1000."""
        self._stream = None
        self._break_turns()
        if clean and self._again:
            self._keep = self._loop.call_later(AGAIN_DUE, self._call_is_over)
        elif clean:
            self._call_is_over()
        else:
            if self._laid:
                self._line.note_now()
            self._log.warning("stream_lost", kept_for=KEEP)
            self._keep = self._loop.call_later(KEEP, self._call_is_over)

    @guarded
    def shutdown(self) -> None:
        """The relay ends at once: part with the bot; the files stay, and what is on the line plays on."""
        self._leave("shutdown", remove=False)

    @guarded
    def _call_is_over(self) -> None:
        self._leave("caller_hangup", remove=True)

    def _leave(self, reason: str, *, remove: bool) -> None:
        if self._gone:
            return
        self._gone = True
        _cancel(self._keep)
        _cancel(self._tick)
        stream, self._stream = self._stream, None
        with ExitStack() as leaving:  # whatever goes wrong with one of them, the others are done
            leaving.callback(self._shared.over, self.invite.call_id)
            if self._laid:
                leaving.callback(self._line.close, remove=remove)
            if self._recording is not None:
                leaving.callback(self._recording.end)
            if stream is not None:
                leaving.callback(stream.close)
            self._part(reason)

    # -- what the controller wants ------------------------------------------------------------------------

    @guarded
    def ordered(self, text: str) -> None:
        """One of the controller's texts."""
        try:
            order = control.read_order(text)
        except control.BadText as error:
            metrics.RELAY_BAD_ORDERS.inc()
            self._log.warning("order_not_understood", error=str(error))
            return
        if order.ack:
            self._outbox.ack(order.ack)
        match order.what:
            case Order.HELLO:
                self._caller.settle()  # another controller's turn may have cost a tick
                before = self._held
                self._hold(bool(order.facts.get("hold")))
                self._tell_state(before)
            case Order.KEY:
                digit, milliseconds = order.facts.get("digit"), order.facts.get("ms")
                self._break_turns()  # what the bot says to it answers no speech
                if isinstance(digit, str) and isinstance(milliseconds, int):
                    self._tell_bot(lambda protocol: protocol.key(digit, milliseconds))
            case Order.HOLD:
                self._hold(bool(order.facts.get("on")))
            case Order.AGAIN:
                self._again = True
            case Order.STOP:
                self._again = False
                self._stop(str(order.facts.get("reason")))

    def _hold(self, on: bool) -> None:
        if on == self._held:
            return
        self._held = on
        if self._conversation is not None:
            self._conversation.hold(on, time.monotonic())
        self._caller.settle()  # by a re-INVITE, which costs ticks
        if self._laid:
            self._playout.hold(on)
        if self._recording is not None:
            self._recording.hold(on)
        self._tell_bot(lambda protocol: protocol.hold(on))

    def _stop(self, reason: str) -> None:
        """The controller does not want the bot any more, and does not ask what became of it."""
        if self._ended is None:
            self._ended = _end(Outcome.MAX_DURATION, reason)
        self._bot, self._done = Bot.OVER, True
        if self._laid:
            self._playout.clear()
        self._part(reason if reason == "max_duration" else "ended")

    def _tell_state(self, held: bool) -> None:
        """All that a controller has to know, and the news that none has acknowledged."""
        self._send(
            control.news(
                News.STATE,
                acked=self._outbox.acked,
                url=self._shared.url,
                bot=self._bot,
                spoken=self._spoken,
                speaking=self._laid and self._playout.speaking,
                hold=held,
                ended=self._ended,
                done=self._done,
                lines=self._lines(),
            )
        )
        for text in self._outbox.again():
            self._send(text)

    def _lines(self) -> list[dict[str, Any]]:
        """What FreeSWITCH is to read: our line, and what earlier relays have left, until it was heard."""
        if not self._laid:
            return []
        line = self._line
        self._old_told = line.old_paths
        ours = [{"path": str(path), "on": on} for path, on in zip(line.paths, line.opened, strict=True)]
        return ours + [{"path": str(path), "on": True} for path in self._old_told]

    def _tell(self, what: News, **facts: Any) -> None:
        self._send(self._outbox.put(what, **facts))

    def _send(self, text: str) -> None:
        if self._stream is not None:
            self._stream.send_text(text)

    # -- the caller ---------------------------------------------------------------------------------------

    def heard(self, frame: bytes) -> None:
        """A frame of the caller's: L16 at 8,000 Hz."""
        try:  # as `guarded` does, which is a call more for each of fifty a second
            frames = self._caller.frames(frame)
            now = time.monotonic()
            if now >= self._caller_looked + LOOK:
                self._caller_looked = now
                self._look_at_caller()
            for audio in frames:
                if self._recording is not None:
                    self._recording.caller(audio, now)
                passed = int((now - self._stream_since) / FRAME_SECONDS) * FRAME_SAMPLES
                if self._heard < passed - MISSING:
                    self._heard = passed
                if self._connection is not None:
                    self._connection.hear(audio, self._heard / control.RATE)
                    if self._conversation is not None:
                        self._conversation.heard(audio, now, missing=frame == FILLER)
                self._heard += len(audio) // 2
        except Exception as error:  # noqa: BLE001  # told there
            self.fault(error)

    def _look_at_caller(self) -> None:
        if self._caller.short_packets and not self._short_told:
            self._short_told = True
            self._tell(News.SHORT_PACKETS)
            self._conversation = None  # nobody knows how long a jitter buffer is
        # Behind a jitter buffer nothing waits in the socket, and a flush would cost what is in the buffer.
        if (late := self._caller.late) > LATE and not self._short_told:
            self._tell(News.LATE, by=round(late, 3))
            self._break_turns()
            self._caller.settle()

    # -- the turns ----------------------------------------------------------------------------------------

    def _break_turns(self) -> None:
        """What is known of the caller's speech is worth nothing."""
        if self._conversation is not None:
            self._conversation.broken(time.monotonic())

    def _bot_level(self) -> float:
        return self._playout.loudest()

    def _turn(self, turn: Turn, number: int) -> None:
        facts: dict[str, Any] = {"turn": number, "kind": turn.kind, "seconds": round(turn.seconds, 3)}
        if turn.bot is not None:
            facts["bot"] = round(turn.bot, 3)
        if turn.by is not None:
            facts["by"] = turn.by
        self._tell(News.TURN, **facts, ago=round(max(0.0, time.monotonic() - turn.at), 4))

    # -- the recording ------------------------------------------------------------------------------------

    def _announce(self, part: Part) -> None:
        """Tell that the call is recorded: the controller, and the caller where a relay before us has not."""
        self._look_at_recording()
        if self._recording is None or self._announced:
            return
        self._announced = True
        speech = self._shared.recorder.announcement(self.workspace)
        if speech and part is Part.NEW and self._ended is None:
            self._announcing = True
            self._playout.say(speech)

    def _look_at_recording(self) -> None:
        """Tell the controller what there is to be told."""
        if self._recording is None:
            return
        self._recording.tick()
        why = self._recording.failed or ""
        if why != self._recording_told:
            self._recording_told = why
            self._tell(News.RECORDING, **({"why": why} if why else {}))

    # -- the bot's connection -----------------------------------------------------------------------------

    def _begin(self, part: Part) -> None:
        """The first thing that happens; a relay before us may have had the call."""
        if self._begun:
            return
        self._begun = True
        if part is Part.OVER:
            self._bot = Bot.OVER
            self._ended = _end(Outcome.CONTROLLER_LOST, "")
            self._finish()
        else:
            resumed = part is not Part.NEW
            self._spoken = part is Part.HEARD
            self._dial("its relay was lost" if resumed else "", resumed=resumed)

    def _dial(self, why: str, *, resumed: bool) -> None:
        self._bot = Bot.DIALLING
        self._dialling = self._shared.spawn(self._connect(why, resumed=resumed))

    async def _connect(self, why: str, *, resumed: bool) -> None:
        """Try the bot's URLs. ``why`` it is dialled again, where it is."""
        bot = self.workspace.bot
        connection = Connection(self, protocols.speak(self.invite, bot, self.trace))
        try:
            connection.socket = await dial(bot, protocols.headers(self.invite, bot, self.trace), connection)
        except BotUnreachable as error:
            if resumed:
                self._over(Outcome.BOT_FAILED, f"{why}; and then: {error}")
            else:
                self._over(Outcome.BOT_UNREACHABLE, str(error))
            return
        except Exception as error:  # noqa: BLE001  # told there
            self.fault(error)
            return
        if self._gone or self._bot is Bot.OVER:  # meanwhile nobody wants it any more
            connection.close()
            return
        self._there(connection, why, resumed=resumed)

    @guarded
    def _there(self, connection: Connection, why: str, *, resumed: bool) -> None:
        self._connection = connection
        connection.begin(resumed=resumed, held=self._held)
        if self._laid:  # otherwise what it says is kept until the caller is there
            self._connected(connection, why, resumed=resumed)

    def _connected(self, connection: Connection, why: str, *, resumed: bool) -> None:
        self._bot = Bot.CONNECTED
        if resumed:
            self._break_turns()  # it may not have heard the caller
            self._tell(News.RECONNECTED, why=why)
        else:
            self._tell(News.CONNECTED)
        self._let_speak()

    @guarded
    def _let_speak(self) -> None:
        """Take what the bot says, once there is nothing that the caller has to hear before."""
        connection = self._connection
        if connection is None or connection is self._speaks or self._announcing:
            return
        self._speaks = connection
        if not self._spoken and (seconds := self.workspace.bot.first_audio_timeout):
            self._first_audio = self._loop.call_later(seconds, self._silent_bot, seconds)
        connection.catch_up()

    @guarded
    def _silent_bot(self, seconds: float) -> None:
        if not self._spoken:
            self._over(Outcome.BOT_SILENT, f"no audio within {seconds:g} s")

    @guarded
    def bot_lost(self, connection: Connection, code: int, reason: str, *, ends: bool) -> None:
        """The bot's socket has ended; ``ends`` where that is the bot's way to say that it is finished."""
        if connection is not self._connection or self._ended is not None:
            return
        self._drop_connection()
        if ends:
            self._over(Outcome.BOT_CLOSED, reason)
            return
        self._failed(f"closed with {code} {reason}".strip() if code else reason)

    def _failed(self, why: str) -> None:
        """The bot broke off, or behaves as none may: it has one more chance, if it has one."""
        self._drop_connection()
        if self._reconnects:
            self._reconnects -= 1
            self._log.warning("bot_reconnecting", reason=why)
            self._dial(why, resumed=True)
        else:
            self._over(Outcome.BOT_FAILED, why)

    def _tell_bot(self, words: Callable[[protocols.Protocol], Sequence[Message]]) -> None:
        if self._connection is not None:
            self._connection.say(words)

    # -- what the bot wants -------------------------------------------------------------------------------

    @guarded
    def bot_wants(self, connection: Connection, wish: Wish) -> None:
        """One wish of the bot's."""
        if connection is not self._connection:
            return
        match wish:
            case Speech():
                self.bot_speaks(connection, wish)
                return
            case Clear():
                connection.decoder.reset()
                if self._conversation is not None:
                    self._conversation.cleared(time.monotonic())
                self._playout.clear()
                self._tell_bot(lambda protocol: protocol.cleared())
                self._tell(News.CLEARED)
            case Mark():
                try:
                    self._playout.mark(wish.name)
                except QueueFull as error:
                    self.refuse("queue_full", str(error))
            case End():
                outcome = Outcome.BOT_CLOSED if wish.closed else Outcome.BOT_ENDED
                self._over(outcome, wish.reason, wish.properties)
            case CallerSpeech():
                self._tell(News.CALLER_SPEECH, speaking=wish.speaking)
        self._go_on()

    def bot_speaks(self, connection: Connection, speech: Speech) -> None:
        """A short piece of speech."""
        if connection is not self._connection:
            return
        try:
            linear = connection.decoder.decode(speech)
        except UnusableAudio as error:
            self.refuse("unusable_audio", str(error))
        except Exception as error:  # noqa: BLE001  # told there
            self.fault(error)
        else:
            self.bot_says(connection, linear)

    def bot_says(self, connection: Connection, linear: bytes) -> bool:
        """Speech, L16 at 8,000 Hz, behind what is queued; whether more of it is wanted."""
        if connection is not self._connection:
            return False
        try:
            going = self._playout.going
            self._playout.say(linear)
        except QueueFull as error:
            self.refuse("queue_full", str(error))
            return False
        except Exception as error:  # noqa: BLE001  # told there
            self.fault(error)
            return False
        if not self._spoken and audible(linear):
            self._spoken = True
            _cancel(self._first_audio)
        if not going:
            self._go_on()
        elif not self._playout.going and not self._placing:
            self._placing = True  # what has come together is written together
            self._loop.call_soon(self._place)
        # Otherwise it is in the line, and the look that is due comes soon enough: each is a fifth of what a
        # message costs.
        return True

    def _place(self) -> None:
        self._placing = False
        self._go_on()

    @guarded
    def bot_is_over_budget(self, connection: Connection, why: str) -> None:
        """It sends more than any bot has to say."""
        if connection is self._connection:
            metrics.BOT_OVER_BUDGET.labels(self.workspace.name).inc()
            self._tell_bot(lambda protocol: protocol.error("over_budget", why))
            self._reconnects = 0
            self._failed(why)

    def refuse(self, code: str, text: str) -> None:
        """Something of the bot's cannot be used: it is told, once a call and ``code``."""
        if self._ignored(code, text, 0):
            self._tell_bot(lambda protocol: protocol.error(code, text))

    def ignore(self, why: str, detail: str, size: int) -> None:
        """Something of the bot's is not understood; ``detail`` is the bot's own word, or ours of it."""
        self._ignored(why, detail, size)

    def _ignored(self, why: str, detail: str, size: int) -> bool:
        metrics.BOT_MESSAGES_IGNORED.labels(self.workspace.name, why).inc()
        if why in self._told:
            return False
        self._told.add(why)
        detail = redaction.beginning(detail, 200)
        self._log.warning("bot_message_ignored", why=why, detail=detail, size=size)
        return True

    # -- the end of its part ------------------------------------------------------------------------------

    def _over(self, outcome: Outcome, reason: str, properties: Mapping[str, Any] | None = None) -> None:
        """The bot's part is over; the first to say so is right."""
        if self._ended is not None:
            return
        passed, dropped = allowed(properties or {}, self.workspace.ameyo.bot_properties)
        dropped = [name[:64] for name in dropped[:20]]
        if dropped:
            self._tell_bot(
                lambda protocol: protocol.error(
                    "property_dropped",
                    f"not in the workspace's bot_properties, or too long: {', '.join(dropped)}",
                )
            )
        self._ended = _end(outcome, reason, passed, dropped)
        self._bot = Bot.OVER
        _cancel(self._first_audio)
        self._tell(News.ENDED, **self._ended)
        if outcome in _FINISHED:
            self._finish()
        elif self._laid:
            self._playout.clear()
        self._go_on()

    def _finish(self) -> None:
        self._playout.finish()
        self._last_words = self._loop.call_later(LAST_WORDS, self._cut_last_words)

    @guarded
    def _cut_last_words(self) -> None:
        self._log.warning("last_words_cut", after_seconds=LAST_WORDS)
        self._playout.clear()
        self._go_on()

    def _look_done(self) -> None:
        if self._ended is not None and not self._done and self._playout.idle:
            self._done = True
            self._tell(News.DONE)
            self._part("ended")

    def _part(self, reason: str) -> None:
        """Say `stop` to the bot, best effort, and close its socket."""
        _cancel(self._last_words)
        if self._dialling is not None:
            self._dialling.cancel()
        try:
            self._tell_bot(lambda protocol: protocol.stop(reason))
        finally:
            self._drop_connection()

    def _drop_connection(self) -> None:
        _cancel(self._first_audio)
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()

    # -- what the playout tells (eslbot.relay.playout.Told) -------------------------------------------------

    def marked(self, name: str, cleared: bool) -> None:
        """The caller has heard everything before a mark, or never will."""
        self._tell_bot(lambda protocol: protocol.mark(name, cleared=cleared))
        self._tell(News.MARK, name=name, cleared=cleared)

    def began(self, ago: float) -> None:
        """The caller begins to hear the bot."""
        if not self._announcing:
            self._tell(News.BEGAN, ago=round(ago, 4))

    def sounds(self, at: float, arrived: float) -> None:
        """The caller hears sound of the bot's."""
        if self._conversation is not None:
            self._conversation.sounds(at, arrived)

    def hushed(self, at: float, cut: bool) -> None:
        """And none any more."""
        if self._conversation is not None:
            self._conversation.hushed(at, cut)

    def silent(self, cut: bool, ago: float) -> None:
        """The caller hears it no more."""
        if self._announcing:
            self._announcing = False
            self._loop.call_soon(self._let_speak)
            return
        if self._connection is not None:
            self._connection.decoder.reset()  # what comes is another utterance
        self._tell(News.SILENT, cut=cut, ago=round(ago, 4))

    @guarded
    def _go_on(self) -> None:
        """Do what is due on the line, and come back when the next thing is."""
        _cancel(self._tick)
        if self._gone or not self._laid:
            return
        self._look_at_recording()
        due = self._playout.tick()
        self._count_lost()
        if due is None:  # another relay has the call
            self._log.warning("call_taken_by_another_relay")
            self._leave("shutdown", remove=False)
            return
        if self._line.old_paths != self._old_told:
            self._tell_state(self._held)  # the controller takes off what is not named any more
        self._look_done()
        self._tick = self._loop.call_at(due, self._go_on)

    def _count_lost(self) -> None:
        """Speech that the caller will never hear, though the bot has said it in time."""
        full = self._playout.lost + self._line.lost
        for why, lost in (("full", full), ("missed", self._line.missed / control.RATE)):
            if lost > self._lost.get(why, 0.0):
                metrics.RELAY_SPEECH_LOST.labels(why).inc(lost - self._lost.get(why, 0.0))
                if why not in self._lost:
                    self._log.error("speech_lost", why=why, remedy="full: make room in relay.directory")
                self._lost[why] = lost

    # -- faults -------------------------------------------------------------------------------------------

    def fault(self, error: Exception) -> None:
        """A fault of ours: the customer goes to a human, and no other call is touched."""
        metrics.INTERNAL_ERRORS.inc()
        if (name := type(error).__name__) not in self._told:  # the caller has fifty frames a second
            self._told.add(name)
            self._log.error("relay_call_failed", exc_info=error)
        if not (self._ended is not None and self._done):
            self._give_up(Outcome.INTERNAL_ERROR, name)

    def _give_up(self, outcome: Outcome, reason: str) -> None:
        """The bot's part is over here and now, without last words."""
        self._bot = Bot.OVER
        if self._ended is None:
            self._ended = _end(outcome, reason)
            self._tell(News.ENDED, **self._ended)
        if not self._done:
            self._done = True
            self._tell(News.DONE)
        self._part("ended")


def _end(
    outcome: Outcome, reason: str, properties: Mapping[str, Any] | None = None, dropped: Sequence[str] = ()
) -> dict[str, Any]:
    """As ENDED and STATE have it."""
    return {
        "outcome": outcome,
        "reason": reason,
        "properties": dict(properties or {}),
        "dropped": list(dropped),
    }


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
