"""How a call came to its hand-off or its end: the words of logs, metrics and ``{outcome}``."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """Why the bot's part of a call is over, and with it what the agent may want to know."""

    BOT_ENDED = "bot_ended"  # the bot said `end`
    BOT_CLOSED = "bot_closed"  # close 1000, which means the same
    BOT_UNREACHABLE = "bot_unreachable"  # no URL of the bot's took the stream
    BOT_FAILED = "bot_failed"  # its socket ended in any other way
    BOT_SILENT = "bot_silent"  # no audio within first_audio_timeout
    MAX_DURATION = "max_duration"  # the workspace's bound
    CONTROLLER_LOST = "controller_lost"  # a worker went away, and how the bot had ended with it
    INTERNAL_ERROR = "internal_error"  # a fault of ours, told in the log
    CALLER_HANGUP = "caller_hangup"  # the caller left before the bot ended: no hand-off
    MEDIA_TIMEOUT = "media_timeout"  # the PBX vanished without BYE before the bot ended


class Stage(StrEnum):
    """Where a call is in its story; written to the channel variable ``eslbot_stage``."""

    ADMITTED = "admitted"
    ANSWERED = "answered"
    CONNECTING = "connecting"  # to the bot
    TALKING = "talking"
    ENDED = "ended"  # the bot's part is over, but its last words may still be playing
    HANDING_OFF = "handing_off"
    HELD = "held"
