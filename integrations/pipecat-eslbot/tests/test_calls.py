"""Whole calls: a real server, a real connection, a real pipeline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from pipecat.frames.frames import (
    ClientConnectedFrame,
    EndFrame,
    EndWorkerFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    OutputAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat_eslbot import Call, HoldFrame, LineResumedFrame, MarkFrame, MarkPlayedFrame
from served import Served, serving
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

#: 400 ms at 8,000 Hz.
SPEECH = bytes([1, 2]) * 3200


class Conversation(FrameProcessor):
    """Greets with speech and a mark; what it does with a key is the test's. Notes what it is told."""

    def __init__(self, call: Call, key: Callable[[Conversation], Awaitable[None]] | None = None) -> None:
        super().__init__()
        self.call, self.noted = call, list[str]()
        self.heard = 0
        self._key = key

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        match frame:
            case ClientConnectedFrame() if not self.call.start.resumed:
                await self.push_frame(OutputAudioRawFrame(SPEECH, self.call.start.sample_rate, 1))
                await self.push_frame(MarkFrame("greeted"))
            case InputAudioRawFrame():
                self.heard += len(frame.audio)
            case InputDTMFFrame() if self._key is not None:
                self.noted.append(frame.button.value)
                await self._key(self)
            case MarkPlayedFrame() | HoldFrame() | LineResumedFrame():
                self.noted.append(type(frame).__name__)
        await self.push_frame(frame, direction)


class House:
    """Calls, and how their conversations were."""

    def __init__(self, key: Callable[[Conversation], Awaitable[None]] | None = None, **options: Any) -> None:
        self.conversations: list[Conversation] = []
        self.disconnected = self.over = 0
        self.reasons: list[str] = []
        self._key, self._options = key, options

    async def bot(self, call: Call) -> None:
        conversation = Conversation(call, self._key)
        self.conversations.append(conversation)
        transport = call.transport()

        @transport.event_handler("on_client_disconnected")
        async def disconnected(*_: object) -> None:
            self.disconnected += 1

        pipeline = Pipeline([transport.input(), conversation, transport.output()])
        await call.run(call.worker(pipeline, **self._options))
        self.over += 1
        self.reasons.append(call.line.stop_reason)


async def end(conversation: Conversation) -> None:
    conversation.call.properties["key"] = conversation.noted[-1]
    await conversation.push_frame(EndWorkerFrame(reason="chosen"))


async def interrupt(conversation: Conversation) -> None:
    await conversation.broadcast_interruption()


async def crash(conversation: Conversation) -> None:
    raise ZeroDivisionError("planted")


async def give_up(conversation: Conversation) -> None:
    await conversation.push_error("the key of the service was revoked", force_treat_as_permanent=True)


KEY = {"type": "dtmf", "digit": "5", "duration_ms": 120}
ENDED = {"type": "stop", "reason": "ended"}


def play(
    bot: Callable[[Call], Awaitable[None]], call: Callable[[Served], Awaitable[None]], **options: Any
) -> None:
    async def go() -> None:
        async with asyncio.timeout(30), serving(bot, **options) as served:
            await call(served)

    asyncio.run(go())


