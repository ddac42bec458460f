"""Plivo's Audio Streaming, bidirectional.

Source: https://www.plivo.com/docs/voice-agents/audio-streaming/concepts/audio-streaming-reference. Numbers
are numbers here, a time stamp is milliseconds since 1970 as a text. The caller is µ-law at 8,000 Hz, as
Pipecat takes it for granted, or L16 at 16,000. ``playedStream`` means played: a checkpoint that a
``clearAudio`` drops has no other answer than ``clearedAudio``.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from eslbot.caller.invite import Invite
from eslbot.config.model import Bot
from eslbot.relay.protocols.base import Clear, Message, Speech, Wish
from eslbot.relay.protocols.envelope import Envelope, base64, mulaw
from eslbot.relay.protocols.texts import compact, shown

#: What a ``contentType`` is, without its parameters.
KINDS = {"audio/x-mulaw": "pcmu", "audio/x-alaw": "pcma", "audio/x-l16": "raw", "raw": "raw", "wav": "wav"}


class Plivo(Envelope):
    """A bot that was written for Plivo. ``now`` is the time of day, in seconds since 1970."""

    SPEECH, CLEAR, MARK = "playAudio", "clearAudio", "checkpoint"

    def __init__(self, invite: Invite, bot: Bot, trace: str, now: Callable[[], float] = time.time) -> None:
        super().__init__(invite, bot, trace)
        self.stream_name = "streamId", str(self.stream)
        self._encoding = "audio/x-mulaw" if self.rate == 8000 else "audio/x-l16"
        self._began, self._at = now(), 0.0
        self._clearing = 0  # a `clearAudio` that has no answer yet
        self._extra = ""

    def start(self, *, resumed: bool) -> Sequence[Message]:
        """``start``; who is calling is in ``extra_headers``, those of later messages as well."""
        own = self.identity(resumed=resumed)
        self._extra = ";".join(f"{name}={quote(value, safe='')}" for name, value in own.items())
        start = {
            "callId": self.invite.call_id,
            "streamId": str(self.stream),
            "accountId": self.invite.workspace_id,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": self._encoding, "sampleRate": self.rate},
        }
        message = {"event": "start", "sequenceNumber": self.number(), "start": start}
        return (compact({**message, "extra_headers": self._extra}),)

    def audio(self, linear: bytes, at: float) -> Message:
        """``media``."""
        self._at = at
        payload = mulaw(linear) if self.rate == 8000 else base64(linear)
        return (
            f'{{"event":"media","sequenceNumber":{self.number()},"streamId":"{self.stream}","media":'
            f'{{"track":"inbound","timestamp":"{self._time()}","chunk":{self.chunk()},"payload":"{payload}"}},'
            f'"extra_headers":"{self._extra}"}}'
        )

    def read(self, message: Message) -> Sequence[Wish]:
        """As the others'; it is remembered which checkpoints a ``clearAudio`` drops."""
        wishes = super().read(message)
        self._clearing += sum(isinstance(wish, Clear) for wish in wishes)
        return wishes

    def speech(self, media: Mapping[str, Any], audio: bytes) -> Speech:
        """By ``contentType`` and ``sampleRate``; µ-law and L16 are Plivo's own."""
        kind, rate = media.get("contentType"), media.get("sampleRate", self.rate)
        name = kind.partition(";")[0].strip().lower() if isinstance(kind, str) else shown(kind)
        if isinstance(rate, str) and len(rate) < 7 and rate.isdecimal():
            rate = int(rate)
        # What is neither goes on as it is: the decoder tells what would be right.
        return Speech(audio, KINDS.get(name, name), rate if isinstance(rate, int) and rate < 10**6 else 0)

    def mark_of(self, document: Mapping[str, Any]) -> object:
        """``name``, of the checkpoint itself."""
        return document.get("name", "")

    def key(self, digit: str, milliseconds: int) -> Sequence[Message]:
        """``dtmf``."""
        facts = {"track": "inbound", "digit": digit, "timestamp": self._time()}
        return (self._event("dtmf", dtmf=facts, extra_headers=self._extra),)

    def mark(self, name: str, *, cleared: bool) -> Sequence[Message]:
        """``playedStream``, also of what went by while the caller was on hold."""
        if cleared and self._clearing:
            return ()
        return (self._event("playedStream", name=name),)

    def cleared(self) -> Sequence[Message]:
        """``clearedAudio``."""
        self._clearing -= 1
        return (self._event("clearedAudio"),)

    def stop(self, reason: str) -> Sequence[Message]:
        """``stop``, which Plivo does not publish and its own examples wait for."""
        return (self._event("stop"),)

    def _event(self, event: str, **facts: Any) -> str:
        number, stream = self.number(), str(self.stream)
        return compact({"event": event, "sequenceNumber": number, "streamId": stream, **facts})

    def _time(self) -> str:
        return str(int((self._began + self._at) * 1000))
