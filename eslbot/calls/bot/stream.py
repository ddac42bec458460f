"""One ``uuid_audio_stream`` of mod_audio_stream (community edition) on one channel.

What the module does was measured (``docs/architecture.md``): ``start`` says ``+OK`` to every URL, and whether
somebody is there comes as an event; after the server's close the stream stays attached until ``stop``.
That takes the stream off the channel at once (no frame is sent any more) and then waits for the socket's
thread, for as long as the server leaves TCP open. A relay never does, but a host that is gone may. So
``stop`` alone is a job; the others end at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from eslbot.esl.commands import quote
from eslbot.esl.events import Event
from eslbot.esl.session import Session
from eslbot.telemetry.redaction import printable

#: Seconds for the module to have let go of a relay; one that does not let go is gone.
STOPPED = 2.0
#: Bytes of the module's own JSON: a code and a text.
MAX_BYTES = 16 * 1024

CONNECT = "mod_audio_stream::connect"
DISCONNECT = "mod_audio_stream::disconnect"
ERROR = "mod_audio_stream::error"
JSON = "mod_audio_stream::json"
EVENTS = (CONNECT, DISCONNECT, ERROR, JSON)

#: What libwsc says of an HTTP answer that is not 101, whatever its status (WebSocketContext.cpp).
NOT_UPGRADED = "WebSocket upgrade failed"


_to_json = json.JSONEncoder(separators=(",", ":")).encode


class AudioStream:
    """The commands; which of them succeeded is the reply's ``+OK``."""

    def __init__(self, session: Session) -> None:
        self._session = session
        #: Whether there may be a stream on the channel: then it is ours to stop.
        self.attached = False

    def start(self, url: str, headers: Mapping[str, str]) -> bool:
        """Ask for a stream to ``url``; whether the module took the command, not whether anybody is there."""
        self._session.set_variables(
            {
                # Read uninitialised when they are not set. Deflate "true" is what turns compression off
                # (audio_streamer_glue.cpp: enableCompression(false)); the heart beat is in seconds.
                "STREAM_MESSAGE_DEFLATE": "true",
                "STREAM_HEART_BEAT": "20",
                # Otherwise every text of the relay's is in FreeSWITCH's log.
                "STREAM_SUPPRESS_LOG": "true",
                "STREAM_EXTRA_HEADERS": _to_json(dict(headers)),
            }
        )
        self.attached = True
        # Always 8,000 Hz: the module's own resampler loses voice of packets longer than 20 ms.
        answer = self._ask(f"start {url} mono 8000")
        # Every event would go on carrying all of these. FreeSWITCH does one command after the other: the
        # module has read them by then.
        self._session.forget_variables(
            ("STREAM_EXTRA_HEADERS", "STREAM_MESSAGE_DEFLATE", "STREAM_HEART_BEAT", "STREAM_SUPPRESS_LOG")
        )
        return answer().startswith("+OK")

    def send_text(self, text: str) -> None:
        """Send a text to the relay, best effort and without waiting: a lost socket comes as an event."""
        self._session.post(f"api uuid_audio_stream {self._session.uuid} send_text {quote(text)}")

    def reaches(self, text: str) -> bool:
        """The same, and whether there is a stream at all."""
        return self._ask(f"send_text {quote(text)}")().startswith("+OK")

    def stop(self) -> bool:
        """Close the stream (the relay sees 1000); whether another can be started.

        Waits for at most :data:`STOPPED` seconds: a peer may keep the module for ever.
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


def of_stream(event: Event) -> bool:
    """Whether an event is the stream's own: none of those may be lost."""
    return event.name in EVENTS


def was_refused(event: Event) -> bool:
    """Whether somebody was there, and answered the upgrade with another HTTP status than 101."""
    return event.name == ERROR and _message(event).get("error") == NOT_UPGRADED


def _message(event: Event) -> Mapping[str, Any]:
    try:
        # With more than the module has to say there is nothing to read in it.
        document = json.loads(event.body.decode()) if len(event.body) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        document = None
    message = document.get("message") if isinstance(document, dict) else None
    return message if isinstance(message, dict) else {}


def describe(event: Event) -> str:
    """What an ``::error`` or a ``::disconnect`` says, for people."""
    message = _message(event)
    if not message:
        return "no reason given"
    code, text = message.get("code"), message.get("reason") or message.get("error")
    words = printable(text) if isinstance(text, str) else ""
    known = isinstance(code, int) and 0 <= code < 10_000
    return f"{words} (code {code if known else 'unknown'})".strip()
