"""What a bot of each protocol says and is told: as the bot's side of its owner's documentation has it.

``eslbot`` is ``docs/bot-protocol.md``. The others are telephony providers' protocols, as bots made for
them speak: the provider tells them everything in JSON, the audio included, and a bot ends the call by
closing. They are strict where such bots are: the first messages have to be those of the protocol, and a
binary message, which the providers never send, is the end of the connection.
"""

from __future__ import annotations

import base64
import binascii
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from eslbot.audio import g711
from eslbot.sim.bot.wavfiles import wav

Properties = dict[str, Any]

#: One WebSocket message.
Message = str | bytes

#: Bytes that Exotel's audio comes and goes in multiples of.
EXOTEL_UNIT = 320


class WireError(Exception):
    """The peer does not speak the bot's protocol."""


class Wire(ABC):
    """One connection's protocol. ``audio_rate`` is that of the caller's audio, in Hz."""

    #: Messages that have to come first, in this order.
    opening: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.audio_rate = 8000

    @abstractmethod
    def speech(self, l16: bytes, rate: int, kind: str) -> Message:
        """Speech to play. ``kind`` is the format, where there is a choice."""

    @abstractmethod
    def clear(self) -> str:
        """Barge-in."""

    @abstractmethod
    def mark(self, name: str | None) -> str:
        """Tell me when all so far was heard; None is a mark without a name."""

    def end(self, properties: Properties, reason: str) -> str | None:
        """The bot is finished; None where closing says so."""
        return None

    @abstractmethod
    def caller(self, message: Any) -> bytes | None:
        """The caller's audio in a JSON message, as L16; None where it is something else.

        Raises:
            WireError: the message is not as documented.
        """

    @abstractmethod
    def heard(self, message: Mapping[str, Any]) -> str | None:
        """The name of the mark that a message says has been reached; None where it says no such thing."""


class Eslbot(Wire):
    """eslbot's own: binary frames are the caller; speech is binary or ``streamAudio``."""

    def __init__(self, audio_rate: int) -> None:
        self.audio_rate = audio_rate

    def speech(self, l16: bytes, rate: int, kind: str) -> Message:
        """``kind``: binary, raw, wav, pcmu or pcma."""
        return l16 if kind == "binary" else json.dumps(stream_audio(l16, kind, rate))

    def clear(self) -> str:
        """As documented."""
        return json.dumps({"type": "clear"})

    def mark(self, name: str | None) -> str:
        """As documented; there is no mark without a name."""
        return json.dumps({"type": "mark", "name": name})

    def end(self, properties: Properties, reason: str) -> str:
        """As documented."""
        return json.dumps({"type": "end", "properties": properties, "reason": reason})

    def caller(self, message: Any) -> bytes | None:
        """No text holds audio; the rate is in ``start``."""
        if isinstance(message, dict) and message.get("type") == "start":
            audio = message.get("audio")
            rate = audio.get("sample_rate") if isinstance(audio, dict) else None
            self.audio_rate = rate if isinstance(rate, int) else self.audio_rate
        return None

    def heard(self, message: Mapping[str, Any]) -> str | None:
        """Of a ``mark``."""
        name = message.get("name")
        return name if message.get("type") == "mark" and isinstance(name, str) else None


