"""The SIP profile: running where it should, its codecs, and everything in it that no other check looks at."""

from __future__ import annotations

from collections.abc import Iterator

from eslbot.doctor.findings import Finding, error, ok, unknown, warning
from eslbot.doctor.rendering import settings
from eslbot.doctor.site import Site
from eslbot.doctor.switch_state import PROFILE, profile_of

#: Settings that ``acl``, ``nat``, ``hang-ups``, ``silence`` and ``recovery`` look at.
_ELSEWHERE = frozenset(
    {
        "apply-inbound-acl",
        "auth-calls",
        "ext-sip-ip",
        "ext-rtp-ip",
        "enable-timer",
        "session-timeout",
        "minimum-session-expires",
        "rtp-timeout-sec",
        "rtp-hold-timeout-sec",
        "watchdog-enabled",
        "auto-restart",
        "suppress-cng",
        "track-calls",
    }
)
#: Those that :func:`running` has looked at already, in the profile as it runs.
_TOLD = frozenset({"context", "inbound-codec-prefs", "sip-ip", "sip-port"})
_WHY = {
    "context": "calls land in another dialplan",
    "dialplan": "calls land in another dialplan",
    "disable-transfer": "a peer may move our customer by REFER",
    "manual-redirect": "a peer may send the call elsewhere by a redirect",
    "enable-3pcc": "an INVITE without an offer is taken",
    "inbound-codec-prefs": "the PBX and eslbot speak PCMU and PCMA only",
    "outbound-codec-prefs": "the PBX and eslbot speak PCMU and PCMA only",
    "inbound-late-negotiation": "an offer without G.711 reaches eslbot instead of being refused with 488",
    "inbound-codec-negotiation": "the PBX's first choice of PCMU and PCMA is not taken",
    "rtp-timer-name": "speech is not paced",
    "dtmf-type": "keys are not heard",
    "rfc2833-pt": "keys are not heard",
    "liberal-dtmf": "keys sent by SIP INFO are not heard",
    "apply-candidate-acl": "a PBX with ICE is refused where all its candidates are private",
    "shutdown-on-fail": "a FreeSWITCH whose SIP address is taken comes up deaf",
    "disable-register": "strangers may register",
    "sip-options-respond-503-on-busy": "the PBX does not learn by OPTIONS that this switch is full",
}
_G711 = {"PCMU", "PCMA"}


def restart(site: Site) -> str:
    """What makes a profile's settings count."""
    return f"{site.render}, then restart FreeSWITCH when no call is up (systemctl restart freeswitch)"


def running(site: Site) -> Iterator[Finding]:
    """It runs, where the configuration says, with G.711 only, as rendered."""
    switch, looked_at = site.switch, f"the SIP profile `{PROFILE}`"
    if "sofia status" not in switch.answers:
        yield unknown(looked_at, "FreeSWITCH does not know `sofia`", "mend `modules` first (mod_sofia)")
        return
    info = switch.profile
    if info is None:
        yield error(
            looked_at,
            "does not run",
            "no call arrives",
            f"look into FreeSWITCH's log (is the SIP port taken?); {restart(site)}",
        )
        return
    expected = settings(profile_of(site.expected.configuration("sofia.conf")))
    where = (info.get("sip-ip", ""), _port(info.get("url", "")))
    wanted = (expected["sip-ip"] or where[0], expected["sip-port"])
    if where != wanted:
        yield error(
            looked_at,
            f"listens at {':'.join(where)} instead of {':'.join(wanted)}",
            "the PBX calls an address where nobody listens",
            restart(site),
        )
    else:
        yield ok(looked_at, f"runs at {':'.join(where)}")
    codecs = info.get("inbound-codecs", "")
    if {name.split("@")[0] for name in codecs.split(",") if name} != _G711:
        yield error("the profile's codecs", codecs or "none", _WHY["inbound-codec-prefs"], restart(site))
    else:
        yield ok("the profile's codecs", codecs)
    if info.get("context") != expected["context"]:
        yield error("the profile's context", info.get("context", ""), _WHY["context"], restart(site))
    yield from _settings(site, expected)


def _settings(site: Site, expected: dict[str, str]) -> Iterator[Finding]:
    held = site.switch.profile_settings
    if not held:
        yield unknown(
            "the profile's settings",
            "the profile is not in the configuration that FreeSWITCH holds (xml_locate)",
            restart(site),
        )
        return
    for name in sorted((expected.keys() | held.keys()) - _ELSEWHERE - _TOLD):
        if held.get(name) == expected.get(name):
            continue
        yield warning(
            f"the profile's {name}",
            f"{held.get(name, 'not set')} instead of {expected.get(name, 'not set')}",
            _WHY.get(name, "it is not as eslbot renders and tests it"),
            restart(site),
        )


def _port(url: str) -> str:
    """Of ``sip:mod_sofia@127.0.0.1:5060;…``."""
    address = url.rpartition("@")[2].partition(";")[0]
    _, colon, port = address.rpartition(":")
    return port if colon and port.isdecimal() else "5060"
