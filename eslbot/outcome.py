"""How a call came to its hand-off or its end: the words of logs, metrics and ``{outcome}``."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """Why the bot's part of a call is over, and with it what the agent may want to know."""

    BOT_ENDED = "bot_ended"  # the bot said `end`
    BOT_CLOSED = "bot_closed"  # close 1000, which means the same
    BOT_UNREACHABLE = "bot_unreachable"  # no URL of the bot's took the connection
    BOT_FAILED = "bot_failed"  # its socket ended in any other way
    BOT_SILENT = "bot_silent"  # no audio within first_audio_timeout
    RELAY_LOST = "relay_lost"  # no relay carried its line any more
    SWITCH_LOST = "switch_lost"  # FreeSWITCH has died again and again under it
    MAX_DURATION = "max_duration"  # the workspace's bound
    CONTROLLER_LOST = "controller_lost"  # a worker went away, and how the bot had ended with it
    INTERNAL_ERROR = "internal_error"  # a fault of ours, told in the log
    CALLER_HANGUP = "caller_hangup"  # the caller left before the bot ended: no hand-off
    MEDIA_TIMEOUT = "media_timeout"  # the PBX vanished without BYE before the bot ended
    OUR_BYE = "our_bye"  # our side sent BYE before the bot ended: an alarm, its cause is told


class Stage(StrEnum):
    """Where a call is in its story; written to the channel variable ``eslbot_stage``."""

    ADMITTED = "admitted"
    ANSWERED = "answered"
    CONNECTING = "connecting"  # to the bot
    TALKING = "talking"
    ENDED = "ended"  # the bot's part is over, but its last words may still be playing
    HANDING_OFF = "handing_off"
    HELD = "held"


class Fault(StrEnum):
    """At whose door a call's end lies that was not what everybody wanted."""

    NONE = "none"  # the bot did its part and Ameyo took the customer, or the caller left before
    BOT = "bot"
    AMEYO = "ameyo"  # it has not accepted the notification
    PBX = "pbx"  # it vanished, or its INVITE was none of ours
    ESLBOT = "eslbot"  # ours


_FAULTS = {
    Outcome.BOT_UNREACHABLE: Fault.BOT,
    Outcome.BOT_FAILED: Fault.BOT,
    Outcome.BOT_SILENT: Fault.BOT,
    Outcome.RELAY_LOST: Fault.ESLBOT,
    Outcome.SWITCH_LOST: Fault.ESLBOT,
    Outcome.CONTROLLER_LOST: Fault.ESLBOT,
    Outcome.INTERNAL_ERROR: Fault.ESLBOT,
    Outcome.MEDIA_TIMEOUT: Fault.PBX,
    Outcome.OUR_BYE: Fault.ESLBOT,
}


def fault_of(outcome: Outcome, *, handed_off: bool, ameyo_failed: bool, disposition: str) -> Fault:
    """Whose fault the end of an answered call was; our BYE to a living call is the worst of all.

    ``ameyo_failed`` says whether a notification was tried and not accepted.
    """
    if disposition == "send_bye" and outcome is not Outcome.MEDIA_TIMEOUT:
        return Fault.ESLBOT
    fault = _FAULTS.get(outcome, Fault.NONE)
    if fault is Fault.NONE and ameyo_failed and not handed_off:
        return Fault.AMEYO
    return fault
