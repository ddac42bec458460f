"""One call in the relay: how its audio goes, from its stream's first frame to its bot's end.

::

    caller ─▶ FreeSWITCH ─ stream ─▶ RelayCall.receive_audio ─▶ bot connection ─▶ bot
                                          ├▶ recording (call_recording)
                                          └▶ turns (turn_taking)
    caller ◀─ FreeSWITCH ◀─ line ◀─ playout ◀─ RelayCall.play ◀─ decoder ◀─ bot connection ◀─ bot

The bot's part has states of its own (:mod:`eslbot.relay.bot_part`). Those of the call are its streams':

============ ==========================================================================================
state        what leads on
============ ==========================================================================================
prepared     the bot is dialled, the caller not here yet. A stream comes: *streaming*
streaming    another stream: *streaming*. Closed with 1000, which is how mod_audio_stream says that the
             channel is gone or that a controller stopped it: *over*; where the controller has said
             AGAIN: *waiting*, for :data:`RESTART_TIMEOUT`. Broken: *waiting*, for :data:`STREAM_TIMEOUT`
waiting      a stream comes: *streaming*. None does: *over*
over         –
============ ==========================================================================================
"""

from __future__ import annotations

import asyncio
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import structlog

from eslbot.audio import FRAME_BYTES, SAMPLE_RATE
from eslbot.caller.invite import Invite
from eslbot.config.model import Workspace
from eslbot.outcome import Outcome
from eslbot.relay import control
from eslbot.relay.bot_connection import guarded
from eslbot.relay.bot_part import BotPart, cancel
from eslbot.relay.call_recording import RecordedCall
from eslbot.relay.caller_audio import CallerAudio, MediaTime
from eslbot.relay.control import News, Order, Part, Text
from eslbot.relay.line import Line
from eslbot.relay.outbox import Outbox
from eslbot.relay.playout import Playout
from eslbot.relay.resources import Resources
from eslbot.relay.stream_server import Call, Stream
from eslbot.relay.turn_taking.conversation import Conversation
from eslbot.telemetry import metrics
from eslbot.telemetry.trace_context import traceparent
from eslbot.turns import Turn

log = structlog.get_logger()

#: Seconds that a call whose stream broke off is kept for another one: FreeSWITCH may come back.
STREAM_TIMEOUT = 30.0
#: Seconds that a call waits for a stream that its controller has announced; the caller may hang up meanwhile.
RESTART_TIMEOUT = 10.0
#: Seconds by which the caller's audio may be late: more than a frame, less than two.
MAX_LATENESS = 0.03
#: Seconds between two checks of that: it is measured over a quarter of a second and more.
LATENESS_CHECK_INTERVAL = 0.1
#: Milliseconds of the packets by which turns are measured: with others all times would be coarser.
MEASURED_PTIME = 20
#: What mod_audio_stream brings where no packet has come.
FILLER = b"\xff" * FRAME_BYTES


