"""The bot's leg of a call: connect it, let it talk, know when it is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from eslbot import metrics
from eslbot.bot import messages, stream
from eslbot.bot.speech import Speech
from eslbot.config.model import Workspace, shown
from eslbot.esl import CommandTimeout, EslError, Event, Session
from eslbot.invite import Invite
from eslbot.outcome import Outcome

log = structlog.get_logger()

#: Seconds that what is queued may still play when the bot has ended; the last word of a bot that talks and
#: talks is not worth more of the customer's time.
LAST_WORDS = 60.0


@dataclass(frozen=True, slots=True)
class BotEnd:
    """How the bot's part ended. ``reason`` is the bot's own word or the error's, ``properties`` the bot's."""

    outcome: Outcome
    reason: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)


#: What a bot is told when its part is over.
_STOP_REASONS = {Outcome.MAX_DURATION: "max_duration"}


class BotLeg:
    """One bot on one answered call."""

    def __init__(self, session: Session, invite: Invite, workspace: Workspace, temp_dir: str) -> None:
        self._session = session
        self._invite = invite
        self._workspace = workspace
        self._bot = workspace.bot
        self._stream = stream.AudioStream(session)
        self._speech = Speech(session, temp_dir)
        self._ignored: set[str] = set()

    def talk(self, connected: Callable[[], None]) -> BotEnd:
        """Connect the bot and stay until its part is over; ``connected`` is called when it is there.

        Raises OutboundSessionHasGoneAway when the caller hangs up, or the event socket goes.
        """
        deadline = time.monotonic() + self._workspace.max_duration
        error = self._connect()
        if error is not None:
            return BotEnd(Outcome.BOT_UNREACHABLE, error)
        connected()
        self._stream.send_text(messages.start(self._invite, self._bot.sample_rate))
        ended = self._listen(deadline)
        try:
            self._close(ended, deadline)
        except EslError as error:  # its part is over all the same, and what it said counts
            log.warning("bot_leg_not_closed", error=str(error))
        return ended

    def _connect(self) -> str | None:
        """Try each URL; None when one took the stream, else why the last did not."""
        error: str | None = None
        own = {name: value.reveal() for name, value in self._bot.headers.items()}
        headers = messages.identity(self._invite, own)
        for url in self._bot.urls:
            error = self._try(url, headers)
            if error is None:
                return None
            log.warning("bot_unreachable", url=shown(url), error=error)
        return error

    def _try(self, url: str, headers: str) -> str | None:
        if not self._stream.start(url, self._bot.sample_rate, headers):
            return "mod_audio_stream refused to start; is the module loaded and no stream attached?"
        deadline = time.monotonic() + self._bot.connect_timeout
        while (left := deadline - time.monotonic()) > 0:
            event = self._session.next_event(left)
            if event is None:
                break
            if event.name == stream.CONNECT:
                return None
            if event.name == stream.ERROR:
                code, text = stream.describe(event)
                return f"{text} (code {code})"
        self._stream.stop()
        return f"no connection within {self._bot.connect_timeout:g} s"

    def _listen(self, deadline: float) -> BotEnd:
        """Play what the bot says until its part is over."""
        spoken = False
        first_audio_deadline = time.monotonic() + self._bot.first_audio_timeout
        while True:
            until = deadline if spoken else min(deadline, first_audio_deadline)
            event = self._session.next_event(max(0.0, until - time.monotonic()))
            if event is None:
                if time.monotonic() >= deadline:
                    return BotEnd(Outcome.MAX_DURATION, f"{self._workspace.max_duration:g} s")
                return BotEnd(Outcome.BOT_SILENT, f"no audio within {self._bot.first_audio_timeout:g} s")
            match event.name:
                case stream.PLAY:
                    spoken = self._play(event) or spoken
                case stream.JSON:
                    if (end := self._message(event.body)) is not None:
                        return BotEnd(Outcome.BOT_ENDED, end.reason, end.properties)
                case stream.DISCONNECT:
                    code, text = stream.describe(event)
                    if code == 1000:
                        return BotEnd(Outcome.BOT_CLOSED, text)
                    return BotEnd(Outcome.BOT_FAILED, f"closed with {code} {text}".strip())
                case stream.ERROR:
                    code, text = stream.describe(event)
                    return BotEnd(Outcome.BOT_FAILED, f"{text} (code {code})")

    def _play(self, event: Event) -> bool:
        """Queue the speech of a ``::play``; whether there was any."""
        if self._bot.playback == "module":
            return True
        path = stream.body(event).get("file")
        if not isinstance(path, str) or not self._speech.owns(path):
            self._ignore("foreign_file", str(path)[:200].encode("utf-8", "replace"))
            return False
        self._speech.play(path)
        return True

    def _message(self, text: bytes) -> messages.End | None:
        try:
            return messages.parse(text)
        except messages.BadMessage as error:
            self._ignore(str(error), text)
            return None

    def _ignore(self, why: str, text: bytes) -> None:
        """Count what we do not use, and log the first of each kind in a call."""
        metrics.BOT_MESSAGES_IGNORED.labels(self._workspace.name, why).inc()
        if why not in self._ignored:
            self._ignored.add(why)
            shown = text[:200].decode("utf-8", "replace")
            log.warning("bot_message_ignored", why=why, size=len(text), begins=shown)

    def _close(self, ended: BotEnd, deadline: float) -> None:
        """Let the last words be heard, then stop the stream: that deletes the speech files."""
        if ended.outcome in (Outcome.BOT_ENDED, Outcome.BOT_CLOSED):
            try:
                self._speech.drain(min(LAST_WORDS, max(0.0, deadline - time.monotonic())))
            except CommandTimeout:
                log.warning("last_words_cut", after_seconds=LAST_WORDS)
        self._speech.cut()
        if ended.outcome not in (Outcome.BOT_FAILED, Outcome.BOT_CLOSED):
            self._stream.send_text(messages.stop(_STOP_REASONS.get(ended.outcome, "ended")))
        self._stream.stop()
