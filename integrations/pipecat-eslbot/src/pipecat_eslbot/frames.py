"""What a telephone line tells and takes beyond Pipecat's own frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipecat.frames.frames import OutputTransportMessageFrame, SystemFrame

#: Characters of a mark's name.
MAX_MARK = 128


@dataclass
class MarkFrame(OutputTransportMessageFrame):
    """Asks to be told when the caller has heard everything before it; push it behind the speech.

    It comes back as :class:`MarkPlayedFrame`. One that an interruption overtakes within the pipeline is
    dropped with its speech, and does not come back.

    Parameters:
        mark: 1 to 128 characters, the bot's own; need not be unique. Raises ValueError.
    """

    message: Any = field(init=False)
    mark: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= len(self.mark) <= MAX_MARK:
            raise ValueError(f"a mark has 1 to {MAX_MARK} characters, not {len(self.mark)}")
        self.message = {"type": "mark", "name": self.mark}


@dataclass
class MarkPlayedFrame(SystemFrame):
    """The caller has heard everything up to a :class:`MarkFrame`; comes from the transport's input.

    Parameters:
        mark: its name.
        cleared: it was not heard: an interruption dropped it, or the caller was on hold.
    """

    mark: str
    cleared: bool = False


@dataclass
class HoldFrame(SystemFrame):
    """The PBX has put the caller on hold, or taken them off it.

    Parameters:
        on: while it is True, what comes as the caller's audio is the PBX's music, or nothing.
    """

    on: bool


@dataclass
class LineResumedFrame(SystemFrame):
    """The connection broke in mid-call and is there again; the conversation goes on.

    What the caller said and pressed in between is lost, a second or so. What the bot said meanwhile is not.
    """
