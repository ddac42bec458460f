"""A bot as Pipecat's documentation has one begin, which knows nothing of eslbot: see ``subjects``.

Its runner, ``create_transport``, the defaults of its parameters; in Pipecat's own environment.
Listens on ``PORT``.
"""

import asyncio
import math
import os
import struct
import sys

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    ClientConnectedFrame,
    EndWorkerFrame,
    InputDTMFFrame,
    OutputAudioRawFrame,
    VADUserStartedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.audio.vad_processor import VADProcessor
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
    """What is said when."""

    def __init__(self) -> None:
        super().__init__()
        self.interrupted = False

    async def process_frame(self, frame, direction) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        match frame:
            case ClientConnectedFrame():
                await self.push_frame(tone(440, 3000))
            case VADUserStartedSpeakingFrame() if not self.interrupted:
                self.interrupted = True
                await self.broadcast_interruption()
                await self.push_frame(tone(550, 320))
            case InputDTMFFrame():
                await self.broadcast_interruption()
                await self.push_frame(tone({"1": 660, "2": 770}[frame.button.value], 400))
                await self.push_frame(EndWorkerFrame(reason="key pressed"))


async def bot(runner_args) -> None:
    parameters = FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True)
    transport = await create_transport(runner_args, {"twilio": lambda: parameters})
    hearing = VADProcessor(vad_analyzer=await asyncio.to_thread(SileroVADAnalyzer))
    worker = PipelineWorker(
        Pipeline([transport.input(), hearing, Conversation(), transport.output()]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
    )

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport, client) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()


if __name__ == "__main__":
    from pipecat.runner.run import main

    sys.argv += ["-t", "twilio", "-x", "localhost", "--host", "127.0.0.1", "--port", os.environ["PORT"]]
    main()
