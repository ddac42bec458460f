"""The addresses that FreeSWITCH announces in SIP and SDP: there the PBX sends its BYE and its audio."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network

from eslbot.config.model import IP, Network
from eslbot.doctor.checks.profile import restart
from eslbot.doctor.findings import Finding, error, note, ok, unknown
from eslbot.doctor.host import is_own
from eslbot.doctor.site import Site

#: Not ``is_private``: that counts documentation networks, too, which people try things out with.
_PRIVATE = tuple(
    ip_network(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "127.0.0.0/8",
        "fc00::/7",
        "fe80::/10",
        "::1/128",
    )
)
_BOTH = (("ext-sip-ip", "SIP"), ("ext-rtp-ip", "audio"))
_ONE_WAY = "the PBX sends its audio and its BYE there: the bot hears nothing, and calls do not end"


def announced(site: Site) -> Iterator[Finding]:
    """Against ``external_ip``, and against who is to reach it."""
    info = site.switch.profile
    if info is None:
        yield unknown("the announced addresses", "the profile does not run", "mend `profile` first")
        return
    config = site.config.freeswitch
    wanted = str(config.external_ip or config.sip_ip or site.switch.variables.get("local_ip_v4", ""))
    key = "external_ip" if config.external_ip else "sip_ip"
    found = []
    # Behind an edge SIP goes no further than that.
    for name, what in (("ext-rtp-ip", "audio"),) if site.config.edge else _BOTH:
        value = info.get(name) or info.get(name.removeprefix("ext-"), "")
        if wanted and value != wanted:
            found.append(
                error(
                    f"the profile's {name}",
                    f"{value} is announced for {what} instead of {wanted} (freeswitch.{key})",
                    _ONE_WAY,
                    f"if {wanted} is right: {restart(site)}; if {value} is: set freeswitch.external_ip to it",
                )
            )
    found = found or list(_reachable(site, info.get("ext-rtp-ip") or info.get("rtp-ip", "")))
    yield from found or [ok("the announced addresses", wanted)]


def _reachable(site: Site, text: str) -> Iterator[Finding]:
    try:
        address = ip_address(text)
    except ValueError:
        yield unknown("the announced addresses", f"{text!r} is no address")
        return
    if _private(address):
        outside = [source for source in site.config.sources if not _has_a_way(source, address)]
        if outside:
            yield error(
                "the announced addresses",
                f"{address} is private, and {outside[0]} is to reach it",
                _ONE_WAY,
                f"set freeswitch.external_ip to the address that the PBX calls; {restart(site)}",
            )
    elif site.config.freeswitch.external_ip and site.switch_is_here and not is_own(address):
        yield note(
            "freeswitch.external_ip",
            f"{address} is not an address of this host",
            "that is right behind 1:1 NAT; whether it is this host's NAT address cannot be seen from here",
            "compare it with the cloud's console",
        )


def _private(address: IP) -> bool:
    return any(address in network for network in _PRIVATE)


def _has_a_way(source: Network, address: IP) -> bool:
    """Whether somebody at ``source`` can reach a private ``address`` at all."""
    if address.is_loopback:
        return source.is_loopback
    return _private(source.network_address)
