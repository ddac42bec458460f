"""Pipecat's WebSocket transport, with a call's line for its socket."""

from __future__ import annotations

from typing import cast

from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pydantic import Field
from starlette.websockets import WebSocket

from pipecat_eslbot.line import Line


class EslbotParams(FastAPIWebsocketParams):
    """Pipecat's parameters, with what a telephone line wants for defaults.

    Parameters:
        audio_out_end_silence_secs: Pipecat's 2 s of silence behind the last word: the customer would wait for
            them, and eslbot plays what is queued to its end in any case.
        allowed_origins: eslbot is no browser and sends no ``Origin``.
    """

    audio_in_enabled: bool = True
    audio_out_enabled: bool = True
    audio_out_end_silence_secs: int = 0
    allowed_origins: list[str] = Field(default_factory=list)


class EslbotTransport(FastAPIWebsocketTransport):
    """A call's audio, in and out of a pipeline; the call's connections come and go beneath it.

    ``on_client_disconnected`` is fired when the call is over for the bot, not when a connection breaks.
    """

    def __init__(self, line: Line, params: EslbotParams) -> None:
        # Of a WebSocket Pipecat uses what a line has: tests/test_transport.py would tell if that changed.
        super().__init__(cast(WebSocket, line), params)
        self.line = line
