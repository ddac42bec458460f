"""The bot's leg of a call: connect it, let it talk, know when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from eslbot import g711, metrics, redaction
from eslbot.bot import hold, messages, stream
from eslbot.bot.audio import UnusableAudio
from eslbot.bot.folder import SpeechFolder
from eslbot.bot.hold import Hold, Marks
from eslbot.bot.keys import KEYS, key_of_info
from eslbot.bot.path_speech import PathSpeech
from eslbot.bot.speech import QueueFull, Speech, cut_of, done_of, is_speech_file
from eslbot.config.model import Workspace
from eslbot.config.urls import shown
from eslbot.esl import ConnectionLost, EslError, Event, Session, whole_number
from eslbot.invite import Invite
from eslbot.ledger.facts import What
from eslbot.outcome import Outcome

log = structlog.get_logger()

#: Seconds that what is queued may still play when the bot has ended; the last word of a bot that talks and
#: talks is not worth more of the customer's time.
LAST_WORDS = 60.0
#: Seconds a bot has to answer `resumed` after a take-over, or to say anything at all.
RESUMED = 2.0

#: What a call needs besides the stream's own events.
EVENTS = ("PLAYBACK_START", "DTMF", "RECV_INFO", hold.REINVITE, *stream.EVENTS)
#: Set on the channel while the bot knows the caller to be on hold.
TOLD_HELD = "eslbot_held"


@dataclass(frozen=True, slots=True)
class BotEnd:
    """How the bot's part ended. ``reason`` is the bot's own word or the error's, ``properties`` the bot's."""

    outcome: Outcome
    reason: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)


class Story(Protocol):
    """Who notes how far the bot's part is, so that another controller could go on from there."""

    def note(self, what: What, ago: float = 0.0, **facts: Any) -> None:
        """For the call's timeline; ``ago`` in seconds."""

    def connecting(self) -> None:
        """A stream is about to be started."""

    def connected(self) -> None:
        """The bot is there."""

    def spoken(self) -> None:
        """The bot has begun to speak."""

    def audible(self, ago: float) -> None:
        """The caller begins to hear it, since ``ago`` seconds."""

    def over(self, ended: BotEnd) -> None:
        """The bot is done; its last words may still be playing."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the controller before us has left of a bot's part.

    ``channel`` is the channel's headers and variables. ``connected`` says whether the bot was there,
    ``spoken`` whether it had begun to speak, ``ended`` how its part was over, if it was.
    """

    channel: Mapping[str, str]
    connected: bool
    spoken: bool
    ended: BotEnd | None


