"""Each workspace's Ameyo: DNS, TCP and TLS, the way that notifications go. No HTTP request is made to it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from functools import partial
from urllib.parse import urlsplit

from requests.utils import DEFAULT_CA_BUNDLE_PATH

from eslbot.ameyo.proxy import Proxy
from eslbot.config.model import Workspace
from eslbot.doctor.findings import Finding, error, late, note, ok, warning
from eslbot.doctor.host import is_own
from eslbot.doctor.network import Route, Unreachable, reach
from eslbot.doctor.site import Site
from eslbot.runtime.parallel import together

_LOST = "no notification reaches Ameyo: customers wait on the line instead of getting an agent"


def endpoints(site: Site) -> Iterator[Finding]:
    """Every workspace's, several at one time."""
    workspaces = list(site.config.workspaces.values())
    results = together([partial(_one, site, workspace) for workspace in workspaces], site.inner_deadline)
    for workspace, result in zip(workspaces, results, strict=True):
        if result.error is not None:
            raise result.error
        yield result.value or late(_looked_at(workspace))


def _looked_at(workspace: Workspace) -> str:
    return f"Ameyo of {workspace.name}, {workspace.ameyo.url}"


def _one(site: Site, workspace: Workspace) -> Finding:
    looked_at, ameyo = _looked_at(workspace), workspace.ameyo
    parts = urlsplit(ameyo.url)
    secure = parts.scheme == "https"
    try:
        # The authorities that the client of requests trusts, which are not the system's.
        authorities = ameyo.ca_file or DEFAULT_CA_BUNDLE_PATH
        tls = ssl.create_default_context(cafile=authorities) if secure else None
    except (OSError, ValueError) as failed:
        return error(
            f"workspaces.{workspace.id}.ameyo.ca_file",
            f"{ameyo.ca_file} cannot be used: {failed}",
            _LOST,
            "name a file of PEM certificates that the service's user may read",
        )
    if ameyo.source_address is not None and not is_own(ameyo.source_address):
        return error(
            f"workspaces.{workspace.id}.ameyo.source_address",
            f"{ameyo.source_address} is no address of this host",
            _LOST,
            "give it to an interface (`ip address` shows what there is), or name another one",
        )
    patience = min(site.patience, max(1.0, ameyo.connect_timeout))
    route = Route(ameyo.source_address, Proxy.of(ameyo.proxy) if ameyo.proxy is not None else None)
    try:
        reached = reach(parts.hostname or "", parts.port or (443 if secure else 80), tls, patience, route)
    except Unreachable as failed:
        return error(looked_at, failed.found, _LOST, failed.remedy)
    reached.connection.close()
    if reached.expires_soon:
        return warning(
            looked_at,
            f"reached; {reached.validity}",
            f"from then on {_LOST}",
            "have Ameyo renew its certificate before that day",
        )
    if not secure:
        return note(
            looked_at,
            "reached, without TLS",
            "the token and the customers' data cross the network readably (insecure = true)",
            f"set workspaces.{workspace.id}.ameyo.url to https://",
        )
    how = f"at {reached.address}" if route.proxy is None else f"through the proxy {route.proxy}"
    if route.source is not None:
        how += f", from {route.source}"
    return ok(looked_at, f"reached {how}; {reached.validity}; nothing was sent")
