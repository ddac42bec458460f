"""A bot with an LLM, as the README has it: it speaks first, and its tool hands the caller over."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    FunctionCallResultProperties,
    LLMRunFrame,
    TTSAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat_eslbot import Call
from served import serving

#: 400 ms.
SPEECH = bytes([1, 2]) * 3200


class Voice(TTSService):
    """Says the same whatever it is to say."""

    def __init__(self) -> None:
        settings = TTSSettings(model=None, voice=None, language=None)
        super().__init__(push_start_frame=True, push_stop_frames=True, settings=settings)

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        yield TTSAudioRawFrame(SPEECH, 8000, 1, context_id=context_id)


@asynccontextmanager
async def model() -> AsyncIterator[str]:
    """An LLM that says a sentence and calls ``hand_over``; the URL of its API."""
    arguments = json.dumps({"group": "sales", "summary": "Wants to buy."})
    tool = {"index": 0, "id": "c1", "type": "function"}
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": "I will get somebody for you."},
        {"tool_calls": [{**tool, "function": {"name": "hand_over", "arguments": arguments}}]},
    ]

    async def complete(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for delta in deltas:
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "stub"}
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            await answer.write(f"data: {json.dumps({**chunk, 'choices': [choice]})}\n\n".encode())
        await answer.write(b"data: [DONE]\n\n")
        return answer

    app = web.Application()
    app.router.add_post("/chat/completions", complete)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def test_an_llm_s_tool_hands_the_caller_over() -> None:
    async def go() -> None:
        async def bot(call: Call) -> None:
            async def hand_over(params: FunctionCallParams, group: str, summary: str) -> None:
                """Give the caller to an agent.

                Args:
                    group: sales or support.
                    summary: what the caller wants, in a sentence.
                """
                call.properties.update(agent_group=group, summary=summary)
                done = FunctionCallResultProperties(run_llm=False)
                await params.result_callback({"done": True}, properties=done)
                await worker.queue_frame(EndFrame(reason="the caller wants an agent"))

            transport = call.transport()
            role = OpenAILLMService.Settings(system_instruction="You answer the phone.")
            llm = OpenAILLMService(api_key="none", base_url=url, settings=role)
            context = LLMContext(tools=[hand_over])
            user, assistant = LLMContextAggregatorPair(context)
            steps = [transport.input(), user, llm, Voice(), transport.output(), assistant]
            worker = call.worker(Pipeline(steps))
            await worker.queue_frame(LLMRunFrame())
            await call.run(worker)

        async with model() as url, serving(bot) as served, served.connection() as eslbot:
            end = await eslbot.until("end", 20)
            assert end["properties"] == {"agent_group": "sales", "summary": "Wants to buy."}
            assert bytes(eslbot.heard) == SPEECH, "its words are heard before the end"
            await eslbot.say({"type": "stop", "reason": "ended"})

    asyncio.run(asyncio.wait_for(go(), 60))
