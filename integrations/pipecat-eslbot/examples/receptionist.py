"""A receptionist without any cloud: speaks, can be interrupted, takes a key, gives the caller to an agent."""

import asyncio
import os

from espeak import Espeak
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames import frames
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat_eslbot import Call, run


class Receptionist(FrameProcessor):
    """What is said when."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call = call

    async def process_frame(self, frame: frames.Frame, direction: FrameDirection) -> None:
        """Listen to the caller; every frame is passed on."""
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        match frame:
            case frames.ClientConnectedFrame() if not self.call.start.resumed:
                await self.push_frame(frames.TTSSpeakFrame("Welcome. Press a key, please."))
            case frames.VADUserStartedSpeakingFrame():
                await self.broadcast_interruption()
            case frames.VADUserStoppedSpeakingFrame():
                await self.push_frame(frames.TTSSpeakFrame("I only understand keys. Please press one."))
            case frames.InputDTMFFrame():
                self.call.properties["key"] = frame.button.value
                await self.broadcast_interruption()
                await self.push_frame(frames.TTSSpeakFrame("Thank you. One moment, please."))
                await self.push_frame(frames.EndWorkerFrame(reason="the caller has pressed a key"))


async def bot(call: Call) -> None:
    """One call."""
    # Loading the model takes a tenth of a second, in which nobody else's speech would be sent.
    hearing = VADProcessor(vad_analyzer=await asyncio.to_thread(SileroVADAnalyzer))
    transport = call.transport()
    steps = [transport.input(), hearing, Receptionist(call), Espeak(), transport.output()]
    await call.run(call.worker(Pipeline(steps)))


if __name__ == "__main__":
    run(bot, port=int(os.environ.get("PORT", "7860")))
