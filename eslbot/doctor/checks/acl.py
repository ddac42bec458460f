"""Who may call: the list that the profile applies, against the workspaces' sources."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from eslbot.config.advice import is_wide
from eslbot.config.model import Network
from eslbot.doctor.checks.profile import restart
from eslbot.doctor.findings import Finding, error, ok, unknown, warning
from eslbot.doctor.site import Site
from eslbot.doctor.switch_state import ACL, MAX_ASKED, lists_of, profile_of, stranger

_OPEN = "anybody who reaches the SIP port can call, and eslbot alone stands between them and the bots"
#: Networks beyond the sources that are told one by one.
_MOST = 5


def inbound(site: Site) -> Iterator[Finding]:
    """Exactly the sources get in, by address and not by password."""
    switch = site.switch
    profile = profile_of(switch.configurations.get("sofia.conf"))
    if profile is None:
        yield unknown("the profile's ACL", "FreeSWITCH holds no profile `ameyo`", "mend `profile` first")
        return
    lists = lists_of(profile)
    if not lists:
        yield error("the profile's apply-inbound-acl", "not set", _OPEN, restart(site))
        return
    if lists != [ACL]:
        yield warning(
            "the profile's apply-inbound-acl",
            f"{', '.join(lists)} instead of {ACL}",
            "one list that admits is enough, so nobody but the sources may be in any",
            restart(site),
        )
    if switch.profile_settings.get("auth-calls", "true").lower() != "false":
        yield error(
            "the profile's auth-calls",
            switch.profile_settings.get("auth-calls", "not set"),
            "who is not in the list is asked for a password instead of being refused",
            restart(site),
        )
    yield from _answers(site, lists)


def _answers(site: Site, lists: list[str]) -> Iterator[Finding]:
    admitted, config = site.switch.admitted, site.config
    looked_at = f"the list {', '.join(lists)}"
    reload = f"{site.render}, then `fs_cli -x reloadacl`"
    if not admitted:
        yield unknown(looked_at, "FreeSWITCH does not know `acl`", "mend `modules` first")
        return

    def lets_in(ip: object) -> bool:
        return any(answer for (_, asked), answer in admitted.items() if asked == ip)

    shut_out = [n for n in config.sip_peers[:MAX_ASKED] if not (lets_in(n[0]) and lets_in(n[-1]))]
    for network in shut_out:
        names = ", ".join(w.name for w in config.workspaces.values() if network in w.sources)
        names = "the edge" if config.edge else names
        yield error(
            looked_at, f"does not let {network} in ({names})", "its calls are refused with 403", reload
        )
    foreign = stranger(config.sip_peers)
    open_to_all = foreign is not None and lets_in(foreign)
    if open_to_all:
        yield error(looked_at, f"lets {foreign} in, which is nobody's source", _OPEN, reload)
    wide = [network for network in config.sip_peers if is_wide(network)]
    for network in wide[:_MOST]:  # `configuration` tells of each
        everybody = foreign is None or network.prefixlen == 0
        yield (error if everybody else warning)(
            looked_at,
            f"lets all of {network} in, because a workspace's sources say so",
            _OPEN
            if everybody
            else "whoever has an address there reaches eslbot, and may call as that tenant",
            f"name the gateways' own addresses in {site.path}; {reload}",
        )
    strange = [] if open_to_all else _beyond(site, lists)
    for number, network in enumerate(strange[:_MOST], 1):
        more = f" (and {len(strange) - _MOST} more)" if number == _MOST < len(strange) else ""
        yield warning(
            looked_at,
            f"lets {network} in, which is no {'edge' if config.edge else 'source of a workspace'}{more}",
            "its INVITEs reach eslbot, which refuses them",
            reload,
        )
    if len(config.sip_peers) > MAX_ASKED:
        yield unknown(looked_at, f"only the first {MAX_ASKED} of {len(config.sip_peers)} sources were tried")
    who = "edge" if config.edge else "source"
    if foreign is None:
        yield unknown(looked_at, f"whether a stranger gets in: every address that is tried is a {who}")
    elif not (shut_out or open_to_all or strange or wide):
        yield ok(looked_at, f"admits the {len(config.sip_peers)} {who}(s) and no stranger")


def _beyond(site: Site, lists: list[str]) -> list[Network]:
    """What the lists allow, as FreeSWITCH's configuration holds them, beyond the sources."""
    document = site.switch.configurations.get("acl.conf")
    found: list[Network] = []
    for entry in document.iter("list") if document is not None else ():
        if entry.get("name") not in lists:
            continue
        for node in entry.iter("node"):
            try:
                network = ip_network(node.get("cidr", ""), strict=False)
            except ValueError:
                continue  # a host or a domain; whether strangers get in has been asked
            if node.get("type") == "allow" and not any(_holds(s, network) for s in site.config.sip_peers):
                found.append(network)
    return found


def _holds(source: Network, network: Network) -> bool:
    if source.version != network.version:
        return False
    return network.network_address in source and network.broadcast_address in source