class BotLeg:
    """One bot on one answered call."""

    def __init__(
        self, session: Session, invite: Invite, workspace: Workspace, folder: SpeechFolder, story: Story
    ) -> None:
        self._session = session
        self._invite = invite
        self._workspace = workspace
        self._bot = workspace.bot
        self._folder = folder
        self._story = story
        self._stream = stream.AudioStream(session)
        session.keeps = stream.ends
        self._speech: Speech | PathSpeech = Speech(session, folder.path, self._marked)
        #: Whether a file of FreeSWITCH's was seen there: then the directory is shared.
        self._shared = False
        self._told: set[str] = set()
        self._spoken = False
        #: Whether the caller hears the bot by what FreeSWITCH has told, and whether a `clear` ends that.
        self._audible = self._cut = False
        self._hold = Hold(session)
        self._marks = Marks()
        #: Whether the bot has had its `start`.
        self._greeted = False
        self._reconnects = int(self._bot.reconnect)
        #: When a bot that was told `resumed` counts as lost, on the monotonic clock.
        self._answer_by = float("inf")

    def talk(self, seconds: float) -> BotEnd:
        """Connect the bot and stay until its part is over, for at most ``seconds``.

        Raises OutboundSessionHasGoneAway when the caller hangs up, or the event socket goes.
        """
        return self._stay(seconds, self._begin)

    def go_on(self, seconds: float, found: Found) -> BotEnd:
        """The same with a bot's part that another controller has begun."""
        return self._stay(seconds, lambda: self._resume(found), found.ended)

    @property
    def speaking(self) -> bool:
        """Whether the caller hears the bot now."""
        return not self._speech.idle

    def _stay(self, seconds: float, begin: Callable[[], BotEnd | None], over: BotEnd | None = None) -> BotEnd:
        deadline = time.monotonic() + seconds
        try:
            ended = begin()
            if ended is not None and ended.outcome is Outcome.BOT_UNREACHABLE:
                return ended
            ended = ended or self._listen(deadline, over)
            while ended.outcome is Outcome.BOT_FAILED and self._reconnect(ended):
                ended = self._listen(deadline)
            self._close(ended)
            return ended
        finally:
            try:
                if isinstance(self._session.reason, ConnectionLost):
                    self._speech.release()  # the call lives on, and so does what is to be heard
                else:
                    self._speech.close()
            finally:
                # Also where a fault of ours ended it: who is handed off is not the bot's to hear any more.
                if self._stream.attached and self._session.reason is None:
                    self._stream.close()

    # -- connecting ---------------------------------------------------------------------------------------

    def _begin(self) -> BotEnd | None:
        """The first stream of a call; the bot's end, if that is it."""
        self._story.connecting()
        error = self._connect()
        if error is not None:
            return BotEnd(Outcome.BOT_UNREACHABLE, error)
        self._greet(resumed=False)
        self._story.connected()
        return None

    def _greet(self, *, resumed: bool) -> None:
        """What a bot has to know that has just been connected."""
        self._stream.send_text(messages.start(self._invite, self._bot.sample_rate, resumed=resumed))
        self._greeted = True
        if self._hold.on:
            self._tell_hold()

    def _resume(self, found: Found) -> BotEnd | None:
        """Take up the speech first, since the caller hears its pause, and then the bot."""
        self._stream.attached = True
        if self._hold.found(found.channel):
            self._marks.gone_by()
        if not found.connected:
            gone = self._stream.stop()  # there may be one, and nobody knows how far it is
            self._take_up(lambda speech: speech.start_over())
            return self._begin() if gone else BotEnd(Outcome.BOT_UNREACHABLE, stream.STUCK)
        self._spoken = found.spoken
        law = _law(found.channel)
        done = done_of(found.channel)
        self._take_up(lambda speech: speech.resume(*cut_of(found.channel), law, done))
        if found.ended is not None:
            self._take_up(lambda speech: speech.catch_up(law))
            self._speech.finish()
            return None
        attached = self._stream.resumed()
        self._take_up(lambda speech: speech.catch_up(law))
        if not attached:
            return self._restart("there was no stream any more")
        self._answer_by = time.monotonic() + RESUMED
        self._greeted = True
        if self._hold.on != (found.channel.get(f"variable_{TOLD_HELD}") == "true"):
            self._story.note(What.HOLD, on=self._hold.on)
            self._tell_hold()
        return None

    def _take_up(self, take: Callable[[Speech], bool | None]) -> None:
        """Let the caller hear what the controller before us has left, where it is here."""
        if isinstance(self._speech, Speech):
            try:
                self._shared = bool(take(self._speech)) or self._shared
            except OSError as error:
                self._play_by_path(error)

    def _restart(self, why: str) -> BotEnd | None:
        """A new stream for a call whose stream was lost in a take-over; the bot's end, if none comes up."""
        log.warning("bot_stream_restarted", reason=why)
        self._answer_by = float("inf")
        error = self._connect_anew()
        if error is not None:
            return BotEnd(Outcome.BOT_FAILED, f"lost in a take-over: {error}")
        self._greet(resumed=True)
        self._story.note(What.BOT_RECONNECTED, why=why)
        return None

    def _connect_anew(self) -> str | None:
        """The same as :meth:`_connect`, the stream that there may be having been stopped."""
        gone = not self._stream.attached or self._stream.stop()
        self._speech.forget_stream()
        return self._connect() if gone else stream.STUCK

    def _connect(self) -> str | None:
        """Try each URL; None when one took the stream, else why the last did not."""
        self._greeted = False
        error: str | None = None
        own = {name: value.reveal() for name, value in self._bot.headers.items()}
        headers = messages.identity(self._invite, own)
        for url in self._bot.urls:
            if self._stream.attached and not self._stream.stop():  # the one before
                return stream.STUCK
            error = self._try(url, headers)
            if error is None:
                return None
            log.warning("bot_unreachable", url=shown(url), error=error)
        return error

    def _try(self, url: str, headers: str) -> str | None:
        if not self._stream.start(url, self._bot.sample_rate, headers, playback=self._plays_by_itself):
            return "mod_audio_stream refused to start; is the module loaded and no stream attached?"
        deadline = time.monotonic() + self._bot.connect_timeout
        while (left := deadline - time.monotonic()) > 0:
            event = self._session.next_event(left)
            if event is None:
                break
            if event.name == stream.CONNECT:
                return None
            if event.name == stream.ERROR:
                self._stream.attached = False
                code, text = stream.describe(event)
                return f"{text} (code {code})"
            self._happened(event)
        return f"no connection within {self._bot.connect_timeout:g} s"

    def _reconnect(self, failed: BotEnd) -> bool:
        """Give a bot that broke off its one more chance, if it has one; what it has said goes on playing."""
        if self._reconnects == 0:
            return False
        self._reconnects -= 1
        log.warning("bot_reconnecting", reason=failed.reason)
        if self._connect_anew() is not None:
            return False
        self._greet(resumed=True)
        self._story.note(What.BOT_RECONNECTED, why=failed.reason)
        return True

    @property
    def _plays_by_itself(self) -> bool:
        return False

    # -- talking ------------------------------------------------------------------------------------------

    def _listen(self, deadline: float, ended: BotEnd | None = None) -> BotEnd:
        """Play what the bot says, and do what it asks, until its part is over and its last word heard."""
        # What the module plays by itself it does not tell: there, a silent bot cannot be known.
        first_audio = float("inf") if self._spoken or self._plays_by_itself else self._bot.first_audio_timeout
        first_audio += time.monotonic()
        if ended is not None:
            deadline = first_audio = min(deadline, time.monotonic() + LAST_WORDS)
        while ended is None or not self._speech.idle:
            due = self._speech.due()
            until = min(
                deadline, first_audio, self._answer_by, self._hold.due, deadline if due is None else due
            )
            event = self._session.next_event(max(0.0, until - time.monotonic()))
            if event is not None:
                end = self._happened(event)
                if ended is None and end is not None:
                    if end.outcome is Outcome.BOT_FAILED:
                        return end
                    ended = end
                    self._story.over(ended)
                    self._speech.finish()
                    deadline = min(deadline, time.monotonic() + LAST_WORDS)
                    first_audio = deadline
            self._speech.tick()
            self._note_silence()
            now = time.monotonic()
            if now >= self._hold.due:
                self._look_at_hold()
            if ended is None and now >= self._answer_by:
                lost = self._restart(f"the bot said nothing within {RESUMED:g} s of `resumed`")
                if lost is not None:
                    return lost
            if self._spoken:
                first_audio = deadline
            if now >= deadline:
                if ended is None:
                    return BotEnd(Outcome.MAX_DURATION, f"{self._workspace.max_duration:g} s")
                log.warning("last_words_cut", after_seconds=LAST_WORDS)
                return ended
            if ended is None and now >= first_audio:
                return BotEnd(Outcome.BOT_SILENT, f"no audio within {self._bot.first_audio_timeout:g} s")
        return ended

    def _happened(self, event: Event) -> BotEnd | None:
        """One event; the bot's end, if it was that."""
        if event.name in (stream.PLAY, stream.JSON):  # who speaks is there
            self._answer_by = float("inf")
            if (size := event.oversized or len(event.body)) > messages.MAX_MESSAGE_BYTES:
                self._ignore("oversized", event.body, size)
                return None
        match event.name:
            case stream.PLAY:
                self._say(event)
            case stream.JSON:
                return self._message(event.body)
            case "CHANNEL_EXECUTE_COMPLETE":
                self._speech.completed(event)
            case "PLAYBACK_START":
                self._speech.started(event)
                self._note_speech(event)
            case "DTMF":
                self._key(event)
            case "RECV_INFO":
                self._info(event)
            case hold.REINVITE:
                self._look_at_hold()
            case stream.DISCONNECT:
                code, text = stream.describe(event)
                if code == 1000:
                    return BotEnd(Outcome.BOT_CLOSED, text)
                return BotEnd(Outcome.BOT_FAILED, f"closed with {code} {text}".strip())
            case stream.ERROR:
                self._stream.attached = False  # the module takes itself off
                code, text = stream.describe(event)
                return BotEnd(Outcome.BOT_FAILED, f"{text} (code {code})")
        return None

    def _say(self, event: Event) -> None:
        """The speech of a ``::play``."""
        if self._plays_by_itself:
            return
        data = stream.body(event)
        path, kind, rate = data.get("file"), data.get("audioDataType"), data.get("sampleRate", 0)
        if not isinstance(path, str) or not is_speech_file(path, self._folder.path, self._session.uuid):
            named = str(path).encode("utf-8", "replace")
            self._ignore("foreign_file", named, len(named))
            return
        try:
            self._play(path, str(kind), rate if isinstance(rate, int) else 0, _law(event.headers), event.age)
            if self._hold.on:
                self._marks.gone_by()
            if not self._spoken:
                self._spoken = True
                self._story.spoken()
        except UnusableAudio as error:
            self._refuse("unusable_audio", str(error))
        except QueueFull as error:
            self._refuse("queue_full", str(error))

    def _play(self, path: str, kind: str, rate: int, law: str, age: float) -> None:
        try:
            self._speech.play(path, kind, rate, law, age)
            self._shared = True
        except OSError as error:
            if self._shared and isinstance(error, FileNotFoundError):
                # The module deletes what is not played when a bot breaks off.
                self._once("speech_lost", file=path)
                metrics.SPEECH_FAILURES.labels("lost").inc()
                return
            self._play_by_path(error)
            self._speech.play(path, kind, rate, law)

    def _play_by_path(self, error: OSError) -> None:
        """Another host, a full disk, a directory that is not ours to write: FreeSWITCH can do it alone."""
        self._folder.not_shared(error)
        metrics.SPEECH_FAILURES.labels("no_shared_directory").inc()
        left = self._speech.leave() if isinstance(self._speech, Speech) else (None, ())
        self._speech = PathSpeech(self._session, self._marked, *left)

    def _message(self, text: bytes) -> BotEnd | None:
        try:
            message = messages.parse(text)
        except messages.BadMessage as error:
            self._ignore(str(error), text, len(text))
            return None
        match message:
            case messages.End():
                return BotEnd(Outcome.BOT_ENDED, message.reason, message.properties)
            case messages.Clear() if self._plays_by_itself:
                self._refuse(
                    "cannot_clear", "this build of mod_audio_stream plays by itself and cannot be stopped"
                )
            case messages.Clear():
                self._cut = self._audible
                self._story.note(What.CLEARED)
                self._speech.clear()
                self._answer(messages.cleared())
            case messages.Mark() if self._plays_by_itself:
                self._refuse("cannot_mark", "this build of mod_audio_stream does not tell what was heard")
            case messages.Mark() if self._marks.full:
                self._refuse("queue_full", f"more than {Marks.MOST} marks are waiting to be heard")
            case messages.Mark():
                self._marks.asked(message.name, on_hold=self._hold.on)
                self._speech.mark(message.name)
            case messages.CallerSpeech():
                self._story.note(What.CALLER_SPEAKS, speaking=message.speaking)
            case messages.UnusableSpeech():
                self._refuse(
                    "unusable_audio",
                    f"audioDataType {message.kind}, sampleRate {message.rate}, or its base64, cannot be used",
                )
        return None

    def _note_speech(self, event: Event) -> None:
        if not self._audible and self.speaking:
            self._audible, self._cut = True, False
            self._story.audible(event.age)

    def _note_silence(self) -> None:
        if self._audible and not self.speaking:
            self._audible = False
            self._story.note(What.SPEECH_ENDED, cut=self._cut)

    def _look_at_hold(self) -> None:
        """The PBX may have put the caller on hold, or taken them off it."""
        if not self._hold.look():
            return
        self._story.note(What.HOLD, on=self._hold.on)
        log.info("hold", on=self._hold.on)
        if self._hold.on and self.speaking:
            self._marks.gone_by()
        if self._greeted:
            self._tell_hold()

    def _tell_hold(self) -> None:
        self._session.set_plain_variables({TOLD_HELD: "true" if self._hold.on else ""})
        self._stream.send_text(messages.hold(self._hold.on))

    def _marked(self, name: str, cleared: bool) -> None:
        cleared = self._marks.is_back(name) or cleared
        self._story.note(What.MARK, name=name, cleared=cleared)
        self._answer(messages.mark(name, cleared=cleared))

    def _answer(self, text: str) -> None:
        """Send the bot what it has asked for, unless it asks for more than FreeSWITCH can send."""
        if not self._stream.answer(text):
            metrics.BOT_MESSAGES_IGNORED.labels(self._workspace.name, "flood").inc()
            self._once(
                "bot_floods", remedy="the bot sends `mark` or `clear` without a pause: some get no answer"
            )

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
        self._story.note(What.KEY)
        self._stream.send_text(messages.dtmf(digit, milliseconds))

    # -- what is not used ---------------------------------------------------------------------------------

    def _refuse(self, code: str, text: str) -> None:
        """Count it, and say it once a call, in the log and to the bot."""
        metrics.BOT_MESSAGES_IGNORED.labels(self._workspace.name, code).inc()
        if code not in self._told:
            self._once(code, detail=text)
            self._stream.send_text(messages.error(code, text))

    def _ignore(self, why: str, text: bytes, size: int) -> None:
        """Count what we do not understand, and log the first of each kind in a call."""
        metrics.BOT_MESSAGES_IGNORED.labels(self._workspace.name, why).inc()
        begins = redaction.beginning(text.decode("utf-8", "replace"), 200)
        self._once("bot_message_ignored", why=why, size=size, begins=begins)

    def _once(self, event: str, **facts: Any) -> None:
        key = str(facts.get("why", event))
        if key not in self._told:
            self._told.add(key)
            log.warning(event, **facts)

    def _close(self, ended: BotEnd) -> None:
        """Silence, and the stream's end: that deletes the module's speech files."""
        try:
            self._speech.clear()
            if not self._stream.attached:
                return
            if ended.outcome not in (Outcome.BOT_FAILED, Outcome.BOT_CLOSED):
                reason = "max_duration" if ended.outcome is Outcome.MAX_DURATION else "ended"
                self._stream.send_text(messages.stop(reason))
            self._stream.close()
        except EslError as error:  # its part is over all the same, and what it said counts
            log.warning("bot_leg_not_closed", error=str(error))


def _law(headers: Mapping[str, str]) -> str:
    """The line's codec."""
    codec = headers.get("Channel-Read-Codec-Name", "")
    return codec if codec in g711.PAYLOAD_TYPES else g711.PCMU
