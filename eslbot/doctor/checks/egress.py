"""Whom Ameyo sees: the addresses that it lets in, against those that notifications leave from."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import ip_address

from eslbot.config.model import IP
from eslbot.doctor.findings import Finding, note, ok, unknown, warning
from eslbot.doctor.host import is_own
from eslbot.doctor.site import Site

#: Of nobody (RFC 5737): which address of ours a packet to the world would have is asked, and none is sent.
_WORLD = "192.0.2.1"


def addresses(site: Site) -> Iterator[Finding]:
    """Each of ``egress.addresses``, and each way that leaves from another public address of this host."""
    told = site.config.egress.addresses
    if not told:
        yield note(
            "egress.addresses",
            "none",
            "`eslbot onboard` tells Ameyo to let FreeSWITCH's address in, which need not be the one it sees",
            "list the public addresses that notifications come from",
        )
        return
    for address in told:
        if is_own(address):
            yield ok(f"egress.addresses {address}", "is this host's own")
        else:
            yield unknown(
                f"egress.addresses {address}",
                "it is no address of this host, so behind NAT, of a proxy or of another machine: what Ameyo "
                "sees is seen there alone",
                "ask Ameyo from which address the last notification came",
            )
    for workspace in site.config.workspaces.values():
        ameyo = workspace.ameyo
        if ameyo.proxy is not None:  # Ameyo sees the proxy
            continue
        source = ameyo.source_address or _outward()
        if source is not None and source.is_global and source not in told:
            key = f"workspaces.{workspace.id}.ameyo.source_address"
            yield warning(
                f"{key}, {ameyo.source_address or 'not set'}",
                f"notifications of {workspace.name} leave from {source}, which is not in egress.addresses",
                "Ameyo may not let it in: customers wait on the line instead of getting an agent",
                f"add it to egress.addresses and tell Ameyo, or set {key} to one that is there",
            )


def _outward() -> IP | None:
    """The address of this host that the world sees, or the NAT in front of it; None without a route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_WORLD, 9))
        except OSError:
            return None
        return ip_address(probe.getsockname()[0])
