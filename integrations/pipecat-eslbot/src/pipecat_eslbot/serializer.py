"""Pipecat's frames as eslbot's messages, and the other way round."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loguru import logger
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.audio.utils import create_stream_resampler
from pipecat.frames.frames import (
    AudioRawFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    OutputTransportMessageFrame,
    OutputTransportMessageUrgentFrame,
)
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.serializers.base_serializer import FrameSerializer

from pipecat_eslbot.frames import HoldFrame, LineResumedFrame, MarkPlayedFrame
from pipecat_eslbot.start import BadStart, as_object

#: Characters of ``end.reason`` that are used.
MAX_REASON = 200


class EslbotFrameSerializer(FrameSerializer):
    """eslbot's protocol, version 1.

    =================================  ======================================
    from Pipecat                       to eslbot
    =================================  ======================================
    audio                              binary: L16 at the line's rate
    ``InterruptionFrame``              ``clear``
    ``MarkFrame``                      ``mark``
    ``EndFrame``                       ``end``, with the properties
    ``OutputTransportMessageFrame``    its message, as it is
    =================================  ======================================

    =================================  ======================================
    from eslbot                        to Pipecat
    =================================  ======================================
    binary                             ``InputAudioRawFrame``; silence while the caller is on hold
    ``dtmf``                           ``InputDTMFFrame`` (Pipecat has no A to D)
    ``mark``                           ``MarkPlayedFrame``
    ``hold``                           ``HoldFrame``
    ``start`` with ``resumed``         ``LineResumedFrame``
    ``error``                          a warning in the log
    =================================  ======================================
    """

    def __init__(
        self,
        sample_rate: int,
        properties: Mapping[str, Any],
        params: FrameSerializer.InputParams | None = None,
    ) -> None:
        """For one call.

        Args:
            sample_rate: of the line, in Hz (:attr:`Start.sample_rate`); a pipeline's other one is resampled.
            properties: of ``end``, read when the bot ends.
            params: Pipecat's own.
        """
        super().__init__(params)
        self._line_rate, self._pipeline_rate = sample_rate, sample_rate
        self._properties = properties
        self._held = False
        clear_after = self._params.resampler_clear_after_secs
        self._in = create_stream_resampler(clear_after_secs=clear_after)
        self._out = create_stream_resampler(clear_after_secs=clear_after)

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override]  # as Pipecat's own
        """Take the pipeline's rate."""
        self._pipeline_rate = setup.audio_in_sample_rate

    async def serialize(self, frame: Frame) -> str | bytes | None:
        """The message for a frame; None for what the line does not need to know."""
        match frame:
            case InterruptionFrame():
                return json.dumps({"type": "clear"})
            case AudioRawFrame():
                return await self._out.resample(frame.audio, frame.sample_rate, self._line_rate) or None
            case OutputTransportMessageFrame() | OutputTransportMessageUrgentFrame():
                return None if self.should_ignore_frame(frame) else json.dumps(frame.message)
            case EndFrame():
                reason = {} if frame.reason is None else {"reason": str(frame.reason)[:MAX_REASON]}
                end = {"type": "end", "properties": dict(self._properties), **reason}
                # A bot that is finished is finished: odd properties must not keep the customer.
                return json.dumps(end, default=str, skipkeys=True)
        return None

    async def deserialize(self, data: str | bytes) -> Frame | None:
        """The frame for a message; None for one that the pipeline does not need to know, or nobody knows."""
        if isinstance(data, bytes):
            # What the PBX plays for a caller on hold is a caller who speaks for every detector.
            heard = bytes(len(data)) if self._held else data
            audio = await self._in.resample(heard, self._line_rate, self._pipeline_rate)
            return InputAudioRawFrame(audio, self._pipeline_rate, 1) if audio else None
        try:
            message = as_object(data)
        except BadStart as error:
            logger.warning(f"a message that cannot be read: {error}")
            return None
        match message:
            case {"type": "dtmf", "digit": str(digit)}:
                return _key(digit)
            case {"type": "mark", "name": str(name)}:
                return MarkPlayedFrame(name, message.get("cleared") is True)
            case {"type": "hold", "on": bool(on)}:
                self._held = on
                return HoldFrame(on)
            case {"type": "start", "resumed": True}:
                self._held = False  # where it goes on, that is told next
                return LineResumedFrame()
            case {"type": "error"}:
                logger.warning(f"eslbot: {message.get('code')!s:.40}: {message.get('message')!s:.200}")
        return None


def _key(digit: str) -> Frame | None:
    try:
        return InputDTMFFrame(KeypadEntry(digit))
    except ValueError:
        logger.warning(f"key {digit!r:.20} is none of Pipecat's")
        return None
