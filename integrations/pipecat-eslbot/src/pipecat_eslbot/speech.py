"""When the caller speaks, for the operator's timeline of the call."""

from __future__ import annotations

import json

from pipecat.frames.frames import (
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.observers.base_observer import BaseObserver, FramePushed

from pipecat_eslbot.line import Line


class CallerSpeechObserver(BaseObserver):
    """Tells eslbot when the pipeline hears the caller begin to speak, and stop (``caller_speech``)."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self._line = line
        self._speaking = False

    async def on_push_frame(self, data: FramePushed) -> None:
        """See each frame at each step of its way; a change is told once."""
        match data.frame:
            case VADUserStartedSpeakingFrame() | UserStartedSpeakingFrame():
                speaking = True
            case VADUserStoppedSpeakingFrame() | UserStoppedSpeakingFrame():
                speaking = False
            case _:
                return
        if speaking is not self._speaking:
            self._speaking = speaking
            await self._line.send_text(json.dumps({"type": "caller_speech", "speaking": speaking}))
