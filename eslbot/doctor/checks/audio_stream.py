"""mod_audio_stream: that FreeSWITCH has its command.

Which edition it is does not matter: it only carries the caller to the relay beside it, and texts. What plays
is FreeSWITCH, and who speaks TLS to a bot is the relay.
"""

from __future__ import annotations

from collections.abc import Iterator

from eslbot.doctor.findings import Finding, error, ok, unknown
from eslbot.doctor.site import Site


def command(site: Site) -> Iterator[Finding]:
    """``uuid_audio_stream`` without arguments says how it is used."""
    if site.switch.modules.get("mod_audio_stream") is not True:
        yield unknown("uuid_audio_stream", "mod_audio_stream is not loaded", "mend `modules` first")
    elif not site.switch.answers.get("uuid_audio_stream", "").startswith("-USAGE"):
        yield error(
            "uuid_audio_stream",
            "FreeSWITCH does not know the command",
            "no bot can be connected",
            "install mod_audio_stream anew and restart FreeSWITCH when no call is up",
        )
    else:
        yield ok("uuid_audio_stream", "FreeSWITCH has it")
