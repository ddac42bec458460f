"""One ``uuid_audio_stream`` of mod_audio_stream (community edition) on one channel.

What the module does was measured (``docs/architecture.md``): ``start`` says ``+OK`` to every URL, and whether
the bot is there comes as an event; after the server's close the stream stays attached until ``stop``.
That takes the stream off the channel at once (no frame is sent any more) and then waits for the socket's
thread: for a second where the bot answers nothing, and for as long as a bot that has sent its close frame
leaves TCP open, which may be for ever. So ``stop`` alone is a job; the others end at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from eslbot.bot import messages
from eslbot.bot.messages import printable
from eslbot.esl import Event, Session, quote

#: Seconds for the module to have let go of a bot; one that does not let go is gone.
STOPPED = 2.0
#: Commands that may wait for FreeSWITCH's reply before an answer to the bot is left out. It takes some 5,000
#: a second, and the end of the stream waits behind them: meanwhile the bot would hear who is handed off.
MAX_UNANSWERED = 500
#: What is said of such a bot.
STUCK = f"mod_audio_stream could not close the bot's socket within {STOPPED:g} s: the bot leaves TCP open"

CONNECT = "mod_audio_stream::connect"
DISCONNECT = "mod_audio_stream::disconnect"
ERROR = "mod_audio_stream::error"
JSON = "mod_audio_stream::json"
PLAY = "mod_audio_stream::play"
EVENTS = (CONNECT, DISCONNECT, ERROR, JSON, PLAY)


class AudioStream:
    """The commands; which of them succeeded is the reply's ``+OK``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        #: Whether there may be a stream on the channel: then it is ours to stop.
        self.attached = False

    def start(self, url: str, sample_rate: int, headers: str, *, playback: bool = False) -> bool:
        """Ask for a stream to ``url``; whether the module took the command, not whether the bot is there.

        ``playback`` lets a build that can do so play the bot's speech by itself.
        """
        self._session.set_variables(
            {
                # Read uninitialised when they are not set. Deflate "true" is what turns compression off
                # (audio_streamer_glue.cpp: enableCompression(false)); the heart beat is in seconds.
                "STREAM_MESSAGE_DEFLATE": "true",
                "STREAM_HEART_BEAT": "20",
                # Otherwise every message of the bot's is in FreeSWITCH's log.
                "STREAM_SUPPRESS_LOG": "true",
                "STREAM_PLAYBACK": "true" if playback else None,
                # FreeSWITCH paces a playback by its own clock instead of by what the caller sends.
                "timer_name": "soft",
                "STREAM_EXTRA_HEADERS": headers,
            }
        )
        self.attached = True
        answer = self._ask(f"start {url} mono {sample_rate}")
        # The headers hold the bot's token, and every event would go on carrying all of these. FreeSWITCH does
        # one command after the other: the module has read them by then.
        self._session.forget_variables(
            ("STREAM_EXTRA_HEADERS", "STREAM_MESSAGE_DEFLATE", "STREAM_HEART_BEAT", "STREAM_SUPPRESS_LOG")
        )
        return answer().startswith("+OK")

    def send_text(self, text: str) -> None:
        """Send a text frame to the bot, best effort and without waiting: a lost socket comes as an event."""
        self._session.post(f"api uuid_audio_stream {self._session.uuid} send_text {quote(text)}")

    def answer(self, text: str) -> bool:
        """The same with what the bot has asked for; whether it was sent. More than it can take is not."""
        if self._session.unanswered >= MAX_UNANSWERED:
            return False
        self.send_text(text)
        return True

    def resumed(self) -> bool:
        """Tell the bot that another controller has the call; whether there is a stream at all."""
        return self._ask(f"send_text {quote(messages.resumed())}")().startswith("+OK")

    def stop(self) -> bool:
        """Close the stream (the bot sees 1000) and delete its speech files; whether another can be started.

        Waits for at most :data:`STOPPED` seconds: a bot may keep the module for ever.
        """
        self.attached = False
        job = self._session.background(f"uuid_audio_stream {self._session.uuid} stop")
        return job(STOPPED) is not None

    def close(self) -> None:
        """The same without waiting: Ameyo can be told while FreeSWITCH does it."""
        self.attached = False
        self._session.post(f"api bgapi uuid_audio_stream {self._session.uuid} stop")

    def _ask(self, arguments: str) -> Callable[[], str]:
        """Post a command; what is returned waits for the answer."""
        return self._session.ask_api(f"uuid_audio_stream {self._session.uuid} {arguments}")


def ends(event: Event) -> bool:
    """Whether an event may end the bot's part, or tells what came of a command: none of those may be lost."""
    if event.name == JSON:
        return messages.is_end(event.body)
    return event.name in (CONNECT, DISCONNECT, ERROR, "PLAYBACK_START")


def body(event: Event) -> dict[str, Any]:
    """The module's own JSON in an event; empty where it is not an object, or longer than any of ours."""
    if len(event.body) > messages.MAX_MESSAGE_BYTES:
        return {}
    try:
        document = json.loads(event.body.decode())  # it would look for other encodings first
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def describe(event: Event) -> tuple[int, str]:
    """Code and text of an ``::error`` or ``::disconnect``; code 0 where there is none."""
    message = body(event).get("message")
    if not isinstance(message, dict):
        return 0, ""
    code = message.get("code")
    text = message.get("reason") or message.get("error")
    return (code if isinstance(code, int) else 0), printable(str(text)) if isinstance(text, str | int) else ""
