"""The bot's part of one call: it is dialled, connected, over, and done.

========== ======================== ==============================================================
state      told as                  what leads on
========== ======================== ==============================================================
dialling   –                        a URL answers, and the caller is there: *connected*; none does: *over*
connected  CONNECTED, RECONNECTED   its socket breaks, and it has a ``reconnect`` left: *dialling*
                                    ``end``, a close that means it, silence, a failure: *over*
over       ENDED                    what is queued was heard: *done*; at once where the bot has failed
done       DONE                     –
========== ======================== ==============================================================

*Over* says that what the bot wants Ameyo to know is known. Behind an ``end`` (or a close that means it) what
is queued is still heard; a bot that has failed is cut off at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from eslbot.ameyo.properties import allowed
from eslbot.audio import UnusableAudio
from eslbot.audio.levels import audible
from eslbot.outcome import Outcome
from eslbot.relay import protocols
from eslbot.relay.bot_connection import Connection, guarded
from eslbot.relay.control import News, Part
from eslbot.relay.dialler import BotUnreachable, dial
from eslbot.relay.playout import QueueFull
from eslbot.relay.protocols.base import CallerSpeech, Clear, End, Mark, Message, Speech, Wish
from eslbot.telemetry import metrics, redaction

if TYPE_CHECKING:
    from eslbot.relay.call import RelayCall

#: Seconds that what is queued may still play when the bot has ended; the last word of a bot that talks and
#: talks is not worth more of the customer's time.
LAST_WORDS = 60.0
#: Ways to end that leave the bot its last words.
_FINISHED = (Outcome.BOT_ENDED, Outcome.BOT_CLOSED)


class BotState(StrEnum):
    """Where a call's bot is; the words of STATE."""

    DIALLING = "dialling"
    CONNECTED = "connected"
    OVER = "over"