class Telephony(Wire):
    """What the providers' protocols have in common: ``event``, a stream's id, audio in ``media.payload``."""

    #: The stream's id, in the provider's spelling.
    stream_key = "streamSid"

    def __init__(self) -> None:
        super().__init__()
        self.stream: str | None = None
        self._expected = list(self.opening)

    def caller(self, message: Any) -> bytes | None:
        """Of ``media``; the order of the first messages is checked, and ``start`` remembered."""
        event = message.get("event") if isinstance(message, dict) else None
        if not isinstance(event, str):
            raise WireError("a message that is no JSON object with an event")
        if self._expected and event != self._expected.pop(0):
            raise WireError(f"{event!r} came too early; the first are {', '.join(self.opening)}")
        try:
            if event == "start":
                self._begin(message)
            if event == "media" and message["media"].get("track", "inbound") == "inbound":
                return self._decode(base64.b64decode(message["media"]["payload"], validate=True))
        except (KeyError, TypeError, AttributeError, ValueError, binascii.Error) as error:
            raise WireError(f"{event!r} is not as documented: {error!r}") from error
        return None

    def heard(self, message: Mapping[str, Any]) -> str | None:
        """Of ``mark``; the name of one without is the empty text."""
        mark = message.get("mark")
        return str(mark.get("name") or "") if isinstance(mark, dict) else None

    def clear(self) -> str:
        """``clear`` with the stream's id."""
        return json.dumps({"event": "clear", self.stream_key: self.stream})

    def mark(self, name: str | None) -> str:
        """``mark`` with the stream's id."""
        return json.dumps(
            {"event": "mark", self.stream_key: self.stream, "mark": {} if name is None else {"name": name}}
        )

    def speech(self, l16: bytes, rate: int, kind: str) -> Message:
        """``media`` with the stream's id."""
        payload = base64.b64encode(self._encode(l16, rate)).decode()
        return json.dumps({"event": "media", self.stream_key: self.stream, "media": {"payload": payload}})

    @abstractmethod
    def _begin(self, start: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def _decode(self, payload: bytes) -> bytes: ...

    @abstractmethod
    def _encode(self, l16: bytes, rate: int) -> bytes: ...


class Twilio(Telephony):
    """Twilio Media Streams: μ-law at 8,000 Hz."""

    opening = ("connected", "start")

    def _begin(self, start: Mapping[str, Any]) -> None:
        form = start["start"]["mediaFormat"]
        if (form["encoding"], form["sampleRate"], form["channels"]) != ("audio/x-mulaw", 8000, 1):
            raise ValueError(f"mediaFormat {form}")
        self.stream = start["streamSid"]
        if start["start"]["streamSid"] != self.stream or not start["start"]["callSid"]:
            raise ValueError("streamSid or callSid")

    def _decode(self, payload: bytes) -> bytes:
        return g711.decode("PCMU", payload)

    def _encode(self, l16: bytes, rate: int) -> bytes:
        if rate != 8000:
            raise ValueError(f"Twilio's audio has 8,000 Hz, not {rate}")
        return g711.encode("PCMU", l16)


class Exotel(Telephony):
    """Exotel's AgentStream: snake_case, L16 at 8,000, 16,000 or 24,000 Hz in units of 320 bytes."""

    opening = ("connected", "start")
    stream_key = "stream_sid"

    def _begin(self, start: Mapping[str, Any]) -> None:
        self.stream = start["stream_sid"]
        self.audio_rate = int(start["start"]["media_format"]["sample_rate"])
        if start["start"]["stream_sid"] != self.stream or not start["start"]["call_sid"]:
            raise ValueError("stream_sid or call_sid")

    def _decode(self, payload: bytes) -> bytes:
        if len(payload) % EXOTEL_UNIT:
            raise ValueError(f"{len(payload)} bytes are no multiple of {EXOTEL_UNIT}")
        return payload

    def _encode(self, l16: bytes, rate: int) -> bytes:
        if rate != self.audio_rate:
            raise ValueError(f"this stream's audio has {self.audio_rate} Hz, not {rate}")
        return l16 + bytes(-len(l16) % EXOTEL_UNIT)


class Plivo(Telephony):
    """Plivo's audio streaming: camelCase, ``playAudio``, ``checkpoint`` and ``clearAudio``."""

    opening = ("start",)
    stream_key = "streamId"

    def __init__(self) -> None:
        super().__init__()
        self._mulaw = True

    def _begin(self, start: Mapping[str, Any]) -> None:
        form = start["start"]["mediaFormat"]
        self.stream = start["start"]["streamId"]
        self._mulaw, self.audio_rate = form["encoding"] == "audio/x-mulaw", int(form["sampleRate"])
        if form["encoding"] not in ("audio/x-mulaw", "audio/x-l16") or not start["start"]["callId"]:
            raise ValueError("encoding or callId")

    def speech(self, l16: bytes, rate: int, kind: str) -> Message:
        """``playAudio``."""
        media = {
            "contentType": "audio/x-mulaw" if self._mulaw else "audio/x-l16",
            "sampleRate": rate,
            "payload": base64.b64encode(self._encode(l16, rate)).decode(),
        }
        return json.dumps({"event": "playAudio", "media": media})

    def clear(self) -> str:
        """``clearAudio``."""
        return json.dumps({"event": "clearAudio", "streamId": self.stream})

    def mark(self, name: str | None) -> str:
        """``checkpoint``."""
        named = {} if name is None else {"name": name}
        return json.dumps({"event": "checkpoint", "streamId": self.stream, **named})

    def heard(self, message: Mapping[str, Any]) -> str | None:
        """Of ``playedStream``."""
        return str(message.get("name") or "") if message.get("event") == "playedStream" else None

    def _decode(self, payload: bytes) -> bytes:
        return g711.decode("PCMU", payload) if self._mulaw else payload

    def _encode(self, l16: bytes, rate: int) -> bytes:
        if rate != self.audio_rate:
            raise ValueError(f"this stream's audio has {self.audio_rate} Hz, not {rate}")
        return g711.encode("PCMU", l16) if self._mulaw else l16


#: The providers' protocols, by the name in the configuration.
DIALECTS: dict[str, type[Telephony]] = {"twilio": Twilio, "exotel": Exotel, "plivo": Plivo}


def stream_audio(l16: bytes, kind: str, rate: int) -> dict[str, Any]:
    """One chunk of speech as ``streamAudio``."""
    match kind:
        case "raw":
            data = l16
        case "wav":
            data = wav(l16, rate)
        case "pcmu" | "pcma":
            data = g711.encode(kind.upper(), l16)
        case _:
            raise ValueError(f"format {kind!r} is none of binary, raw, wav, pcmu, pcma")
    return stream_audio_of(data, kind, rate)


def stream_audio_of(data: bytes, kind: str, rate: int) -> dict[str, Any]:
    """``streamAudio`` with ``data`` as it is, fit or unfit."""
    encoded = base64.b64encode(data).decode()
    return {
        "type": "streamAudio",
        "data": {"audioDataType": kind, "sampleRate": rate, "audioData": encoded},
    }
