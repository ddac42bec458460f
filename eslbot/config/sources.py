"""Which workspaces an address belongs to: their networks, cut into spans with the same owners.

Workspaces may share an address (one gateway of a carrier's for two tenants), and networks may lie in each
other. Budgets, the firewall and the edge need one answer for each address; so the addresses are cut into
spans, and whoever has the same owners is one :class:`Party`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import pairwise

from eslbot.config.model import IP, Config, Workspace, address_in

_BYTES = {4: 4, 6: 16}


@dataclass(frozen=True, slots=True)
class Party:
    """The workspaces that have the same addresses: nearly always one. What it may do is the sum of theirs."""

    workspaces: tuple[Workspace, ...]

    @property
    def key(self) -> str:
        """The workspaces' ids."""
        return ",".join(workspace.id for workspace in self.workspaces)

    @property
    def name(self) -> str:
        """The workspaces' names."""
        return ",".join(workspace.name for workspace in self.workspaces)

    @property
    def max_cps(self) -> int:
        """Calls a second."""
        return sum(workspace.max_cps for workspace in self.workspaces)

    @property
    def max_calls(self) -> int:
        """Calls at one time."""
        return sum(workspace.max_calls for workspace in self.workspaces)


@dataclass(frozen=True, slots=True)
class Span:
    """Addresses next to each other, both ends included, and who has them."""

    first: IP
    last: IP
    party: Party


class Sources:
    """The spans of a configuration, in order: IPv4, then IPv6."""

    def __init__(self, config: Config) -> None:
        workspaces = sorted(config.workspaces.values(), key=lambda workspace: workspace.name)
        self._parties: dict[tuple[str, ...], Party] = {}
        self.spans = tuple(span for version in _BYTES for span in self._cut(workspaces, version))
        self._firsts = {
            version: [int(span.first) for span in self.spans if span.first.version == version]
            for version in _BYTES
        }

    @property
    def parties(self) -> tuple[Party, ...]:
        """Everybody who has a span, by name."""
        return tuple(sorted(self._parties.values(), key=lambda party: party.name))

    def of(self, ip: str) -> Party | None:
        """Who has the address ``ip``; None where nobody has, or it is no address."""
        address = address_in(ip)
        if address is None:
            return None
        place = bisect_right(self._firsts[address.version], int(address)) - 1
        if place < 0:
            return None
        span = self.spans[place + (len(self._firsts[4]) if address.version == 6 else 0)]
        return span.party if int(address) <= int(span.last) else None

    def _cut(self, workspaces: Iterable[Workspace], version: int) -> list[Span]:
        """The spans of one version: a walk over all places where a network begins, or has just ended."""
        by_id = {workspace.id: workspace for workspace in workspaces}
        changes: dict[int, Counter[str]] = {}
        for workspace in by_id.values():
            for network in workspace.sources:
                if network.version == version:
                    end = int(network.broadcast_address) + 1
                    changes.setdefault(int(network.network_address), Counter())[workspace.id] += 1
                    changes.setdefault(end, Counter())[workspace.id] -= 1
        inside: Counter[str] = Counter()
        spans: list[Span] = []
        for place, following in pairwise(sorted(changes)):  # behind the last one nobody is inside
            inside.update(changes[place])
            inside = +inside
            if not inside:
                continue
            party = self._party(tuple(by_id[one] for one in by_id if one in inside))
            first, last = _address(place, version), _address(following - 1, version)
            if spans and spans[-1].party is party and int(spans[-1].last) == place - 1:
                spans[-1] = Span(spans[-1].first, last, party)
            else:
                spans.append(Span(first, last, party))
        return spans

    def _party(self, workspaces: tuple[Workspace, ...]) -> Party:
        key = tuple(workspace.id for workspace in workspaces)
        return self._parties.setdefault(key, Party(workspaces))


def _address(number: int, version: int) -> IP:
    return ip_address(number.to_bytes(_BYTES[version], "big"))
