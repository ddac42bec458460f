"""Frames and messages, each way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from fakes import start
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputTransportMessageUrgentFrame,
    TextFrame,
)
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat_eslbot import EslbotFrameSerializer, HoldFrame, LineResumedFrame, MarkFrame, MarkPlayedFrame


class Setup(FrameProcessorSetup):
    """A pipeline's rates, and nothing else of it."""

    def __init__(self, rate: int) -> None:
        self.audio_in_sample_rate = rate


def written(frame: Frame, properties: dict[str, Any] | None = None, rate: int = 8000) -> Any:
    message = asyncio.run(EslbotFrameSerializer(rate, properties or {}).serialize(frame))
    return json.loads(message) if isinstance(message, str) else message


def read(message: str | bytes | dict[str, Any], rate: int = 8000, pipeline: int = 8000) -> Frame | None:
    async def go() -> Frame | None:
        serializer = EslbotFrameSerializer(rate, {})
        await serializer.setup(Setup(pipeline))
        return await serializer.deserialize(json.dumps(message) if isinstance(message, dict) else message)

    return asyncio.run(go())


def test_speech_is_binary_at_the_line_s_rate() -> None:
    audio = bytes(range(256)) * 2
    assert written(OutputAudioRawFrame(audio, 8000, 1)) == audio
    second = written(OutputAudioRawFrame(bytes(48000), 24000, 1))
    assert isinstance(second, bytes) and 15000 <= len(second) <= 16000, "a second of it, but for the filter's"


def test_an_interruption_is_clear_and_a_mark_is_a_mark() -> None:
    assert written(InterruptionFrame()) == {"type": "clear"}
    assert written(MarkFrame("greeted")) == {"type": "mark", "name": "greeted"}


@pytest.mark.parametrize("name", ["", "x" * 129])
def test_a_mark_that_eslbot_would_not_take_is_refused_here(name: str) -> None:
    with pytest.raises(ValueError, match="1 to 128"):
        MarkFrame(name)


def test_the_end_has_properties_and_a_reason() -> None:
    properties = {"agent_group": "sales", "score": 0.5, "vip": True}
    assert written(EndFrame(reason="wants to buy"), properties) == {
        "type": "end",
        "properties": properties,
        "reason": "wants to buy",
    }
    assert written(EndFrame()) == {"type": "end", "properties": {}}
    assert len(written(EndFrame(reason="x" * 500))["reason"]) == 200


def test_properties_that_json_does_not_know_do_not_keep_the_customer() -> None:
    end = written(EndFrame(), {"when": object(), ("a", "b"): 1})  # type: ignore[dict-item]
    assert end["type"] == "end" and end["properties"]["when"].startswith("<object")


def test_other_messages_go_as_they_are_and_rtvi_s_do_not_go() -> None:
    message = {"type": "caller_speech", "speaking": True}
    assert written(OutputTransportMessageUrgentFrame(message)) == message
    assert written(OutputTransportMessageUrgentFrame({"label": "rtvi-ai", "type": "bot-ready"})) is None
    assert written(CancelFrame()) is None and written(TextFrame("x")) is None


def test_the_caller_comes_at_the_pipeline_s_rate() -> None:
    frame = read(bytes(320))
    assert isinstance(frame, InputAudioRawFrame)
    assert (frame.audio, frame.sample_rate, frame.num_channels) == (bytes(320), 8000, 1)
    frame = read(bytes(32000), 16000, 8000)
    assert isinstance(frame, InputAudioRawFrame) and frame.sample_rate == 8000
    assert 15000 <= len(frame.audio) <= 16000


def test_on_hold_nobody_is_heard() -> None:
    """The PBX's music is a caller who speaks, for a detector; time goes on all the same."""

    async def go() -> list[bytes]:
        serializer = EslbotFrameSerializer(8000, {})
        await serializer.setup(Setup(8000))
        heard = []
        for message in ('{"type": "hold", "on": true}', '{"type": "hold", "on": false}'):
            await serializer.deserialize(message)
            frame = await serializer.deserialize(b"\x11" * 320)
            assert isinstance(frame, InputAudioRawFrame)
            heard.append(frame.audio)
        return heard

    assert asyncio.run(go()) == [bytes(320), b"\x11" * 320]


@pytest.mark.parametrize("digit", list("0123456789*#"))
def test_keys(digit: str) -> None:
    frame = read({"type": "dtmf", "digit": digit, "duration_ms": 120})
    assert isinstance(frame, InputDTMFFrame) and frame.button.value == digit


def test_marks_hold_and_a_line_that_is_back() -> None:
    frame = read({"type": "mark", "name": "greeted"})
    assert isinstance(frame, MarkPlayedFrame) and (frame.mark, frame.cleared) == ("greeted", False)
    frame = read({"type": "mark", "name": "greeted", "cleared": True})
    assert isinstance(frame, MarkPlayedFrame) and frame.cleared
    for on in (True, False):
        frame = read({"type": "hold", "on": on})
        assert isinstance(frame, HoldFrame) and frame.on is on
    assert isinstance(read(start(resumed=True)), LineResumedFrame)


@pytest.mark.parametrize(
    "message",
    [
        "not JSON",
        "[]",
        "7",
        '{"type": 7}',
        {},
        {"type": "tomorrow's"},
        {"type": "dtmf", "digit": "A"},
        {"type": "dtmf"},
        {"type": "dtmf", "digit": 5},
        {"type": "mark"},
        {"type": "hold", "on": "yes"},
        {"type": "cleared"},
        {"type": "error", "code": "queue_full"},
        "[" * 100_000,
    ],
)
def test_what_is_unknown_or_unfit_is_no_frame(message: str | dict[str, Any]) -> None:
    assert read(message) is None
