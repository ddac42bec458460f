"""FreeSWITCH's core: that it runs, what it has loaded, what it admits at most."""

from __future__ import annotations

import re
from collections.abc import Iterator

from eslbot.doctor.findings import Finding, error, note, ok, unknown, warning
from eslbot.doctor.rendering import settings
from eslbot.doctor.site import Site
from eslbot.doctor.switch_state import MODULES
from eslbot.telemetry import redaction

_RESTART = "restart FreeSWITCH when no call is up (systemctl restart freeswitch)"
_NEEDED_FOR = {
    "mod_commands": "eslbot's commands (uuid_…)",
    "mod_dptools": "answering, playing, refusing",
    "mod_dialplan_xml": "the dialplan",
    "mod_sndfile": "the bot's speech: line files; and hold sounds",
    "mod_tone_stream": 'hold_sound = "tone"',
    "mod_audio_stream": "the caller's way to the bot",
    "mod_event_socket": "eslbot's hold on the calls",
    "mod_sofia": "SIP",
}
#: Settings of switch.conf that have a finding of their own, here or in ``rtp``.
_ELSEWHERE = {"rtp-start-port", "rtp-end-port", "max-sessions", "sessions-per-second", "loglevel"}


def running(site: Site) -> Iterator[Finding]:
    """It is ready and not paused; version and uptime."""
    answers = site.switch.answers
    status = answers.get("status", "")
    version = re.search(r"Version (\d+)\.(\d+)\S*", answers.get("version", ""))
    uptime = re.search(r"^UP (.+?), \d+ milliseconds", status)
    if " is ready" not in status:
        yield error(
            "FreeSWITCH",
            redaction.beginning(status, 200) or "no answer to `status`",
            "it takes no calls",
            "look into its log, and restart it when no call is up",
        )
    else:
        lived = re.sub(r"\b0 (years|days|hours|minutes), ", "", uptime[1]) if uptime else "for a time unknown"
        name = version[0].removeprefix("Version ").partition("~")[0] if version else "of an unknown version"
        yield ok("FreeSWITCH", f"{name}, up {lived}")
    if answers.get("fsctl pause_check inbound") == "true":
        yield error(
            "FreeSWITCH",
            "paused: new calls are refused with 503",
            "customers are not taken",
            "fs_cli -x 'fsctl resume inbound'",
        )
    if answers.get("fsctl shutdown_check") == "true":
        yield error(
            "FreeSWITCH",
            "about to shut down",
            "it takes no new calls, and ends when the last one does",
            "fs_cli -x 'fsctl shutdown cancel', or wait and start it again",
        )
    if version and (int(version[1]), int(version[2])) < (1, 10):
        yield warning(
            "FreeSWITCH's version", version[0], "eslbot is tested with 1.10 and 1.11", "upgrade FreeSWITCH"
        )


def modules(site: Site) -> Iterator[Finding]:
    """Everything that a call needs is loaded."""
    loaded = site.switch.modules
    tone = any(workspace.hold_sound == "tone" for workspace in site.config.workspaces.values())
    needed = [name for name in MODULES if name != "mod_tone_stream" or tone]
    missing = [name for name in needed if loaded.get(name) is False]
    for name in missing:
        yield error(
            name,
            "is not loaded",
            f"needed for {_NEEDED_FOR[name]}",
            f"install it, look that autoload_configs/modules.conf.xml loads it, and `fs_cli -x 'load {name}'`"
            "; FreeSWITCH's log says why a module does not load",
        )
    if not loaded:
        yield error(
            "mod_commands",
            "FreeSWITCH does not know `module_exists`: it is not loaded",
            f"needed for {_NEEDED_FOR['mod_commands']}; and no other module can be asked about",
            f"{site.render}, then {_RESTART}",
        )
    elif not missing:
        yield ok("modules", f"{len(needed)} loaded: {', '.join(needed)}")


def limits(site: Site) -> Iterator[Finding]:
    """Sessions at most and new ones a second, against what the configuration admits; logging."""
    calls = site.calls
    expected = settings(site.expected.configuration("switch.conf"))
    most = site.switch.number("fsctl max_sessions")
    if most is None:
        yield unknown("max-sessions", "FreeSWITCH did not say")
    elif most < calls:
        yield error(
            "max-sessions",
            f"{most}, while eslbot admits {calls} calls",
            "FreeSWITCH refuses calls with 503 that eslbot would take",
            f"{site.render} (it sets {expected['max-sessions']}), then {_RESTART}; at once: "
            f"fs_cli -x 'fsctl max_sessions {expected['max-sessions']}'",
        )
    else:
        yield ok("max-sessions", f"{most} for {calls} calls")
    rate, wanted = site.switch.number("fsctl sps"), int(expected["sessions-per-second"])
    if rate is None:
        yield unknown("sessions-per-second", "FreeSWITCH did not say")
    elif rate < wanted:
        yield warning(
            "sessions-per-second",
            f"{rate} instead of {wanted}",
            "what a burst of calls brings beyond it is refused with 503",
            f"{site.render}, then {_RESTART}; at once: fs_cli -x 'fsctl sps {wanted}'",
        )
    else:
        yield ok("sessions-per-second", str(rate))
    yield from _core_settings(site, expected)


def _core_settings(site: Site, expected: dict[str, str]) -> Iterator[Finding]:
    running = site.switch.core_settings
    if not running:
        yield unknown("switch.conf", "FreeSWITCH's configuration could not be read (xml_locate)")
        return
    level = running.get("loglevel", "debug").lower()
    if level in ("info", "6", "7") or level.startswith("debug"):
        yield warning(
            "switch.conf loglevel",
            level,
            "at info and beyond FreeSWITCH logs what bots and customers say",
            f"{site.render}, then {_RESTART}; at once: fs_cli -x 'fsctl loglevel notice'",
        )
    for name in sorted(expected.keys() - _ELSEWHERE):
        if running.get(name) != expected[name]:
            yield note(
                f"switch.conf {name}",
                f"{running.get(name, 'not set')} instead of {expected[name]}",
                "a core file holds every secret in memory" if name == "dump-cores" else "not as rendered",
                f"{site.render}, then {_RESTART}",
            )
