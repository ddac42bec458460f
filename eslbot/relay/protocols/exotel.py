"""Exotel's AgentStream (Voicebot applet); Twilio's envelope in snake_case, with L16 instead of µ-law.

Source: https://developer.exotel.com/docs/agentstream/websocket-protocol. The sampling rate is the workspace's
(Exotel's is a parameter of the URL); 20 ms at each of them are a multiple of 320 bytes, as Exotel has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eslbot.caller.invite import Invite
from eslbot.config.model import Bot
from eslbot.relay.protocols.base import Message, Speech
from eslbot.relay.protocols.envelope import Envelope, base64, sid
from eslbot.relay.protocols.texts import compact


class Exotel(Envelope):
    """A bot that was written for Exotel."""

    def __init__(self, invite: Invite, bot: Bot, trace: str) -> None:
        super().__init__(invite, bot, trace)
        self._stream = sid("MZ", self.stream)
        self.stream_name = "stream_sid", self._stream
        self._call = {"call_sid": sid("CA", invite.call_id), "account_sid": sid("AC", invite.workspace_id)}

    def start(self, *, resumed: bool) -> Sequence[Message]:
        """``connected`` and ``start``."""
        start = {
            "stream_sid": self._stream,
            **self._call,
            "from": self.invite.caller,
            "to": self.invite.did,
            "custom_parameters": self.identity(resumed=resumed),
            "media_format": {"encoding": "audio/x-raw", "sample_rate": str(self.rate), "bit_rate": "16"},
        }
        return compact({"event": "connected"}), self._event("start", start)

    def audio(self, linear: bytes, at: float) -> Message:
        """``media``."""
        return (
            f'{{"event":"media","sequence_number":"{self.number()}","stream_sid":"{self._stream}","media":'
            f'{{"chunk":"{self.chunk()}","timestamp":"{round(at * 1000)}","payload":"{base64(linear)}"}}}}'
        )

    def speech(self, media: Mapping[str, Any], audio: bytes) -> Speech:
        """L16 at the rate of the caller's audio."""
        return Speech(audio, "raw", self.rate)

    def key(self, digit: str, milliseconds: int) -> Sequence[Message]:
        """``dtmf``."""
        return (self._event("dtmf", {"digit": digit, "duration": str(milliseconds)}),)

    def mark(self, name: str, *, cleared: bool) -> Sequence[Message]:
        """``mark``."""
        return (self._event("mark", {"name": name}),)

    def stop(self, reason: str) -> Sequence[Message]:
        """``stop``: the caller has hung up, or this part of the call is over."""
        why = "callended" if reason == "caller_hangup" else "stopped"
        return (self._event("stop", {**self._call, "reason": why}),)

    def _event(self, event: str, facts: Mapping[str, Any]) -> str:
        number = str(self.number())
        return compact({"event": event, "sequence_number": number, "stream_sid": self._stream, event: facts})