async def until(look: Callable[[], object], seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not look():
            await asyncio.sleep(0.01)  # the other side of a real socket: there is no event to wait for


def test_a_call_from_the_greeting_to_the_end() -> None:
    house = House(end)

    async def call(served: Served) -> None:
        async with served.connection(before=b"\1\0" * 160) as eslbot:  # the caller's all the same
            assert await eslbot.until("mark") == {"type": "mark", "name": "greeted"}
            assert bytes(eslbot.heard) == SPEECH
            for message in ({"type": "mark", "name": "greeted"}, {"type": "hold", "on": True}, KEY):
                await eslbot.say(message)
            loop = asyncio.get_running_loop()
            pressed = loop.time()
            assert await eslbot.until("end") == {
                "type": "end",
                "properties": {"key": "5"},
                "reason": "chosen",
            }
            assert bytes(eslbot.heard) == SPEECH, "no two seconds of silence"
            assert loop.time() - pressed < 1.5
            await eslbot.say(ENDED)
        (conversation,) = house.conversations
        assert conversation.noted == ["MarkPlayedFrame", "HoldFrame", "5"]
        assert conversation.heard == 320

    play(house.bot, call)
    assert house.disconnected == 0


def test_an_interruption_is_clear_and_what_follows_is_heard() -> None:
    async def call(served: Served) -> None:
        async with served.connection() as eslbot:
            await eslbot.say(KEY)
            await eslbot.until("clear")
            await eslbot.say({"type": "stop", "reason": "caller_hangup"})

    house = House(interrupt)
    play(house.bot, call)
    assert house.reasons == ["caller_hangup"]


def test_a_pipeline_at_another_rate() -> None:
    async def call(served: Served) -> None:
        async with served.connection(rate=16000) as eslbot:
            await eslbot.until("mark")
            assert bytes(eslbot.heard) == SPEECH
            await eslbot.say({"type": "stop", "reason": "caller_hangup"})

    play(House().bot, call)


@pytest.mark.parametrize("fault", [crash, give_up])
def test_a_pipeline_that_crashes_has_failed(fault: Callable[[Conversation], Awaitable[None]]) -> None:
    async def call(served: Served) -> None:
        async with served.connection() as eslbot:
            await eslbot.until("mark")
            await eslbot.say(KEY)
            assert await eslbot.closed() == 1011
            assert all(told["type"] != "end" for told in eslbot.told)

    play(House(fault).bot, call)


def test_a_bot_may_go_on_after_an_error() -> None:
    async def call(served: Served) -> None:
        async with served.connection() as eslbot:
            for _ in range(2):
                await eslbot.say(KEY)
            await until(lambda: house.conversations and house.conversations[0].noted == ["5", "5"])
            await eslbot.say({"type": "stop", "reason": "caller_hangup"})

    house = House(crash, survive_errors=True)
    play(house.bot, call)


@pytest.mark.parametrize("raises", [True, False])
def test_a_bot_that_raises_or_just_returns_has_failed(raises: bool) -> None:
    async def bot(call: Call) -> None:
        if raises:
            raise ZeroDivisionError("planted")

    async def call(served: Served) -> None:
        async with served.connection() as eslbot:
            assert await eslbot.closed() == 1011

    play(bot, call)


def test_a_connection_that_breaks_is_followed_and_the_conversation_goes_on() -> None:
    house = House(end)

    async def call(served: Served) -> None:
        async with served.connection() as first:
            await first.until("mark")
            first.break_off()
        async with served.connection(resumed=True) as second:
            assert await second.until("mark") == {"type": "mark", "name": "greeted"}, "asked for again"
            await second.say({"type": "mark", "name": "greeted"})
            await second.say(KEY)
            assert (await second.until("end"))["properties"] == {"key": "5"}
            second.break_off()
        async with served.connection(resumed=True) as third:
            assert (await third.until("end"))["properties"] == {"key": "5"}, "said again"
            await third.say(ENDED)
        (conversation,) = house.conversations
        assert conversation.noted == ["LineResumedFrame", "MarkPlayedFrame", "5"]

    play(house.bot, call)
    assert house.disconnected == 0, "the pipeline has not noticed"


def test_a_call_that_was_another_process_s_is_told_as_resumed() -> None:
    house = House(end)

    async def call(served: Served) -> None:
        async with served.connection(resumed=True) as eslbot:
            await eslbot.say(KEY)
            await eslbot.until("end")
            assert not eslbot.heard, "it was greeted"
            await eslbot.say(ENDED)
        (conversation,) = house.conversations
        assert conversation.call.start.resumed

    play(house.bot, call)


def test_a_line_that_does_not_come_back_ends_the_pipeline() -> None:
    async def call(served: Served) -> None:
        async with served.connection() as eslbot:
            await eslbot.until("mark")
            eslbot.break_off()
        await until(lambda: house.over)

    house = House()
    play(house.bot, call, patience=0.05)


def test_a_call_that_is_begun_anew_has_a_conversation_of_its_own() -> None:
    async def call(served: Served) -> None:
        async with served.connection() as first, served.connection() as second:
            assert await first.closed() == 1011
            await second.until("mark")
            await second.say({"type": "stop", "reason": "caller_hangup"})
        assert len(house.conversations) == 2

    house = House()
    play(house.bot, call)


def test_two_calls_are_two_conversations() -> None:
    async def call(served: Served) -> None:
        async with served.connection(call_id="one") as one, served.connection(call_id="two") as two:
            await one.until("mark")
            await two.until("mark")
            await one.say(KEY)
            await one.until("end")
            await one.say(ENDED)
            await two.say({"type": "stop", "reason": "caller_hangup"})
        assert [conversation.noted for conversation in house.conversations] == [["5"], []]

    house = House(end)
    play(house.bot, call)


def test_only_who_has_the_authorization_is_let_in() -> None:
    async def call(served: Served) -> None:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            with pytest.raises(InvalidStatus) as refused:
                await connect(served.url, proxy=None, additional_headers=headers)
            assert refused.value.response.status_code == 403
        async with served.connection(Authorization="Bearer right") as eslbot:
            await eslbot.until("mark")
            await eslbot.say({"type": "stop", "reason": "caller_hangup"})

    play(House().bot, call, authorization="Bearer right")


def test_a_connection_that_is_none_of_eslbot_s_is_closed() -> None:
    async def call(served: Served) -> None:
        async with connect(served.url, proxy=None) as socket:
            await socket.send(json.dumps({"event": "connected"}))
            await socket.wait_closed()
            assert socket.close_code == 1002

    house = House()
    play(house.bot, call)
    assert house.conversations == []


def test_a_server_that_ends_gives_its_customers_to_agents() -> None:
    async def go() -> int | None:
        async with asyncio.timeout(30), serving(House().bot) as served:
            held = AsyncExitStack()
            eslbot = await held.enter_async_context(served.connection())
            await eslbot.until("mark")
            closed = asyncio.create_task(eslbot.closed())
        code = await closed
        await held.aclose()
        return code

    assert asyncio.run(go()) not in (None, 1000)


def test_the_operator_sees_when_the_caller_speaks() -> None:
    async def speak(conversation: Conversation) -> None:
        for frame in (VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame):
            await conversation.broadcast_frame(frame)

    async def call(served: Served) -> None:
        async with served.connection() as eslbot:
            await eslbot.until("mark")
            await eslbot.say(KEY)
            assert (await eslbot.until("caller_speech"))["speaking"] is True
            assert (await eslbot.until("caller_speech"))["speaking"] is False
            await eslbot.say({"type": "stop", "reason": "caller_hangup"})

    play(House(speak).bot, call)


@pytest.mark.parametrize("lead", [0.0, 10.0])
def test_speech_is_so_much_ahead_of_the_caller(lead: float) -> None:
    async def bot(call: Call) -> None:
        transport = call.transport(lead_secs=lead)
        worker = call.worker(Pipeline([transport.input(), transport.output()]))
        await worker.queue_frames([OutputAudioRawFrame(SPEECH * 4, 8000, 1), EndFrame()])
        await call.run(worker)

    async def call(served: Served) -> None:
        loop = asyncio.get_running_loop()
        async with served.connection() as eslbot:
            begun = loop.time()
            await eslbot.until("end")
            took = loop.time() - begun
            assert bytes(eslbot.heard) == SPEECH * 4
            assert took >= 1.5 if lead == 0.0 else took < 1.4
            await eslbot.say(ENDED)

    play(bot, call)


def test_an_end_frame_by_the_worker_is_an_end() -> None:
    async def bot(call: Call) -> None:
        transport = call.transport()
        worker = call.worker(Pipeline([transport.input(), transport.output()]))
        call.properties["why"] = "nothing to say"
        await worker.queue_frame(EndFrame())
        await call.run(worker)

    async def call(served: Served) -> None:
        async with served.connection() as eslbot:
            assert (await eslbot.until("end"))["properties"] == {"why": "nothing to say"}
            await eslbot.say(ENDED)

    play(bot, call)
