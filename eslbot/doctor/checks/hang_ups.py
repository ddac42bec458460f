"""Everything in FreeSWITCH's configuration that would send BYE to a living call."""

from __future__ import annotations

from collections.abc import Iterator

from eslbot.doctor.checks.profile import restart
from eslbot.doctor.findings import Finding, error, ok, unknown, warning
from eslbot.doctor.rendering import actions
from eslbot.doctor.site import Site

_BYE = "FreeSWITCH sends BYE to a living call: the customer is lost"
#: Applications that end a call, or set a clock to its end.
ENDS = frozenset({"hangup", "sched_hangup"})
#: Variables that do.
CLOCKS = frozenset({"park_timeout", "rtp_timeout_sec", "rtp_hold_timeout_sec", "media_hold_timeout"})


def settings(site: Site) -> Iterator[Finding]:
    """Session timers, RTP time-outs, watchdog, restart of the profile; clocks in the dialplan."""
    held = site.switch.profile_settings
    found = list(_profile(site, held)) if held else []
    if not held:
        found.append(unknown("the profile's timers", "FreeSWITCH holds no profile `ameyo`", "mend `profile`"))
    found += _dialplan(site)
    if not found:
        only = f"none; only a PBX silent for {site.config.freeswitch.media_timeout:g} s ends a call"
        found.append(ok("settings that send BYE", only))
    yield from found


def _profile(site: Site, held: dict[str, str]) -> Iterator[Finding]:
    timer = held.get("enable-timer", "not set")
    timeout = (site.switch.profile or {}).get("session-to", "0")
    if timer != "false" or timeout not in ("0", ""):
        details = [f"enable-timer: {timer}"]
        if timeout not in ("0", ""):
            details.append(f"session-timeout: {timeout} s")
        if "minimum-session-expires" in held:
            details.append(f"minimum-session-expires: {held['minimum-session-expires']} s")
        yield error(
            "session timers (RFC 4028)",
            "on (" + ", ".join(details) + ")",
            f"when the session is not refreshed in time: {_BYE}",
            restart(site),
        )
    for name in ("rtp-timeout-sec", "rtp-hold-timeout-sec"):
        if held.get(name, "0") != "0":
            yield error(
                f"the profile's {name}",
                f"{held[name]} s",
                f"a PBX that sends no RTP for so long, as on hold: {_BYE}",
                restart(site),
            )
    if held.get("watchdog-enabled", "false") != "false":
        yield error(
            "the profile's watchdog-enabled",
            held["watchdog-enabled"],
            "it aborts FreeSWITCH with all calls when SIP is slow",
            restart(site),
        )
    if held.get("auto-restart", "true") != "false":
        yield error(
            "the profile's auto-restart",
            held.get("auto-restart", "not set"),
            "a changed address of the host restarts the profile, which ends its calls",
            restart(site),
        )


def _dialplan(site: Site) -> Iterator[Finding]:
    reload = f"{site.render}, then `fs_cli -x reloadxml`; living calls keep what they have"
    for name, context in site.switch.contexts.items():
        for application, data in actions(context):
            variable, _, value = data.partition("=")
            is_clock = application in ("set", "export") and variable in CLOCKS and value not in ("", "0")
            if application in ENDS or is_clock:
                yield error(f"the dialplan's context {name}", f"{application} {data}".strip(), _BYE, reload)
    arrival = site.switch.contexts.get("ameyo")
    if arrival is None:
        return
    wanted = str(round(site.config.freeswitch.media_timeout * 1000))
    values = [
        data.partition("=")[2]
        for application, data in actions(arrival)
        if application == "set" and data.startswith("media_timeout=")
    ]
    value = values[-1] if values else ""
    if value == wanted:
        return
    if value.isdecimal() and 0 < int(value) < int(wanted):
        yield error(
            "the dialplan's media_timeout",
            f"{value} ms instead of {wanted}",
            f"a PBX that sends no RTP for {int(value) / 1000:g} s: {_BYE}",
            reload,
        )
    else:
        yield warning(
            "the dialplan's media_timeout",
            f"{value or 'not set'} instead of {wanted} (ms)",
            "the call of a PBX that vanished stays longer than freeswitch.media_timeout says, or for ever",
            reload,
        )
