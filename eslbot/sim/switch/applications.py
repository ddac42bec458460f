"""Dialplan applications, by name (mod_dptools.c, switch_ivr_play_say.c)."""

from __future__ import annotations

from .audio import open_sound
from .causes import PHRASES, named, of_status
from .channel import Application, Channel
from .sip_message import MAX_MESSAGE
from .wire import leading_number


async def _answer(channel: Channel, argument: str) -> None:
    await channel.answer_late()


async def _pre_answer(channel: Channel, argument: str) -> None:
    channel.pre_answer()


async def _playback(channel: Channel, argument: str) -> None:
    channel.pre_answer()  # an application that needs media makes early media (switch_core_session.c)
    ended = await _play(channel, argument.partition("@@")[0])
    channel.variables.set("current_application_response", "FILE PLAYED" if ended else "FILE NOT FOUND")


async def _play(channel: Channel, name: str) -> str:
    """Play once (switch_ivr_play_file); why it ended, as :meth:`Channel.dwell` says; "" for no such sound."""
    sound = open_sound(name)
    if sound is None:
        return ""
    channel.fire("PLAYBACK_START", [("Playback-File-Path", name)])
    playing = channel.media.play(sound)
    ended = await channel.dwell(until=playing)
    channel.media.stop_playing(playing)
    status = "done" if ended == "done" else "break"
    for variable, a_second in (("playback_seconds", 1), ("playback_ms", 1000), ("playback_samples", 8000)):
        channel.variables.set(variable, str(sound.played * a_second // 8000))
    channel.fire("PLAYBACK_STOP", [("Playback-File-Path", name), ("Playback-Status", status)])
    return ended


async def _endless_playback(channel: Channel, argument: str) -> None:
    # Even a break only begins it anew (mod_dptools.c); what ends it is the channel's end or reset.
    channel.pre_answer()
    while True:
        ended = await _play(channel, argument)
        channel.unbreak()
        if ended in ("", "hangup", "reset"):
            break
    channel.variables.set("current_application_response", "FILE PLAYED" if ended else "FILE NOT FOUND")


async def _sleep(channel: Channel, argument: str) -> None:
    await channel.dwell(seconds=min(leading_number(argument), 86_400_000) / 1000)


async def _park(channel: Channel, argument: str) -> None:
    # "Cannot park channels that are under control already": within `socket` the channel is parked anyway.
    return


async def _set(channel: Channel, argument: str) -> None:
    name, separator, value = argument.partition("=")
    if not separator:
        name, _, value = argument.partition(",")
    if name:
        channel.variables.set(name.strip(), value)


async def _multiset(channel: Channel, argument: str) -> None:
    delimiter = " "
    if argument.startswith("^^") and len(argument) > 3:
        delimiter, argument = argument[2], argument[3:]
    for part in argument.split(delimiter)[:256]:
        await _set(channel, part)


async def _export(channel: Channel, argument: str) -> None:
    await _set(channel, argument.removeprefix("nolocal:"))


async def _unset(channel: Channel, argument: str) -> None:
    channel.variables.set(argument.strip(), None)


async def _multiunset(channel: Channel, argument: str) -> None:
    for name in argument.split():
        channel.variables.set(name, None)


async def _respond(channel: Channel, argument: str) -> None:
    code = leading_number(argument) or 488
    reason = argument.partition(" ")[2].strip() or PHRASES.get(code, "Because")
    if code >= 300:
        channel.refuse(code, reason[:MAX_MESSAGE], of_status(code))
    elif code in (180, 183):
        channel.pre_answer()


async def _hangup(channel: Channel, argument: str) -> None:
    channel.hangup(named(argument))


async def _nothing(channel: Channel, argument: str) -> None:
    return


#: Any other name hangs up with DESTINATION_OUT_OF_ORDER, as in FreeSWITCH.
APPLICATIONS: dict[str, Application] = {
    "answer": _answer,
    "pre_answer": _pre_answer,
    "playback": _playback,
    "endless_playback": _endless_playback,
    "sleep": _sleep,
    "park": _park,
    "set": _set,
    "multiset": _multiset,
    "export": _export,
    "unset": _unset,
    "multiunset": _multiunset,
    "respond": _respond,
    "hangup": _hangup,
    "info": _nothing,
    "log": _nothing,
}
