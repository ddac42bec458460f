"""All checks, in the order of the report."""

from __future__ import annotations

from eslbot.botcheck.checks import audio, connection, conversation, ends, messages, resuming, two_calls
from eslbot.botcheck.findings import Check

CHECKS: tuple[Check, ...] = (
    connection.upgrade,
    connection.ping,
    connection.early_audio,
    connection.hostile_caller,
    messages.unknown_message,
    messages.unknown_field,
    messages.error_message,
    messages.resumed_message,
    messages.stray_cleared,
    messages.stray_mark,
    messages.dtmf,
    messages.own_messages,
    messages.streams,
    conversation.first_word,
    conversation.marks,
    conversation.barge_in,
    conversation.hold,
    conversation.silent_caller,
    conversation.audio_pause,
    audio.formats,
    audio.whole_samples,
    audio.pacing,
    audio.bounds,
    resuming.resume_before_speech,
    resuming.resume_in_speech,
    resuming.resume_after_shutdown,
    resuming.resume_after_end,
    two_calls.two_calls,
    ends.end,
    ends.close_code,
    ends.hang_up,
    ends.tcp_end,
)

#: By their names.
NAMES = {check.name: check for check in CHECKS}
