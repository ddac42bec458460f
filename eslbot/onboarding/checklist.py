"""A workspace's way to its first real call (the mission's document, part 3): what is set, and what is owed.

It goes to Ameyo as well as to us, so no secret is in it, and nothing of the bot.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from eslbot.ameyo.notification import PATH, headers, notification
from eslbot.config.loader import from_tree, parse, with_substitutes, workspace_names
from eslbot.config.model import Config, ConfigError, Network, Workspace
from eslbot.config.placeholders import fill
from eslbot.config.urls import MASK, shown

#: The examples of the mission's document.
DID, CRT = "00919990152080", "d444-69139d35-vce-daf-3883"
#: Ameyo's REST server for everybody, where the table is not there yet.
AMEYO_URL = "https://management.ameyo.app:8887"

#: What people write who do not know yet.
_PLACEHOLDER = re.compile(
    r"|\?+|<.*>|.*\.(invalid|example)|.*\b(change[-_ ]?me|to[-_ ]?do|tbd|placeholder|your[-_ ].*|x{3,})\b.*",
    re.IGNORECASE | re.DOTALL,
)
#: Of documentation (RFC 5737, 3849), and this host itself: nobody's SIP gateway.
_NOBODYS = tuple(
    ip_network(block)
    for block in (
        *("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32"),
        *("127.0.0.0/8", "::1/128", "0.0.0.0/32"),
    )
)
#: What stands in for a key that is not there, so that the rest can be told; never shown.
_SUBSTITUTES: Mapping[str, Any] = {
    "sources": ["192.0.2.1"],
    "ameyo.url": AMEYO_URL,
    "ameyo.tenant_host": "tenant.invalid",
    "ameyo.token": "<token>",
}


class UnknownWorkspace(Exception):
    """No workspace of this configuration has the name or id; the text lists those it has."""


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist. ``owed_by`` is "Ameyo", "us", or None for what is done."""

    what: str
    value: str
    owed_by: str | None = None
    ask: str = ""


@dataclass(frozen=True, slots=True)
class Checklist:
    """A workspace's. Addresses and ports are texts, ready to be mailed; ``ours`` is None while unknown."""

    workspace_id: str
    name: str
    items: tuple[Item, ...]
    ours: str | None
    sip_port: int
    #: Where our RTP is; behind an edge another address than :attr:`ours`, and one for each machine.
    media: str | None
    rtp_ports: tuple[int, int]
    egress: tuple[str, ...]
    theirs: tuple[str, ...]
    rest_url: str
    invite: str
    curl: str
    body: Mapping[str, Any]
    tests: tuple[str, ...]

    @property
    def owed(self) -> tuple[Item, ...]:
        """What is missing, from whomever."""
        return tuple(item for item in self.items if item.owed_by)

    @property
    def complete(self) -> bool:
        """Whether nothing is owed."""
        return not self.owed