class RelayCall(Call):
    """The call of ``invite``. Every method returns at once; all run in the relay's loop."""

    def __init__(self, invite: Invite, workspace: Workspace, resources: Resources) -> None:
        self.invite, self.workspace, self.resources = invite, workspace, resources
        #: What a bot is told of the call's trace; empty where no traces are made.
        self.trace = "" if resources.traced is None else traceparent(invite.call_id, resources.traced)
        self.log = log.bind(
            call_id=invite.call_id, workspace=workspace.name, crt_object_id=invite.crt_object_id
        )
        self.outbox = Outbox()
        self._loop = asyncio.get_running_loop()
        # From the caller to the bot.
        self._caller = CallerAudio()
        self._media_time = MediaTime(time.monotonic())
        self._bot = BotPart(self)
        self._recording = RecordedCall(resources.recorder, self.outbox, invite, workspace)
        self._turns = Conversation(self._tell_turn, lambda: self._playout.loudest())
        # From the bot to the caller: made by :meth:`open_line`; until then there is nobody to speak to.
        self._playout: Playout
        self._line: Line
        self.line_open = False
        #: Whether the caller is on hold; and is being told that the call is recorded: the bot waits for that.
        self.held = self.announcing = False
        #: Whether the controller wants another stream behind this one; and whether the call is over.
        self._another_stream = self._over = False
        #: Whether the controller was told that a jitter buffer is wanted.
        self._short_packets = False
        self._lateness_checked_at = float("-inf")
        self._wait_for_stream: asyncio.TimerHandle | None = None
        self._next_tick: asyncio.TimerHandle | None = None
        #: Whether what the bot has said will be placed in the loop's next turn.
        self._placing = False
        #: The earlier relays' files that STATE has named.
        self._named: tuple[Path, ...] = ()
        #: Seconds of speech that were lost, as counted.
        self._lost: dict[str, float] = {}
        self._faults: set[str] = set()

    # -- the audio ----------------------------------------------------------------------------------------

    def receive_audio(self, frame: bytes) -> None:
        """From the caller to the bot: a frame of the stream's, L16 at 8,000 Hz."""
        try:  # as `guarded` does, which is a call more for each of fifty a second
            frames = self._caller.frames(frame)
            now = time.monotonic()
            if now >= self._lateness_checked_at + LATENESS_CHECK_INTERVAL:
                self._lateness_checked_at = now
                self._check_lateness()
            for audio in frames:
                self._recording.caller(audio, now)
                at = self._media_time.next(len(audio) // 2, now)
                if self._bot.connection is not None:
                    self._bot.connection.send_audio(audio, at)
                    self._turns.caller_frame(audio, now, missing=frame == FILLER)
        except Exception as error:  # noqa: BLE001  # told there
            self.fault(error)

    def play(self, linear: bytes) -> None:
        """From the bot to the caller: L16 at 8,000 Hz, behind what is queued. Raises QueueFull."""
        going = self._playout.going
        self._playout.say(linear)
        self._bot.spoke(linear)
        if not going:
            self.tick()
        elif not self._playout.going and not self._placing:
            self._placing = True  # what has come together is written together
            self._loop.call_soon(self._place)
        # Otherwise it is in the line, and the tick that is due comes soon enough: each is a fifth of what a
        # message costs.

    def _place(self) -> None:
        self._placing = False
        self.tick()

    @guarded
    def tick(self) -> None:
        """Do what is due on the line, and come back when the next thing is."""
        cancel(self._next_tick)
        if self._over or not self.line_open:
            return
        self._recording.tick()
        due = self._playout.tick()
        self._count_lost()
        if due is None:  # another relay has the call
            self.log.warning("call_taken_by_another_relay")
            self._leave("shutdown", remove=False)
            return
        if self._line.predecessor_paths != self._named:
            self._tell_state(self.held)  # the controller takes off what is not named any more
        if self._bot.says_last_words and self._playout.idle:
            self._bot.heard_out()
        self._next_tick = self._loop.call_at(due, self.tick)

    def _count_lost(self) -> None:
        """Speech that the caller will never hear, though the bot has said it in time."""
        full = self._playout.lost + self._line.lost
        for why, lost in (("full", full), ("missed", self._line.missed / SAMPLE_RATE)):
            if lost > self._lost.get(why, 0.0):
                metrics.RELAY_SPEECH_LOST.labels(why).inc(lost - self._lost.get(why, 0.0))
                if why not in self._lost:
                    self.log.error("speech_lost", why=why, remedy="full: make room in relay.directory")
                self._lost[why] = lost

    def _check_lateness(self) -> None:
        if self._caller.short_packets and not self._short_packets:
            self._short_packets = True
            self.outbox.tell(News.SHORT_PACKETS)
            self._turns.stop()  # nobody knows how long a jitter buffer is
        # Behind a jitter buffer nothing waits in the socket, and a flush would cost what is in the buffer.
        if (late := self._caller.late) > MAX_LATENESS and not self._short_packets:
            self.outbox.tell(News.LATE, by=round(late, 3))
            self.forget_turn()
            self._caller.settle()

    def forget_turn(self) -> None:
        """What is known of the caller's speech is worth nothing."""
        self._turns.broken(time.monotonic())

    def _tell_turn(self, turn: Turn, number: int) -> None:
        facts: dict[str, Any] = {"turn": number, "kind": turn.kind, "seconds": round(turn.seconds, 3)}
        if turn.bot is not None:
            facts["bot"] = round(turn.bot, 3)
        if turn.by is not None:
            facts["by"] = turn.by
        self.outbox.tell(News.TURN, **facts, ago=round(max(0.0, time.monotonic() - turn.at), 4))

    # -- what the bot's part wants of the line --------------------------------------------------------------

    def mark(self, name: str) -> None:
        """Tell when everything that the bot has said was heard. Raises QueueFull."""
        self._playout.mark(name)

    def clear(self, now: float) -> None:
        """Barge-in: nothing more is to be heard of what the bot has said."""
        self._turns.cleared(now)
        self._playout.clear()

    def finish(self) -> None:
        """The bot says nothing more; what is queued is heard."""
        self._playout.finish()

    def silence(self) -> None:
        """The bot is over: nothing more is to be heard of it."""
        if self.line_open:
            self._playout.clear()

    # -- what the playout tells (eslbot.relay.playout.PlayoutListener) --------------------------------------

    def mark_reached(self, name: str, cleared: bool) -> None:
        """The caller has heard everything before a mark, or never will."""
        self._bot.tell(lambda protocol: protocol.mark(name, cleared=cleared))
        self.outbox.tell(News.MARK, name=name, cleared=cleared)

    def utterance_began(self, ago: float) -> None:
        """The caller begins to hear the bot."""
        if not self.announcing:
            self.outbox.tell(News.BEGAN, ago=round(ago, 4))

    def utterance_over(self, cut: bool, ago: float) -> None:
        """The caller hears it no more."""
        if self.announcing:
            self.announcing = False
            self._loop.call_soon(self._bot.let_speak)
            return
        if self._bot.connection is not None:
            self._bot.connection.decoder.reset()  # what comes is another utterance
        self.outbox.tell(News.SILENT, cut=cut, ago=round(ago, 4))

    def bot_audible(self, at: float, arrived: float) -> None:
        """The caller hears sound of the bot's."""
        self._turns.bot_audible(at, arrived)

    def bot_inaudible(self, at: float, cut: bool) -> None:
        """And none any more."""
        self._turns.bot_inaudible(at, cut)

    # -- the streams --------------------------------------------------------------------------------------

    @guarded
    def prepare(self) -> None:
        """Dial the bot of a call that is about to be answered."""
        self._bot.begin(Part.NEW)

    def open_line(self, ptime: int, switch: str) -> None:
        """Make the line's files, and find what a relay before us has left; see :meth:`Call.open_line`."""
        try:
            if self.line_open:
                self._attach(switch)
                return
            recorded = self._recording.wanted()
            self._line = Line.open(
                self.resources.directory,
                self.invite.call_id,
                self.resources.read_counter,
                samples=ptime * SAMPLE_RATE // 1000,
                switch=switch,
                kept=recorded,
            )
        except (OSError, ValueError) as error:
            self._without_line(error)
            return
        delay = self.resources.playout_delay(self.workspace.id).of_call()
        self._playout = Playout(self._line, delay, self)
        if ptime != MEASURED_PTIME:
            self._turns.stop()
        self.line_open = True
        if recorded:
            self._recording.begin(self._line)

    def _attach(self, switch: str) -> None:
        """Another stream, perhaps of a FreeSWITCH that has restarted: then the line has other files."""
        self._recording.switch_restarts()
        if self._playout.attach(switch):
            self.forget_turn()
            self.log.warning("switch_restarted", switch=switch)
            self._short_packets = False  # its jitter buffer is gone, too
            self._recording.switch_restarted()

    def _without_line(self, error: OSError | ValueError) -> None:
        """All relays of this host have the same directory: there is no other to wait for."""
        metrics.RELAY_REFUSED.labels("not_made").inc()
        self.log.error(
            "line_not_made",
            error=str(error),
            remedy="see relay.directory: is it there, is there room in it, and may the relay write there?",
        )
        why = error.strerror if isinstance(error, OSError) else None
        self._bot.give_up(Outcome.RELAY_LOST, f"the relay cannot make its line files: {why or error}")

    @guarded
    def stream_up(self, stream: Stream, part: Part) -> None:
        """Go on, or begin, with a stream of the module's; one that there was is nobody's any more."""
        cancel(self._wait_for_stream)
        self._another_stream = False
        self.outbox.stream = stream
        self._caller, self._media_time = CallerAudio(), MediaTime(time.monotonic())
        self._turns.new_stream(time.monotonic())
        self._bot.begin(part)
        self._tell_state(self.held)
        self._recording.tick()
        if (announcement := self._recording.announcement(part)) and self._bot.ended is None:
            self.announcing = True
            self._playout.say(announcement)
        self._bot.caller_is_there()
        self.tick()

    @guarded
    def stream_gone(self, clean: bool) -> None:
        """The stream has ended; ``clean`` where the module has closed it with 1000."""
        self.outbox.stream = None
        self.forget_turn()
        if clean and self._another_stream:
            self._wait_for_stream = self._loop.call_later(RESTART_TIMEOUT, self._call_is_over)
        elif clean:
            self._call_is_over()
        else:
            if self.line_open:
                self._line.checkpoint_now()
            self.log.warning("stream_lost", kept_for=STREAM_TIMEOUT)
            self._wait_for_stream = self._loop.call_later(STREAM_TIMEOUT, self._call_is_over)

    @guarded
    def shutdown(self) -> None:
        """The relay ends at once: part with the bot; the files stay, and what is on the line plays on."""
        self._leave("shutdown", remove=False)

    @guarded
    def _call_is_over(self) -> None:
        self._leave("caller_hangup", remove=True)

    def _leave(self, reason: str, *, remove: bool) -> None:
        if self._over:
            return
        self._over = True
        cancel(self._wait_for_stream)
        cancel(self._next_tick)
        stream, self.outbox.stream = self.outbox.stream, None
        with ExitStack() as leaving:  # whatever goes wrong with one of them, the others are done
            leaving.callback(self.resources.over, self.invite.call_id)
            if self.line_open:
                leaving.callback(self._line.close, remove=remove)
            leaving.callback(self._recording.end)
            if stream is not None:
                leaving.callback(stream.close)
            self._bot.part(reason)

    # -- what the controller wants, and is told -------------------------------------------------------------

    @guarded
    def receive_order(self, text: str) -> None:
        """One of the controller's texts."""
        try:
            order = control.read_order(text)
        except control.BadText as error:
            metrics.RELAY_BAD_ORDERS.inc()
            self.log.warning("order_not_understood", error=str(error))
            return
        if order.ack:
            self.outbox.ack(order.ack)
        match order.what:
            case Order.HELLO:
                self._caller.settle()  # another controller's turn may have cost a tick
                before = self.held
                self._hold(bool(order.facts.get("hold")))
                self._tell_state(before)
            case Order.KEY:
                self._key(order)
            case Order.HOLD:
                self._hold(bool(order.facts.get("on")))
            case Order.AGAIN:
                self._another_stream = True
            case Order.STOP:
                self._another_stream = False
                self._bot.stop(str(order.facts.get("reason")))

    def _key(self, order: Text) -> None:
        digit, milliseconds = order.facts.get("digit"), order.facts.get("ms")
        self.forget_turn()  # what the bot says to it answers no speech
        if isinstance(digit, str) and isinstance(milliseconds, int):
            self._bot.tell(lambda protocol: protocol.key(digit, milliseconds))

    def _hold(self, on: bool) -> None:
        if on == self.held:
            return
        self.held = on
        self._turns.hold(on, time.monotonic())
        self._caller.settle()  # by a re-INVITE, which costs ticks
        if self.line_open:
            self._playout.hold(on)
        self._recording.hold(on)
        self._bot.tell(lambda protocol: protocol.hold(on))

    def _tell_state(self, held: bool) -> None:
        """All that a controller has to know, and the news that none has acknowledged."""
        self.outbox.tell_state(
            url=self.resources.url,
            bot=self._bot.state,
            spoken=self._bot.spoken,
            speaking=self.line_open and self._playout.speaking,
            hold=held,
            ended=self._bot.ended,
            done=self._bot.done,
            lines=self._lines(),
        )

    def _lines(self) -> list[dict[str, Any]]:
        """What FreeSWITCH is to read: our line, and what earlier relays have left, until it was heard."""
        if not self.line_open:
            return []
        line = self._line
        self._named = line.predecessor_paths
        ours = [{"path": str(path), "on": on} for path, on in zip(line.paths, line.opened, strict=True)]
        return ours + [{"path": str(path), "on": True} for path in self._named]

    def fault(self, error: Exception) -> None:
        """A fault of ours: the customer goes to a human, and no other call is touched."""
        metrics.INTERNAL_ERRORS.inc()
        if (name := type(error).__name__) not in self._faults:  # the caller has fifty frames a second
            self._faults.add(name)
            self.log.error("relay_call_failed", exc_info=error)
        if not self._bot.done:
            self._bot.give_up(Outcome.INTERNAL_ERROR, name)
