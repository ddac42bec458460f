"""Pipecat's WebSocket transport, with a call's line for its socket, and speech that is ahead of its time."""

from __future__ import annotations

import asyncio
from typing import cast

from pipecat.frames.frames import Frame, InterruptionFrame, OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.websocket.fastapi import (
    FastAPIWebsocketClient,
    FastAPIWebsocketOutputTransport,
    FastAPIWebsocketParams,
    FastAPIWebsocketTransport,
)
from pydantic import Field
from starlette.websockets import WebSocket, WebSocketState

from pipecat_eslbot.line import Line


class EslbotParams(FastAPIWebsocketParams):
    """Pipecat's parameters, with what a telephone line wants for defaults.

    Parameters:
        lead_secs: seconds of speech that eslbot has before the caller hears them. Pipecat's other transports
            are one message (40 ms) ahead: whatever holds the process up for longer is a hole in the bot's
            speech. ``BotStoppedSpeakingFrame`` comes so much before the caller has heard the last word.
        audio_out_end_silence_secs: Pipecat's 2 s of silence behind the last word: the customer would wait for
            them, and eslbot plays what is queued to its end in any case.
        allowed_origins: eslbot is no browser and sends no ``Origin``.
    """

    lead_secs: float = Field(default=0.3, ge=0.0, le=10.0)
    audio_in_enabled: bool = True
    audio_out_enabled: bool = True
    audio_out_end_silence_secs: int = 0
    allowed_origins: list[str] = Field(default_factory=list)


class EslbotOutput(FastAPIWebsocketOutputTransport):
    """The bot's speech, so much ahead of what the caller hears that nothing short is heard of it."""

    def __init__(
        self, transport: EslbotTransport, client: FastAPIWebsocketClient, params: EslbotParams
    ) -> None:
        super().__init__(transport, client, params)
        self._line, self._eslbot_params = transport.line, params
        #: When the caller will have heard everything, by the loop's clock.
        self._heard_at = 0.0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Forget, in an interruption, what was still to be heard."""
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame):
            self._heard_at = 0.0

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        """Send speech, and wait until only the lead of it is unheard; False where the call is over."""
        if self._line.client_state is not WebSocketState.CONNECTED:
            return False
        serializer = self._eslbot_params.serializer
        payload = await serializer.serialize(frame) if serializer is not None else None
        if isinstance(payload, bytes):
            await self._line.send_bytes(payload)
        now = asyncio.get_running_loop().time()
        seconds = len(frame.audio) / 2 / frame.num_channels / frame.sample_rate
        self._heard_at = max(self._heard_at, now) + seconds
        await asyncio.sleep(max(0.0, self._heard_at - now - self._eslbot_params.lead_secs))
        return True


class EslbotTransport(FastAPIWebsocketTransport):
    """A call's audio, in and out of a pipeline; the call's connections come and go beneath it.

    ``on_client_disconnected`` is fired when the call is over for the bot, not when a connection breaks.
    """

    def __init__(self, line: Line, params: EslbotParams) -> None:
        # Of a WebSocket Pipecat uses what a line has; the tests would tell if that changed.
        super().__init__(cast(WebSocket, line), params)
        self.line = line
        self._output = EslbotOutput(self, self._client, params)
