"""The range of RTP ports: wide enough, as configured, open in the firewall, and FreeSWITCH's own."""

from __future__ import annotations

from collections.abc import Iterator

from eslbot.doctor.checks.profile import restart
from eslbot.doctor.findings import Finding, error, note, ok, unknown, warning
from eslbot.doctor.host import sysctl
from eslbot.doctor.site import Site

#: What the integration's firewall passes.
FIREWALL = (10000, 60000)
#: FreeSWITCH's own, where nothing is set (``switch_rtp.c``).
_DEFAULT = ("16384", "32768")


def capacity(first: int, last: int) -> int:
    """Calls in a range: FreeSWITCH gives each an even port, and the odd one above is its RTCP's.

    (``switch_rtp.c: switch_rtp_request_port``, ``SPF_EVEN``: odd ends are rounded inwards.)
    """
    return max(0, (last - last % 2 - (first + first % 2)) // 2 + 1)


def ports(site: Site) -> Iterator[Finding]:
    """Against the calls that the configuration admits."""
    running = site.switch.core_settings
    if not running:
        yield unknown("the RTP ports", "FreeSWITCH's configuration could not be read (xml_locate)")
        return
    texts = (running.get("rtp-start-port", _DEFAULT[0]), running.get("rtp-end-port", _DEFAULT[1]))
    if not all(text.isdecimal() for text in texts):
        yield error("the RTP ports", "-".join(texts), "no call has audio", restart(site))
        return
    first, last = int(texts[0]), int(texts[1])
    looked_at, room = f"the RTP ports {first}-{last}", capacity(first, last)
    wanted = site.config.freeswitch.rtp_ports
    if (first, last) != wanted:
        yield warning(
            looked_at,
            f"instead of {wanted[0]}-{wanted[1]} (freeswitch.rtp_ports)",
            "the firewall is opened for the configured ones",
            restart(site),
        )
    if room < site.calls:
        yield error(
            looked_at,
            f"room for {room} calls (two ports each), while the configuration admits {site.calls}",
            "FreeSWITCH cannot answer the calls beyond: they fail",
            f"widen freeswitch.rtp_ports to {2 * site.calls} ports or more (the integration passes "
            f"{FIREWALL[0]}-{FIREWALL[1]}), or lower max_calls; then {restart(site)}",
        )
    else:
        yield ok(looked_at, f"room for {room} calls; the configuration admits {site.calls}")
    if first < FIREWALL[0] or last > FIREWALL[1]:
        yield warning(
            looked_at,
            f"beyond {FIREWALL[0]}-{FIREWALL[1]}",
            "the integration passes RTP in that range only: calls on other ports have no audio",
            f"keep freeswitch.rtp_ports within it, then {restart(site)}",
        )
    yield from _kernel(site, first, last)


def _kernel(site: Site, first: int, last: int) -> Iterator[Finding]:
    """Ports that this kernel hands out to others are lost for calls while those have them."""
    given = (sysctl("net.ipv4.ip_local_port_range") or "").split()
    if not site.switch_is_here or len(given) != 2:
        return
    low, high = max(first, int(given[0])), min(last, int(given[1]))
    if low <= high and not _reserved(low, high):
        yield note(
            "net.ipv4.ip_local_port_range",
            f"{given[0]}-{given[1]} overlaps the RTP ports in {low}-{high}",
            "a program that has one of them by UDP takes it from a call, which then fails",
            f'sysctl -w net.ipv4.ip_local_port_range="{last + 1} 65535" where those are enough for this '
            "host's own connections; else keep freeswitch.rtp_ports below",
        )


def _reserved(low: int, high: int) -> bool:
    """Whether ``net.ipv4.ip_local_reserved_ports`` keeps all of them back."""
    for part in (sysctl("net.ipv4.ip_local_reserved_ports") or "").split(","):
        first, _, last = part.partition("-")
        if first.isdecimal() and int(first) <= low and high <= int(last or first):
            return True
    return False
