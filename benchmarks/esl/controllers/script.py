"""The commands of the call script, the same for every controller but eslbot, which has its own story."""

from __future__ import annotations

EVENTS = (
    "event plain CHANNEL_EXECUTE_COMPLETE CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE CUSTOM "
    "mod_audio_stream::connect mod_audio_stream::disconnect mod_audio_stream::error "
    "mod_audio_stream::json mod_audio_stream::play"
)
ANSWER = "sendmsg\ncall-command: execute\nexecute-app-name: answer\nevent-lock: true"


def start(uuid: str) -> str:
    """Start the audio stream."""
    return f"api uuid_audio_stream {uuid} start ws://127.0.0.1:9/ mono 8000"


def marker(uuid: str) -> str:
    """What tells the load generator that the bot's end has come: from now on the call is held."""
    return f"api uuid_setvar {uuid} eslbot_stage held"
