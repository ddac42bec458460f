"""A bot for Pipecat on ``pipecat-eslbot``, without a cloud. Listens on ``PORT``.

It says 440 Hz for three seconds and asks to be told when they were heard; 550 Hz where the caller interrupts
them by speaking (Silero's VAD); on a key 660 Hz and the end, with properties. The key 0 makes its pipeline
crash. What it is told it prints, with the call's CRT Object ID, so that a test can read it.
"""

import asyncio
import math
import os
import struct

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import (
    ClientConnectedFrame,
    EndWorkerFrame,
    Frame,
    InputDTMFFrame,
    OutputAudioRawFrame,
    VADUserStartedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat_eslbot import Call, LineResumedFrame, MarkFrame, MarkPlayedFrame, run

RATE = 8000
GROUPS = {"1": "sales", "2": "support"}


def tone(frequency: int, milliseconds: int) -> OutputAudioRawFrame:
    step = 2 * math.pi * frequency / RATE
    samples = [round(8000 * math.sin(step * n)) for n in range(RATE * milliseconds // 1000)]
    return OutputAudioRawFrame(struct.pack(f"<{len(samples)}h", *samples), RATE, 1)


class Conversation(FrameProcessor):
    """What is said when."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call
        self.greeting = "not heard"

    def tell(self, *words: str) -> None:
        print(self.call.start.crt_object_id, *words, flush=True)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        match frame:
            case ClientConnectedFrame() if not self.call.start.resumed:
                self.tell("GREETS")
                await self.push_frame(tone(440, 3000))
                await self.push_frame(MarkFrame("greeted"))
            case MarkPlayedFrame():
                self.tell("HEARD", frame.mark)
                self.greeting = "interrupted" if frame.cleared else "heard"
            case VADUserStartedSpeakingFrame() if self.greeting == "not heard":
                self.greeting = "interrupted"
                await self.broadcast_interruption()
                await self.push_frame(tone(550, 320))
            case LineResumedFrame():
                self.tell("RESUMED")
            case InputDTMFFrame():
                await self.key(frame.button.value)

    async def key(self, digit: str) -> None:
        self.tell("KEY", digit)
        if digit == "0":
            raise RuntimeError("the test has pressed 0")
        summary = f"pressed {digit}, greeting {self.greeting}"
        self.call.properties |= {"agent_group": GROUPS.get(digit, "general"), "summary": summary}
        await self.broadcast_interruption()
        await self.push_frame(tone(660, 400))
        await self.push_frame(EndWorkerFrame(reason="key pressed"))


async def bot(call: Call) -> None:
    # Loading the model takes 100 ms, in which nobody else's speech would be sent.
    hearing = VADProcessor(vad_analyzer=await asyncio.to_thread(SileroVADAnalyzer))
    transport = call.transport()
    steps = [transport.input(), hearing, Conversation(call), transport.output()]
    await call.run(call.worker(Pipeline(steps)))


if __name__ == "__main__":
    run(bot, port=int(os.environ["PORT"]))
