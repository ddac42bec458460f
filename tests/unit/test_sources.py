"""Whose an address is."""

from __future__ import annotations

import itertools
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from eslbot.config.sources import Sources
from tests.unit.test_freeswitch_configuration import config, workspace


def cut(*workspaces: tuple[str, list[str]]) -> list[tuple[str, str, str]]:
    made = [workspace(number, name, networks) for number, (name, networks) in enumerate(workspaces, 1)]
    return [(str(s.first), str(s.last), s.party.name) for s in Sources(config(*made)).spans]


def test_networks_apart_stay_as_they_are() -> None:
    assert cut(("acme", ["203.0.113.64/28", "203.0.113.10"]), ("zeta", ["2001:db8::/64"])) == [
        ("203.0.113.10", "203.0.113.10", "acme"),
        ("203.0.113.64", "203.0.113.79", "acme"),
        ("2001:db8::", "2001:db8::ffff:ffff:ffff:ffff", "zeta"),
    ]


def test_an_address_inside_of_another_ones_network_is_both() -> None:
    assert cut(("zeta", ["203.0.113.10"]), ("acme", ["203.0.113.8/30"])) == [
        ("203.0.113.8", "203.0.113.9", "acme"),
        ("203.0.113.10", "203.0.113.10", "acme,zeta"),
        ("203.0.113.11", "203.0.113.11", "acme"),
    ]


def test_one_tenants_networks_that_touch_or_overlap_are_one_span() -> None:
    assert cut(("acme", ["203.0.113.0/25", "203.0.113.128/25", "203.0.113.7"])) == [
        ("203.0.113.0", "203.0.113.255", "acme")
    ]


def test_everything_is_a_network_too() -> None:
    assert cut(("acme", ["0.0.0.0/0", "::/0"])) == [
        ("0.0.0.0", "255.255.255.255", "acme"),
        ("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "acme"),
    ]


def test_who_shares_addresses_has_the_sum_of_the_budgets() -> None:
    sources = Sources(config(workspace(1, "acme", ["203.0.113.10"]), workspace(2, "zeta", ["203.0.113.10"])))
    (party,) = sources.parties
    assert (party.name, party.max_cps, party.max_calls) == ("acme,zeta", 60, 400)


def test_whose_an_address_is() -> None:
    sources = Sources(config(workspace(1, "acme", ["203.0.113.10"]), workspace(2, "zeta", ["2001:db8::/64"])))
    found = [sources.of(ip) for ip in ("203.0.113.10", "::ffff:203.0.113.10", "2001:db8::1")]
    assert [party and party.name for party in found] == ["acme", "acme", "zeta"]
    nobodys = (
        "203.0.113.9",
        "203.0.113.11",
        "0.0.0.0",
        "2001:db8:0:1::",
        "::",
        "",
        "acme",
        "203.0.113.10%0A",
    )
    assert {sources.of(ip) for ip in nobodys} == {None}


NETWORKS = st.builds(
    lambda number, bits: str(ip_network((number >> (32 - bits) << (32 - bits), bits))),
    st.integers(0, 2**32 - 1).map(lambda number: 0xCB007100 | number & 0xFF),
    st.integers(24, 32),
)


@given(st.lists(st.lists(NETWORKS, min_size=1, max_size=5), min_size=1, max_size=4), st.integers(0, 255))
def test_the_spans_say_what_the_networks_say(owners: list[list[str]], last: int) -> None:
    made = [workspace(number, f"w{number}", networks) for number, networks in enumerate(owners, 1)]
    sources = Sources(config(*made))
    address = ip_address(0xCB007100 | last)
    party = sources.of(str(address))
    owning = [w.name for w in made if any(address in network for network in w.sources)]
    assert (party.name.split(",") if party else []) == owning
    ends = [(int(span.first), int(span.last)) for span in sources.spans]
    assert all(first <= last for first, last in ends)
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ends))
