"""Twilio's Media Streams, bidirectional; Pipecat, Vocode, bolna and most samples speak it.

Source: https://www.twilio.com/docs/voice/media-streams/websocket-messages. µ-law at 8,000 Hz both ways;
numbers are texts. Marks that a ``clear`` drops come back like the others, before what is said behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eslbot.caller.invite import Invite
from eslbot.config.model import Bot
from eslbot.relay.protocols.base import Message, Speech
from eslbot.relay.protocols.envelope import Envelope, mulaw, sid
from eslbot.relay.protocols.texts import compact


class Twilio(Envelope):
    """A bot that was written for Twilio."""

    def __init__(self, invite: Invite, bot: Bot, trace: str) -> None:
        super().__init__(invite, bot, trace)
        self._stream = sid("MZ", self.stream)
        self.stream_name = "streamSid", self._stream
        self._call = {"accountSid": sid("AC", invite.workspace_id), "callSid": sid("CA", invite.call_id)}

    def start(self, *, resumed: bool) -> Sequence[Message]:
        """``connected`` and ``start``."""
        connected = {"event": "connected", "protocol": "Call", "version": "1.0.0"}
        start = {
            **self._call,
            "streamSid": self._stream,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": self.identity(resumed=resumed),
        }
        return compact(connected), self._event("start", start)

    def audio(self, linear: bytes, at: float) -> Message:
        """``media``."""
        return (
            f'{{"event":"media","sequenceNumber":"{self.number()}","media":{{"track":"inbound",'
            f'"chunk":"{self.chunk()}","timestamp":"{round(at * 1000)}","payload":"{mulaw(linear)}"}},'
            f'"streamSid":"{self._stream}"}}'
        )

    def speech(self, media: Mapping[str, Any], audio: bytes) -> Speech:
        """µ-law."""
        return Speech(audio, "pcmu", 8000)

    def key(self, digit: str, milliseconds: int) -> Sequence[Message]:
        """``dtmf``."""
        return (self._event("dtmf", {"track": "inbound_track", "digit": digit}),)

    def mark(self, name: str, *, cleared: bool) -> Sequence[Message]:
        """``mark``."""
        return (self._event("mark", {"name": name}),)

    def stop(self, reason: str) -> Sequence[Message]:
        """``stop``."""
        return (self._event("stop", self._call),)

    def _event(self, event: str, facts: Mapping[str, Any]) -> str:
        number = str(self.number())
        return compact({"event": event, "sequenceNumber": number, event: facts, "streamSid": self._stream})