def checklist(
    path: Path,
    workspace: str,
    egress: Sequence[str] = (),
    *,
    invite_confirmed: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Checklist:
    """The checklist of the workspace with that name or UUID, of the configuration file at ``path``.

    What Ameyo owes may be missing from the file. Raises ConfigError for anything else that is wrong with it,
    UnknownWorkspace, and ValueError for an ``egress`` that is no IP address.
    """
    for address in egress:
        try:
            ip_address(address)
        except ValueError:
            raise ValueError(f"--egress {address!r} is not an IP address") from None
    tree = parse(path)
    key = _find(tree, workspace)
    try:
        config, missing = _load(tree, key, os.environ if environment is None else environment)
    except RecursionError as error:
        raise ConfigError([f"{path}: is nested too deeply"]) from error
    return _checklist(config, config.workspaces[key.lower()], missing, tuple(egress), invite_confirmed)


def _find(tree: Mapping[str, Any], wanted: str) -> str:
    names = workspace_names(tree)
    for key, name in names.items():
        if wanted == name or wanted.lower() == key.lower():
            return key
    known = ", ".join(f"{name} ({key})" for key, name in names.items()) or "none"
    raise UnknownWorkspace(f"there is no workspace {wanted!r} in the configuration; there is {known}")


def _load(tree: dict[str, Any], key: str, environment: Mapping[str, str]) -> tuple[Config, set[str]]:
    """The configuration, with substitutes for what this workspace lacks of others; and where.

    Other secrets than Ameyo's token are not asked for: who tells a tenant what it owes need not have those.
    """
    tree = copy.deepcopy(tree)
    missing: set[str] = set()
    ameyo = tree["workspaces"][key].pop("ameyo", None)
    tree, _ = with_substitutes(tree, environment)
    table = tree["workspaces"][key]
    if ameyo is not None:
        table["ameyo"] = ameyo
    if "ameyo" not in table:
        table["ameyo"] = {"url": AMEYO_URL}
        missing.update(("ameyo.tenant_host", "ameyo.token"))
    try:
        return from_tree(tree, environment), missing
    except ConfigError as error:
        places = [problem.partition(": ")[0] for problem in error.problems]
    for place, stand_in in _SUBSTITUTES.items():
        full = f"workspaces.{key}.{place}"
        if any(found == full or found.startswith(f"{full}.") for found in places):
            *above, last = place.split(".")
            inner = table
            for step in above:
                inner = inner[step]
            inner[last] = stand_in
            missing.add(place)
    return from_tree(tree, environment), missing


def _checklist(
    config: Config, workspace: Workspace, missing: set[str], egress: tuple[str, ...], invite_confirmed: bool
) -> Checklist:
    switch, ameyo = config.freeswitch, workspace.ameyo
    address = switch.external_ip or switch.sip_ip
    media = ours = None if address is None else str(address)
    sip_port = switch.sip_port
    if config.edge is not None:
        ours, sip_port = str(config.edge.external_ip or config.edge.sip_ip), config.edge.sip_port
    going_out = egress or tuple(map(str, config.egress.addresses)) or ((media,) if media else ())
    theirs = () if "sources" in missing else tuple(map(_network, workspace.sources))
    values = {
        "did": DID,
        "crt_object_id": CRT,
        "workspace_id": workspace.id,
        "workspace": workspace.name,
        "call_id": "5f0c7d3e-0000-4000-8000-000000000000",
        "from": "919876543210",
        "to": "1000",
        "outcome": "bot_ended",
        "reason": "done",
    }
    properties: dict[str, Any] = {name: f"<{name}>" for name in ameyo.bot_properties}
    properties |= fill(ameyo.properties, values)
    body = notification(CRT, properties)
    return Checklist(
        workspace_id=workspace.id,
        name=workspace.name,
        items=_items(workspace, missing, ours, sip_port, going_out, invite_confirmed),
        ours=ours,
        sip_port=sip_port,
        media=media,
        rtp_ports=switch.rtp_ports,
        egress=going_out,
        theirs=theirs,
        rest_url=shown(ameyo.url),
        invite=_invite(workspace, ours, sip_port, theirs),
        curl=_curl(workspace, body, missing),
        body=json.loads(body),
        tests=_tests(workspace, ours),
    )


def _items(
    workspace: Workspace,
    missing: set[str],
    ours: str | None,
    sip_port: int,
    egress: tuple[str, ...],
    invite_confirmed: bool,
) -> tuple[Item, ...]:
    sip, rest = "Our SIP address", "Our addresses for REST calls"
    set_ip = "set freeswitch.external_ip, or sip_ip where there is no NAT"
    asked = 'that the From display name is "<DID>|<CRT Object ID>", and X-Workspace-ID is sent (see below)'
    return (
        Item(sip, f"{_host(ours)}:{sip_port}") if ours else Item(sip, "missing", "us", set_ip),
        Item(rest, ", ".join(egress)) if egress else Item(rest, "missing", "us", "set egress.addresses"),
        _gateways(workspace, missing),
        Item("INVITE format", "confirmed")
        if invite_confirmed
        else Item("INVITE format", "not confirmed", "Ameyo", asked),
        _properties(workspace),
        *_access(workspace, missing),
    )


def _from_ameyo(what: str, value: str, known: bool, ask: str) -> Item:
    return Item(what, value) if known else Item(what, "missing", "Ameyo", ask)


def _gateways(workspace: Workspace, missing: set[str]) -> Item:
    fictional = [network for network in workspace.sources if _nobodys(network)]
    ask = "the source addresses of your SIP gateways"
    if fictional and "sources" not in missing:
        ask += f" (what we have is not a gateway: {', '.join(map(_network, fictional))})"
    known = not fictional and "sources" not in missing
    return _from_ameyo("SIP gateway addresses", ", ".join(map(_network, workspace.sources)), known, ask)


def _properties(workspace: Workspace) -> Item:
    ameyo = workspace.ameyo
    names = sorted({*ameyo.properties, *ameyo.bot_properties})
    unclear = sorted(name for name, text in ameyo.properties.items() if _PLACEHOLDER.fullmatch(text))
    ask = "the keys that the notification must carry, and what stands in them"
    if unclear:
        ask += f" (still open: {', '.join(unclear)})"
    known = bool(names) and not unclear
    return _from_ameyo("Properties of the notification", ", ".join(names), known, ask)


def _access(workspace: Workspace, missing: set[str]) -> Iterator[Item]:
    """What lets us in to Ameyo's REST server."""
    host, token = workspace.ameyo.tenant_host, workspace.ameyo.token.reveal()
    known = "ameyo.tenant_host" not in missing and not _PLACEHOLDER.fullmatch(host)
    yield _from_ameyo("Tenant host of the REST server", host, known, "the value of the Host header")
    known = "ameyo.token" not in missing and not _PLACEHOLDER.fullmatch(token)
    yield _from_ameyo("Authorization token", MASK, known, "the token, by a channel that is fit for secrets")


def _invite(workspace: Workspace, ours: str | None, port: int, theirs: tuple[str, ...]) -> str:
    host = _host(ours) if ours else "<our address>"
    uri = f"{host}:{port}" if port != 5060 else host
    gateway = _host(theirs[0]) if theirs and "/" not in theirs[0] else "<your gateway>"
    return "\n".join(
        (
            f"INVITE sip:<extension>@{uri} SIP/2.0",
            f'From: "{DID}|{CRT}" <sip:<caller>@{gateway}>;tag=...',
            f"To: <sip:<extension>@{uri}>",
            f"X-Workspace-ID: {workspace.id}",
        )
    )


def _curl(workspace: Workspace, body: bytes, missing: set[str]) -> str:
    """The POST as the service makes it; shell-quoted, the token masked."""
    ameyo = workspace.ameyo
    host = "<tenant host>" if "ameyo.tenant_host" in missing else ameyo.tenant_host
    words = [f"curl {shlex.quote(shown(ameyo.url) + PATH)}"]
    words += [f"--header {shlex.quote(f'{name}: {text}')}" for name, text in headers(host, MASK).items()]
    if ameyo.ca_file:
        words.append(f"--cacert {shlex.quote(ameyo.ca_file)}")
    words.append(f"--data {shlex.quote(body.decode())}")
    return " \\\n  ".join(words)


def _tests(workspace: Workspace, ours: str | None) -> tuple[str, ...]:
    name = shlex.quote(workspace.name)
    return (
        "We: `eslbot doctor` finds nothing wrong: both servers answer, the switch is set up.",
        f"Ameyo: an INVITE to {ours or 'our address'} from any other address than yours is answered 403.",
        "Ameyo: a call as above. It is answered, the bot speaks, and hears the caller.",
        "Both: the bot ends; Ameyo's REST server gets one notification with the call's CRT Object ID and "
        "answers 2xx, the PBX sends BYE to us, and the customer is with an agent.",
        f"We: `eslbot calls --workspace {name}` shows that call as handed off, and ended by the PBX's BYE.",
        "Ameyo: a caller who hangs up while the bot speaks. There is no notification.",
        "Ameyo: a key is pressed in a call; the bot gets it.",
        "Ameyo: the same from each gateway, by UDP and TCP as you use them, with PCMU and PCMA.",
    )


def _nobodys(network: Network) -> bool:
    return any(
        network.version == block.version and network.subnet_of(block)  # type: ignore[arg-type]
        for block in _NOBODYS
    )


def _network(network: Network) -> str:
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
