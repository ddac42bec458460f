"""A voice that needs no cloud: espeak-ng (Debian: espeak-ng). Stands where a real bot has its TTS service."""

import asyncio
from collections.abc import AsyncGenerator

from pipecat.frames.frames import ErrorFrame, Frame, TTSAudioRawFrame
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService

#: Bytes of the WAV header that espeak-ng writes, and its rate in Hz.
HEADER, RATE = 44, 22050


class Espeak(TTSService):
    """Speaks by a process of espeak-ng for each sentence."""

    def __init__(self) -> None:
        settings = TTSSettings(model=None, voice=None, language=None)
        super().__init__(push_start_frame=True, push_stop_frames=True, settings=settings)

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        """The sound of ``text``."""
        process = await asyncio.create_subprocess_exec(
            "espeak-ng", "--stdout", "--", text, stdout=asyncio.subprocess.PIPE
        )
        wav, _ = await process.communicate()
        if process.returncode:
            yield ErrorFrame(f"espeak-ng ended with {process.returncode}")
        else:
            yield TTSAudioRawFrame(wav[HEADER:], RATE, 1, context_id=context_id)
