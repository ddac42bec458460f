"""A bot for Pipecat, as its documentation has one begin: runner, ``create_transport``, pipeline; no cloud.

Runs in Pipecat's own environment, which knows nothing of eslbot: ``python pipecat_bot.py -t twilio --host
127.0.0.1 --port 7860 -x localhost``. It says 440 Hz for 600 ms when somebody is there, listens until it has
had 500 ms of them, interrupts itself in the midst of five seconds of speech, says 880 Hz for 400 ms and ends.
"""

import asyncio
import math
import struct

from pipecat.frames.frames import (
    EndFrame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.runner.utils import create_transport
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner

RATE = 8000


def tone(frequency: int, milliseconds: int) -> OutputAudioRawFrame:
    step = 2 * math.pi * frequency / RATE
    samples = [round(8000 * math.sin(step * n)) for n in range(RATE * milliseconds // 1000)]
    return OutputAudioRawFrame(struct.pack(f"<{len(samples)}h", *samples), RATE, 1)


class Conversation(FrameProcessor):
    """What the bot says when; told with ``print``, so that a test can read it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = 0.0
        self.listening = asyncio.Event()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.heard += len(frame.audio) / 2 / frame.sample_rate
            if self.heard >= 0.5:
                self.listening.set()
            return  # an echo would hide what the bot says
        if isinstance(frame, InputDTMFFrame):
            print(f"KEY {frame.button.value}", flush=True)
        await self.push_frame(frame, direction)

    async def talk(self, worker: PipelineWorker) -> None:
        await self.push_frame(tone(440, 600))
        await self.listening.wait()
        await asyncio.sleep(0.7)
        await self.push_frame(tone(440, 5000))
        await asyncio.sleep(0.5)
        await self.push_frame(InterruptionFrame())
        await self.push_frame(tone(880, 400))
        await worker.queue_frames([EndFrame()])


async def bot(runner_args):
    transport = await create_transport(
        runner_args,
        {
            name: lambda: FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True)
            for name in ("twilio", "exotel", "plivo")
        },
    )
    print(f"CALL {runner_args.transport_type} {runner_args.call_data.body}", flush=True)
    conversation = Conversation()
    worker = PipelineWorker(
        Pipeline([transport.input(), conversation, transport.output()]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
    )
    tasks = []

    @transport.event_handler("on_client_connected")
    async def on_client_connected(transport, client):
        tasks.append(asyncio.create_task(conversation.talk(worker)))

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client):
        print("GONE", flush=True)
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
