"""The bot's leg of a call: have the relay connect it, follow what it tells, know when it is done.

The audio is the relay's. Its news become events of the call here, and what the caller's side does (keys,
holds) becomes its orders.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from eslbot.calls import events
from eslbot.calls.bot import hold, stream
from eslbot.calls.bot.hold import Hold
from eslbot.calls.bot.keys import KEYS, key_of_info
from eslbot.calls.bot.lines import BadLines, Line, Lines, Unheard, lines_of
from eslbot.calls.bot.link import Link, RelayLost, Way
from eslbot.calls.events import BotEnd, CallEvent
from eslbot.config.model import Workspace
from eslbot.esl.errors import EslError
from eslbot.esl.events import Event
from eslbot.esl.frames import whole_number
from eslbot.esl.session import Session
from eslbot.outcome import Outcome
from eslbot.relay import control
from eslbot.relay.control import News, Order, Part, Text
from eslbot.telemetry.redaction import printable
from eslbot.turns import MAX_TURNS, By, Kind, Turn

#: Seconds that what is queued may still play when the bot has ended. The relay's own bound is 60 s; this one
#: is for a relay that does not keep it.
LAST_WORDS = 62.0
#: Seconds behind a STATE in which all that nobody has acknowledged was told again, in its order. Then STATE's
#: own word counts: of an end that was acknowledged by a controller who died over it.
TOLD_AGAIN = 0.1
#: What a call needs besides the stream's own events.
EVENTS = ("DTMF", "RECV_INFO", hold.REINVITE, *stream.EVENTS)
#: What a jitter buffer is to be, by the milliseconds of our packets: least, most, and how far it may drift
#: (docs/line-file.md, "Packets that are not as long as the SDP says").
JITTER_BUFFERS = {40: "80:300:20", 60: "120:400:20"}
JITTER_BUFFER = "60:200:20"
#: What is displaced so that FreeSWITCH flushes: 1 ms of silence, which ends by itself two frames later.
FLUSH = "silence_stream://1 0 mf"
#: Seconds between two flushes.
FLUSH_AGAIN = 1.5
#: The length of our packets, in milliseconds.
PTIME = "rtp_use_codec_ptime"
#: Seconds for the news that a channel which does not take a line is hung up.
HUNG_UP = 1.0
#: Seconds beyond which nothing was "just now".
LONG_AGO = 60.0


@dataclass(frozen=True, slots=True)
class Found:
    """What the controller before us has left of a bot's part.

    ``connected`` says whether the bot was there, ``ended`` how its part was over, if it was, ``restarted``
    whether FreeSWITCH has died since.
    """

    connected: bool
    ended: BotEnd | None
    restarted: bool = False


class BotLeg:
    """One bot on one answered call, whose ``channel`` (headers and variables) says what was left there."""

    def __init__(
        self,
        session: Session,
        workspace: Workspace,
        way: Way,
        publish: Callable[[CallEvent], None],
        channel: Mapping[str, str],
    ) -> None:
        self._session = session
        self._workspace = workspace
        self._publish = publish
        self._channel = channel
        self._link = Link(session, way, publish)
        session.keeps = stream.of_stream
        self._lines = Lines(session, channel)
        self._relay = ""
        self._hold = Hold(session)
        self._connected = self._spoken = False
        self._ended: BotEnd | None = None
        self._turns_left = MAX_TURNS
        #: Whether the last word was heard.
        self._done = False
        self._deadline = float("inf")
        #: The last STATE's word of the end, and when that counts.
        self._word: Mapping[str, Any] = {}
        self._word_counts = float("inf")
        #: Whether FreeSWITCH has refused the last STATE's lines.
        self._refused = False
        self._jitter_buffer = False
        self._flush_again = float("-inf")

    def talk(self, seconds: float) -> BotEnd:
        """Connect the bot and stay until its part is over, for at most ``seconds``.

        Raises OutboundSessionHasGoneAway when the caller hangs up, or the event socket goes.
        """

        def begin() -> None:
            self._publish(events.BotConnecting())
            self._link.begin()

        return self._stay(seconds, begin)

    def go_on(self, seconds: float, found: Found) -> BotEnd:
        """The same with a bot's part that another controller has begun."""

        def begin() -> None:
            self._connected, self._ended = found.connected, found.ended
            self._link.held = self._hold.found(self._channel, restarted=found.restarted)
            self._link.part = self._part
            if self._ended is not None:
                self._limit_last_words()
            elif not self._connected:
                self._publish(events.BotConnecting())
            self._link.find()

        return self._stay(seconds, begin)

    @property
    def _part(self) -> Part:
        if self._ended is not None:
            return Part.OVER
        if self._connected:
            return Part.HEARD if self._spoken else Part.UNDER_WAY
        return Part.NEW

    def _stay(self, seconds: float, begin: Callable[[], None]) -> BotEnd:
        self._deadline = time.monotonic() + seconds
        reason = "ended"
        try:
            begin()
            ended = self._listen()
            reason = "max_duration" if ended.outcome is Outcome.MAX_DURATION else reason
            return ended
        except (RelayLost, Unheard) as error:
            self._believe()  # how the bot's part had ended, a relay that is lost by now may have told
            self._publish(events.RelayLost(str(error), self._link.url, error.remedy))
            return self._ended or BotEnd(Outcome.RELAY_LOST, str(error))
        finally:
            # Also where a fault of ours ended it: who is handed off is not the bot's to hear any more. Where
            # another controller goes on, it goes on with all of it.
            if self._session.reason is None:
                self._close(reason)

    def _close(self, reason: str) -> None:
        try:
            self._link.close(reason)
            self._lines.take_off()
        except EslError as error:  # its part is over all the same, and what it said counts
            self._publish(events.BotLegNotClosed(str(error)))

    # -- what happens -------------------------------------------------------------------------------------

    def _listen(self) -> BotEnd:
        """Stay until the bot's part is over and its last word heard. Raises RelayLost, Unheard."""
        while not (self._done and self._ended is not None):
            until = min(self._deadline, self._link.due, self._hold.due, self._word_counts)
            event = self._session.next_event(max(0.0, until - time.monotonic()))
            if event is not None:
                self._on_event(event)
            self._link.tick()
            now = time.monotonic()
            if now >= self._hold.due:
                self._look_at_hold()
            if now >= self._word_counts:
                self._believe()
            if now >= self._deadline:
                if self._ended is None:
                    return BotEnd(Outcome.MAX_DURATION, f"{self._workspace.max_duration:g} s")
                self._publish(events.LastWordsCut(LAST_WORDS))
                break
        return self._ended

    def _on_event(self, event: Event) -> None:
        match event.name:
            case "DTMF":
                self._key(event)
            case "RECV_INFO":
                self._info(event)
            case hold.REINVITE:
                self._look_at_hold()
            case _ if stream.of_stream(event):
                news = self._link.happened(event)
                if news is not None:
                    self._on_news(news, event.age)
                    self._link.handled(news)

    def _on_news(self, news: Text, age: float) -> None:
        """What the relay tells, ``age`` seconds ago."""
        facts = news.facts
        match news.what:
            case News.STATE:
                self._state(facts, time.monotonic() - age)
            case News.CONNECTED:
                self._bot_is_there(age)
            case News.RECONNECTED:
                self._publish(events.BotReconnected(printable(_text(facts, "why"))))
            case News.BEGAN:
                self._has_spoken()
                self._publish(events.SpeechBegan(ago=age + _seconds(facts, "ago")))
            case News.SILENT:
                ago = age + _seconds(facts, "ago")
                self._publish(events.SpeechEnded(facts.get("cut") is True, ago=ago))
            case News.MARK:
                name, cleared = printable(_text(facts, "name")), facts.get("cleared") is True
                self._publish(events.MarkReached(name, cleared, ago=age))
            case News.CLEARED:
                self._publish(events.Cleared(ago=age))
            case News.CALLER_SPEECH:
                self._publish(events.CallerSpeech(facts.get("speaking") is True, ago=age))
            case News.TURN:
                self._turn(facts, age)
            case News.ENDED:
                self._over(facts)
            case News.DONE:
                self._done = True
            case News.SHORT_PACKETS:
                self._lengthen_packets()
            case News.RECORDING if why := printable(_text(facts, "why")):
                self._publish(events.RecordingFailed(why, ago=age))
            case News.RECORDING:
                self._publish(events.RecordingBegan(ago=age))
            case News.LATE:
                self._flush(_seconds(facts, "by"))

    def _turn(self, facts: Mapping[str, Any], age: float) -> None:
        """One that is none is not told: a relay of a later version may know more of them."""
        try:
            kind = Kind(_text(facts, "kind"))
            by = By(_text(facts, "by")) if "by" in facts else None
        except ValueError:
            self._link.ignore("turn: of no known kind")
            return
        bot = _seconds(facts, "bot") if "bot" in facts else None
        turn = Turn(kind, 0.0, _seconds(facts, "seconds"), bot, by)
        self._turns_left -= 1
        if self._turns_left >= 0:
            ago = age + _seconds(facts, "ago")
            self._publish(events.TurnTaken(turn, _count(facts, "turn"), ago=ago))

    def _state(self, facts: Mapping[str, Any], told_at: float) -> None:
        """The relay is there, and this is where the call is for it. Raises Unheard."""
        try:
            lines = lines_of(facts.get("lines"), self._session.uuid)
        except BadLines as error:
            self._link.ignore(f"lines: {error}")
            return
        self._link.part, self._link.held = self._part, self._hold.on
        self._link.synchronised(_count(facts, "acked"))
        self._word, self._word_counts = facts, time.monotonic() + TOLD_AGAIN
        self._at(_text(facts, "url"))
        self._bring(lines)
        if facts.get("hold") is not self._hold.on and self._part is not Part.NEW:
            # It began or ended between two controllers.
            self._publish(events.HoldChanged(self._hold.on, seen=False))
        if facts.get("bot") == "connected":
            self._bot_is_there(time.monotonic() - told_at)  # it may be heard by now
        if facts.get("spoken") is True:
            self._has_spoken()

    def _bring(self, lines: tuple[Line, ...]) -> None:
        """Have the lines heard. Raises Unheard where FreeSWITCH refuses twice running.

        A caller who has left hears no line, and a relay that comes late may name others by now: once it is
        asked again.
        """
        try:
            self._lines.bring(lines)
        except Unheard as error:
            if self._refused:
                raise
            self._refused = True
            self._link.doubt(str(error), HUNG_UP)
        else:
            self._refused = False

    def _at(self, url: str) -> None:
        """The relay process that has the call: another one would dial the bot anew."""
        if control.OWN_URL.fullmatch(url):
            self._link.at(url)
            if url != self._relay:
                self._relay = url
                self._publish(events.RelayFound(url))

    def _believe(self) -> None:
        self._word_counts = float("inf")
        ended = self._word.get("ended")
        if isinstance(ended, dict):
            self._over(ended)
        self._done = self._done or self._word.get("done") is True

    def _bot_is_there(self, ago: float) -> None:
        if not self._connected and self._ended is None:
            self._connected = True
            self._link.part = self._part
            self._publish(events.BotConnected(ago=ago))

    def _has_spoken(self) -> None:
        """A relay that takes the call over is not to wait for a first word."""
        self._spoken = True
        self._link.part = self._part

    def _over(self, facts: Mapping[str, Any]) -> None:
        """The bot's part is over but for its last words; told once, however often the relay says it."""
        if self._ended is not None:
            return
        try:
            outcome = Outcome(_text(facts, "outcome"))
        except ValueError:
            outcome = Outcome.INTERNAL_ERROR
            self._publish(events.RelayOutcomeUnknown())
        if outcome is Outcome.RELAY_LOST:
            remedy = "the relay's log says more; so does `eslbot doctor` on its host"
            self._publish(events.RelayLost(printable(_text(facts, "reason")), self._link.url, remedy))
        properties, dropped = facts.get("properties"), facts.get("dropped")
        if isinstance(dropped, list) and dropped:
            names = tuple(printable(str(name)[:64]) for name in dropped[:20])
            self._publish(events.PropertiesDropped(names))
        self._ended = BotEnd(
            outcome, printable(_text(facts, "reason")), properties if isinstance(properties, dict) else {}
        )
        self._publish(events.BotEnded(self._ended))
        self._link.part = self._part
        self._limit_last_words()

    def _limit_last_words(self) -> None:
        self._deadline = min(self._deadline, time.monotonic() + LAST_WORDS)

    def _lengthen_packets(self) -> None:
        """The PBX's packets are shorter than its SDP says: let FreeSWITCH put them together."""
        if self._jitter_buffer:
            return
        self._jitter_buffer = True
        uuid = self._session.uuid
        ptime = whole_number(self._session.api(f"uuid_getvar {uuid} {PTIME}"))
        wanted = JITTER_BUFFERS.get(ptime, JITTER_BUFFER)
        answer = self._session.api(f"uuid_jitterbuffer {uuid} {wanted}")
        self._publish(events.ShortPackets(wanted, printable(answer)))

    def _flush(self, late: float) -> None:
        """The caller is ``late`` seconds since FreeSWITCH has stalled: have it drop what waits in its socket.

        Each start of a media bug does that (``switch_core_media_bug_add``). It costs what waits, and two
        frames more (docs/line-file.md, "A flush").
        """
        now = time.monotonic()
        if now < self._flush_again:
            return
        self._flush_again = now + FLUSH_AGAIN
        answer = self._session.api(f"uuid_displace {self._session.uuid} start {FLUSH}")
        self._publish(events.CallerAudioLate(late, printable(answer)))

    # -- the caller's side --------------------------------------------------------------------------------

    def _look_at_hold(self) -> None:
        """The PBX may have put the caller on hold, or taken them off it."""
        if not self._hold.look():
            return
        self._link.held = self._hold.on
        self._publish(events.HoldChanged(self._hold.on))
        self._link.order(Order.HOLD, on=self._hold.on)

    def _key(self, event: Event) -> None:
        """The caller pressed a key; FreeSWITCH counts its length in samples of 8,000 Hz.

        What came by SIP INFO is read by :meth:`_info`: FreeSWITCH takes some keys for others.
        """
        digit, samples = event.headers.get("DTMF-Digit", ""), event.headers.get("DTMF-Duration", "")
        if len(digit) == 1 and digit in KEYS and event.headers.get("DTMF-Source") != "ENDPOINT":
            self._pressed(digit, whole_number(samples) // 8)

    def _info(self, event: Event) -> None:
        """A SIP INFO of the PBX's, which may be a key."""
        key = key_of_info(event.headers.get("SIP-Content-Type", ""), event.body)
        if key is not None:
            self._pressed(*key)

    def _pressed(self, digit: str, milliseconds: int) -> None:
        self._publish(events.KeyPressed())
        self._link.order(Order.KEY, digit=digit, ms=milliseconds)


def leave_line(session: Session, channel: Mapping[str, str]) -> None:
    """Take off a channel what the controller before has left of a bot's part. Does not wait."""
    stream.AudioStream(session).close()
    Lines(session, channel).take_off()


def _text(facts: Mapping[str, Any], name: str) -> str:
    value = facts.get(name)
    return value if isinstance(value, str) else ""


def _count(facts: Mapping[str, Any], name: str) -> int:
    value = facts.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _seconds(facts: Mapping[str, Any], name: str) -> float:
    value = facts.get(name)
    if not isinstance(value, int | float) or not math.isfinite(value):
        return 0.0
    return min(max(0.0, value), LONG_AGO)
