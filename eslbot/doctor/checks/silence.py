"""Whether RTP goes on while the bot is silent: PBXs hang up on a line without packets."""

from __future__ import annotations

from collections.abc import Iterator

from eslbot.doctor.checks.profile import restart
from eslbot.doctor.findings import Finding, error, ok, unknown, warning
from eslbot.doctor.rendering import actions
from eslbot.doctor.site import Site

_NONE = "while nothing is played FreeSWITCH sends no RTP at all, and PBXs hang up on that"


def sent(site: Site) -> Iterator[Finding]:
    """``send_silence_when_idle=-1`` before the first controller."""
    arrival = site.switch.contexts.get("ameyo")
    if arrival is None:
        yield unknown("send_silence_when_idle", "no context `ameyo` is loaded", "mend `dialplan` first")
        return
    reload = f"{site.render}, then `fs_cli -x reloadxml`; living calls keep what they have"
    value = ""
    for application, data in actions(arrival):
        if application == "socket":
            break
        if application in ("set", "export") and data.startswith("send_silence_when_idle="):
            value = data.partition("=")[2]
    if value in ("", "0"):
        yield error("send_silence_when_idle", value or "not set", _NONE, reload)
    elif value != "-1":
        yield warning(
            "send_silence_when_idle",
            f"{value} instead of -1",
            "comfort noise is sent instead of silence, and it was measured to disturb speech",
            reload,
        )
    else:
        yield ok("send_silence_when_idle", "-1: 50 packets of silence a second")
    held = site.switch.profile_settings
    if held and held.get("suppress-cng") != "true":
        yield warning(
            "the profile's suppress-cng",
            held.get("suppress-cng", "not set"),
            "comfort noise may be agreed on, and then silence is sent as no packets",
            restart(site),
        )