class BotPart:
    """One call's (:class:`eslbot.relay.bot_connection.Owner`). Every method returns at once."""

    def __init__(self, call: RelayCall) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self.state = BotState.DIALLING
        #: As ENDED and STATE have it; None while the bot's part is not over.
        self.ended: dict[str, Any] | None = None
        self.done = False
        #: Whether the bot has said anything that can be heard.
        self.spoken = False
        #: Of the bot that has its `start`; it may be there before the caller is.
        self.connection: Connection | None = None
        #: The connection whose speech is taken.
        self._speaks: Connection | None = None
        self._begun = self._parted = False
        self._reconnects = int(call.workspace.bot.reconnect)
        self._dialling: asyncio.Task[None] | None = None
        self._first_audio: asyncio.TimerHandle | None = None
        self._last_words: asyncio.TimerHandle | None = None
        #: What of the bot's could not be used, as far as it was logged and the bot was told.
        self._complaints: set[str] = set()

    # -- dialling, connected ------------------------------------------------------------------------------

    def begin(self, part: Part) -> None:
        """Do what a bot's part begins with, once; a relay before us may have had the call."""
        if self._begun:
            return
        self._begun = True
        if part is Part.OVER:
            self.state = BotState.OVER
            self.ended = _end(Outcome.CONTROLLER_LOST, "")
            self._finish()
        else:
            resumed = part is not Part.NEW
            self.spoken = part is Part.HEARD
            self._dial("its relay was lost" if resumed else "", resumed=resumed)

    def _dial(self, why: str, *, resumed: bool) -> None:
        self.state = BotState.DIALLING
        self._dialling = self._call.resources.spawn(self._connect(why, resumed=resumed))

    async def _connect(self, why: str, *, resumed: bool) -> None:
        """Try the bot's URLs. ``why`` it is dialled again, where it is."""
        call, bot = self._call, self._call.workspace.bot
        connection = Connection(self, protocols.speak(call.invite, bot, call.trace))
        try:
            connection.socket = await dial(bot, protocols.headers(call.invite, bot, call.trace), connection)
        except BotUnreachable as error:
            if resumed:
                self._over(Outcome.BOT_FAILED, f"{why}; and then: {error}")
            else:
                self._over(Outcome.BOT_UNREACHABLE, str(error))
        except Exception as error:  # noqa: BLE001  # told there
            self.fault(error)
        else:
            if self._parted or self.state is BotState.OVER:  # meanwhile nobody wants it any more
                connection.close()
            else:
                self._connected(connection, why, resumed=resumed)

    @guarded
    def _connected(self, connection: Connection, why: str, *, resumed: bool) -> None:
        self.connection = connection
        connection.start(resumed=resumed, held=self._call.held)
        if self._call.line_open:  # otherwise what it says is kept until the caller is there
            self._meet(connection, why, resumed=resumed)

    def caller_is_there(self) -> None:
        """A bot that was dialled before may begin."""
        if self.connection is not None and self.state is BotState.DIALLING:
            self._meet(self.connection, "", resumed=False)

    def _meet(self, connection: Connection, why: str, *, resumed: bool) -> None:
        self.state = BotState.CONNECTED
        if resumed:
            self._call.forget_turn()  # it may not have heard the caller
            self._call.outbox.tell(News.RECONNECTED, why=why)
        else:
            self._call.outbox.tell(News.CONNECTED)
        self.let_speak()

    @guarded
    def let_speak(self) -> None:
        """Take what the bot says, once there is nothing that the caller has to hear before."""
        connection = self.connection
        if connection is None or connection is self._speaks or self._call.announcing:
            return
        self._speaks = connection
        if not self.spoken and (seconds := self._call.workspace.bot.first_audio_timeout):
            self._first_audio = self._loop.call_later(seconds, self._silent_bot, seconds)
        connection.catch_up()

    @guarded
    def _silent_bot(self, seconds: float) -> None:
        if not self.spoken:
            self._over(Outcome.BOT_SILENT, f"no audio within {seconds:g} s")

    def spoke(self, linear: bytes) -> None:
        """This was said by the bot."""
        if not self.spoken and audible(linear):
            self.spoken = True
            cancel(self._first_audio)

    def tell(self, words: Callable[[protocols.Protocol], Sequence[Message]]) -> None:
        """Send messages to the bot, if it is there."""
        if self.connection is not None:
            self.connection.say(words)

    # -- what the connection tells ------------------------------------------------------------------------

    @guarded
    def bot_wants(self, connection: Connection, wish: Wish) -> None:
        """One wish of the bot's."""
        if connection is not self.connection:
            return
        match wish:
            case Speech():
                self.bot_speaks(connection, wish)
                return
            case Clear():
                connection.decoder.reset()
                self._call.clear(time.monotonic())
                self.tell(lambda protocol: protocol.cleared())
                self._call.outbox.tell(News.CLEARED)
            case Mark():
                try:
                    self._call.mark(wish.name)
                except QueueFull as error:
                    self.refuse("queue_full", str(error))
            case End():
                outcome = Outcome.BOT_CLOSED if wish.closed else Outcome.BOT_ENDED
                self._over(outcome, wish.reason, wish.properties)
            case CallerSpeech():
                self._call.outbox.tell(News.CALLER_SPEECH, speaking=wish.speaking)
        self._call.tick()

    def bot_speaks(self, connection: Connection, speech: Speech) -> None:
        """A short piece of speech."""
        if connection is not self.connection:
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
        if connection is not self.connection:
            return False
        try:
            self._call.play(linear)
        except QueueFull as error:
            self.refuse("queue_full", str(error))
            return False
        except Exception as error:  # noqa: BLE001  # told there
            self.fault(error)
            return False
        return True

    @guarded
    def bot_lost(self, connection: Connection, code: int, reason: str, *, ends: bool) -> None:
        """The bot's socket has ended; ``ends`` where that is the bot's way to say that it is finished."""
        if connection is not self.connection or self.ended is not None:
            return
        self._drop_connection()
        if ends:
            self._over(Outcome.BOT_CLOSED, reason)
            return
        self._failed(f"closed with {code} {reason}".strip() if code else reason)

    @guarded
    def bot_is_over_budget(self, connection: Connection, why: str) -> None:
        """It sends more than any bot has to say."""
        if connection is self.connection:
            metrics.BOT_OVER_BUDGET.labels(self._call.workspace.name).inc()
            self.tell(lambda protocol: protocol.error("over_budget", why))
            self._reconnects = 0
            self._failed(why)

    def _failed(self, why: str) -> None:
        """The bot broke off, or behaves as none may: it has one more chance, if it has one."""
        self._drop_connection()
        if self._reconnects:
            self._reconnects -= 1
            self._call.log.warning("bot_reconnecting", reason=why)
            self._dial(why, resumed=True)
        else:
            self._over(Outcome.BOT_FAILED, why)

    def refuse(self, code: str, text: str) -> None:
        """Something of the bot's cannot be used: it is told, once a call and ``code``."""
        if self._is_new_complaint(code, text, 0):
            self.tell(lambda protocol: protocol.error(code, text))

    def ignore(self, why: str, detail: str, size: int) -> None:
        """Something of the bot's is not understood; ``detail`` is the bot's own word, or ours of it."""
        self._is_new_complaint(why, detail, size)

    def _is_new_complaint(self, why: str, detail: str, size: int) -> bool:
        metrics.BOT_MESSAGES_IGNORED.labels(self._call.workspace.name, why).inc()
        if why in self._complaints:
            return False
        self._complaints.add(why)
        detail = redaction.beginning(detail, 200)
        self._call.log.warning("bot_message_ignored", why=why, detail=detail, size=size)
        return True

    def fault(self, error: Exception) -> None:
        """A fault of ours; the call is told."""
        self._call.fault(error)

    # -- over, done ---------------------------------------------------------------------------------------

    def _over(self, outcome: Outcome, reason: str, properties: Mapping[str, Any] | None = None) -> None:
        """The bot's part is over; the first to say so is right."""
        if self.ended is not None:
            return
        passed, dropped = allowed(properties or {}, self._call.workspace.ameyo.bot_properties)
        dropped = [name[:64] for name in dropped[:20]]
        if dropped:
            names = ", ".join(dropped)
            text = f"not in the workspace's bot_properties, or too long: {names}"
            self.tell(lambda protocol: protocol.error("property_dropped", text))
        self.ended = _end(outcome, reason, passed, dropped)
        self.state = BotState.OVER
        cancel(self._first_audio)
        self._call.outbox.tell(News.ENDED, **self.ended)
        if outcome in _FINISHED:
            self._finish()
        else:
            self._call.silence()
        self._call.tick()

    def _finish(self) -> None:
        self._call.finish()
        self._last_words = self._loop.call_later(LAST_WORDS, self._cut_last_words)

    @guarded
    def _cut_last_words(self) -> None:
        self._call.log.warning("last_words_cut", after_seconds=LAST_WORDS)
        self._call.silence()
        self._call.tick()

    @property
    def says_last_words(self) -> bool:
        """Whether it is over, and not done: :meth:`heard_out` is waited for."""
        return self.ended is not None and not self.done

    def heard_out(self) -> None:
        """The caller has heard the last word."""
        self.done = True
        self._call.outbox.tell(News.DONE)
        self.part("ended")

    def stop(self, reason: str) -> None:
        """The controller does not want the bot any more, and does not ask what became of it."""
        if self.ended is None:
            self.ended = _end(Outcome.MAX_DURATION, reason)
        self.state, self.done = BotState.OVER, True
        self._call.silence()
        self.part(reason if reason == "max_duration" else "ended")

    def give_up(self, outcome: Outcome, reason: str) -> None:
        """The bot's part is over here and now, without last words."""
        self._begun, self.state = True, BotState.OVER
        if self.ended is None:
            self.ended = _end(outcome, reason)
            self._call.outbox.tell(News.ENDED, **self.ended)
        if not self.done:
            self.done = True
            self._call.outbox.tell(News.DONE)
        self.part("ended")

    def part(self, reason: str) -> None:
        """Say `stop` to the bot, best effort, and close its socket."""
        self._parted = True
        cancel(self._last_words)
        if self._dialling is not None:
            self._dialling.cancel()
        try:
            self.tell(lambda protocol: protocol.stop(reason))
        finally:
            self._drop_connection()

    def _drop_connection(self) -> None:
        cancel(self._first_audio)
        if self.connection is not None:
            connection, self.connection = self.connection, None
            connection.close()


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


def cancel(timer: asyncio.TimerHandle | None) -> None:
    """Have a timer not go off, if there is one."""
    if timer is not None:
        timer.cancel()
