"""The facts in a journal: one JSON object a line.

Each fact has ``call`` (FreeSWITCH's channel UUID), ``at`` (epoch seconds by this host's clock), ``what`` (one
of :class:`What`), and the fields that are named there. A reader ignores what it does not know, and takes a
missing field as not known: a journal may be of another version, and its last line half a line.
"""

from __future__ import annotations

from enum import StrEnum


class What(StrEnum):
    """What can happen to a call; the comments name the further fields."""

    #: The call is taken: `invited_at`, `workspace_id`, `workspace`, `did`, `crt_object_id`, `caller`,
    #: `called`, `source`, `sip_call_id`.
    ADMITTED = "admitted"
    #: The call is refused: `status`, `why`, `detail`, `source` and, as far as they could be read, those of
    #: ADMITTED.
    REFUSED = "refused"
    ANSWERED = "answered"  # the 200 is sent
    BOT_CONNECTING = "bot_connecting"
    BOT_CONNECTED = "bot_connected"
    BOT_RECONNECTED = "bot_reconnected"  # `why`
    SPEECH_BEGAN = "speech_began"  # the caller hears the bot
    SPEECH_ENDED = "speech_ended"  # `cut`: whether a barge-in ended it
    CALLER_SPEAKS = "caller_speaks"  # `speaking`: true or false; the bot says so
    CLEARED = "cleared"  # barge-in: the bot has asked for silence
    MARK = "mark"  # `name`, `cleared`: heard up to here, or never
    #: The caller stopped and the bot answered, or one spoke over the other (`docs/turns.md`): `number`,
    #: `kind`, `seconds`; `bot`, its own share of them; `by`, who began to speak over the other. These have a
    #: bound of their own.
    TURN = "turn"
    HOLD = "hold"  # `on`: the PBX has put the caller on hold, or taken them off it
    KEY = "key"  # the caller pressed one; which one is never recorded
    #: The relay records the call. Its end is no fact: it is the stream's, and nothing comes after that.
    RECORDING_BEGUN = "recording_begun"
    RECORDING_FAILED = "recording_failed"  # `why`: it ends before the call does, or never began
    BOT_ENDED = "bot_ended"  # `outcome`, `reason`
    ATTEMPT_BEGAN = "attempt_began"  # `number`: a notification goes out
    #: Its answer: `number`, `verdict`, `status`, `seconds`, `detail`. The first accepted one is the
    #: hand-off.
    ATTEMPT = "attempt"
    BYE_OVERDUE = "bye_overdue"
    #: Another controller, perhaps on another host, has taken it over: `stage`, `take_overs`, `attempts`,
    #: `held_since`, `outcome`, `reason` as noted on the channel; `invited_for` and `answered_for`, in seconds
    #: since then; ADMITTED's fields but `invited_at`.
    TAKEN_OVER = "taken_over"
    #: FreeSWITCH has died and is back with the call: `restarts` during the call, 8 at most; `gap`, the
    #: seconds without it, where they are known.
    SWITCH_RESTARTED = "switch_restarted"
    #: Another controller has it and cannot verify whose it is: `take_overs`, `sip_call_id`. It is left
    #: alone.
    NOT_VERIFIED = "not_verified"
    #: This controller has no connection to it any more, and another one must take it over: `why`.
    LEFT = "left"
    #: The channel is gone: `disposition`, `cause`, `outcome`, `handed_off`, `stage`, and `media`: an object
    #: with FreeSWITCH's figures of the RTP (packets, lost ones, jitter, MOS, codec).
    ENDED = "ended"
    TIMELINE_FULL = "timeline_full"  # no more is recorded of what bot and caller do


#: Facts that only the timeline shows. A call may have no more than MAX_TIMELINE of them.
OF_TIMELINE = frozenset(
    {What.SPEECH_BEGAN, What.SPEECH_ENDED, What.CALLER_SPEAKS, What.CLEARED, What.MARK, What.HOLD, What.KEY}
)
MAX_TIMELINE = 1000
