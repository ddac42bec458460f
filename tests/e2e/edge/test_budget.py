"""What the edge lets pass of a flood, and what becomes of the other tenants meanwhile."""

from __future__ import annotations

import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from eslbot.sim.switch.sip_message import SipMessage
from tests.e2e.edge.kamailio import Kamailio
from tests.e2e.edge.sip import Caller, FakeSwitch, acknowledgement
from tests.e2e.edge.test_routing import ACME, OTHER, STRANGER, source_headers

CPS, SECONDS = 5, 2
#: Of calls, and of everything, in one turn.
CALLS, ALL = CPS * SECONDS, 20 * CPS * SECONDS
SHARED = "127.0.0.11"
SOURCES = {"acme": [ACME, SHARED], "other": [OTHER], "third": [SHARED]}


class Site:
    """An edge, a switch, and what they have seen."""

    def __init__(self, edge: Kamailio, switch: FakeSwitch) -> None:
        self.edge, self.switch = edge, switch

    def caller(self, ip: str) -> Caller:
        return Caller(self.edge.address, ip)

    def over(self) -> dict[str, int]:
        """What was dropped or refused, of whom, since the start."""
        told = self.edge.command("htable.dump", "over")
        names, values = re.findall(r"name: (\S+)", told), re.findall(r"value: (\d+)", told)
        return {name: int(value) for name, value in zip(names, values, strict=True)}

    def flood(self, pbx: Caller, method: str, times: int) -> Counter[int]:
        """Send so many requests at once; the final responses, by their status, to before the last one."""
        pbx.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        statuses: Counter[int] = Counter()
        sent = {f"{n}-flood-{time.monotonic_ns()}": n for n in range(times)}
        for call_id in sent:
            pbx.send(pbx.request(method, call_id=call_id))
            if not len(statuses) % 50:  # what is already there, so that no buffer overflows
                statuses += self.read(pbx, 0.0)
        return statuses + self.read(pbx, 0.5)

    @staticmethod
    def read(pbx: Caller, silence: float) -> Counter[int]:
        """Until nothing has come for so many seconds; refusals of INVITEs are acknowledged."""
        found: Counter[int] = Counter()
        pbx.socket.settimeout(silence)
        try:
            while True:
                answer = SipMessage.parse(pbx.socket.recv(65536))
                if answer.status >= 200:
                    found[answer.status] += 1
                if answer.status >= 300 and answer.need("CSeq").endswith("INVITE"):
                    pbx.send(acknowledgement(SipMessage.parse(pbx.request()), answer).pack())
        except (TimeoutError, BlockingIOError):
            return found


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        switch = stack.enter_context(FakeSwitch())
        edge = stack.enter_context(Kamailio(tmp_path, [switch.address], SOURCES, max_cps=CPS))
        yield Site(edge, switch)


def test_beyond_its_budget_a_tenant_gets_503_and_the_others_get_served(site: Site) -> None:
    with site.caller(ACME) as flooding, site.caller(OTHER) as other:
        began = time.monotonic()
        statuses = site.flood(flooding, "INVITE", 80)  # their ACKs are within the budget of everything
        answers = [other.call().status for _ in range(CALLS)]
        turns = 1 + (time.monotonic() - began) // SECONDS + 1
    assert set(answers) == {200}
    assert CALLS <= statuses[200] <= turns * CALLS
    assert statuses[503] == 80 - statuses[200]
    sources = Counter(value for invite in site.switch.invites() for _, value in source_headers(invite))
    assert sources == {ACME: statuses[200], OTHER: CALLS}
    assert site.over() == {"503:acme": statuses[503]}


def test_the_refusal_says_when_to_come_again_and_the_next_turn_is_free(site: Site) -> None:
    with site.caller(ACME) as pbx:
        site.flood(pbx, "INVITE", 2 * CALLS)
        pbx.socket.settimeout(5)
        refused = pbx.call()
        assert (refused.status, refused.reason) == (503, "Too Many Calls A Second")
        assert refused.get("Retry-After") == "1"
        deadline = time.monotonic() + SECONDS + 1
        while pbx.call().status == 503:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_calls_that_are_up_do_not_depend_on_it(site: Site) -> None:
    with site.caller(ACME) as pbx:
        invite = pbx.request()
        answered = pbx.asks(invite)
        site.flood(pbx, "INVITE", 3 * CALLS)
        pbx.socket.settimeout(5)
        same = {
            "to_tag": answered.need("To").partition("tag=")[2],
            "call_id": SipMessage.parse(invite).need("Call-ID"),
            "uri": answered.need("Contact").strip("<>"),
        }
        route = [f"Route: {value}" for value in reversed(answered.all("Record-Route"))]
        for cseq, method in enumerate(("INVITE", "INFO", "BYE"), 2):
            assert pbx.asks(pbx.request(method, *route, cseq=cseq, **same)).status == 200


def test_a_flood_of_anything_is_dropped(site: Site) -> None:
    with site.caller(ACME) as pbx, site.caller(OTHER) as other:
        began = time.monotonic()
        statuses = site.flood(pbx, "OPTIONS", 3 * ALL)
        assert other.asks(other.request("OPTIONS")).status == 200
        turns = 2 + (time.monotonic() - began) // SECONDS
    assert ALL <= statuses[200] <= turns * ALL
    ((what, dropped),) = site.over().items()
    assert what == "dropped:acme"
    assert ALL < dropped <= 3 * ALL - statuses[200]  # the socket's own buffer may have been full


def test_a_shared_address_has_the_sum_of_the_budgets(site: Site) -> None:
    with site.caller(SHARED) as shared, site.caller(ACME) as acme:
        statuses = site.flood(shared, "INVITE", 2 * CALLS)
        assert statuses == {200: 2 * CALLS}
        acme.socket.settimeout(5)
        assert acme.call().status == 200
        assert site.flood(shared, "INVITE", 4 * CALLS)[503] > 0
    assert set(site.over()) == {"503:acme,third"}


def test_strangers_get_some_403_and_one_line_in_the_log(site: Site) -> None:
    with site.caller(STRANGER) as stranger, site.caller(OTHER) as other:
        began = time.monotonic()
        statuses = site.flood(stranger, "INVITE", 200)
        assert other.call().status == 200
        turns = 2 + (time.monotonic() - began) // SECONDS
    assert set(statuses) == {403}
    assert 10 * SECONDS <= statuses[403] <= turns * 10 * SECONDS
    assert site.edge.log().count("is nobody's source") == 1


def test_a_flood_of_packets_is_no_flood_of_lines(site: Site) -> None:
    with site.caller(ACME) as pbx:
        site.flood(pbx, "INVITE", 300)
    lines = [line for line in site.edge.log().splitlines() if "over max_cps" in line]
    assert len(lines) in (1, 2)  # one for the 503, one for what was dropped
    assert f"acme is over max_cps = {CPS}; 1 so far" in lines[0]


def test_a_new_budget_counts_without_a_restart(site: Site) -> None:
    with site.caller(ACME) as pbx:
        assert site.flood(pbx, "INVITE", 3 * CALLS)[503] > 0
        site.edge.max_cps = 100
        site.edge.render()
        site.edge.command("permissions.addressReload")
        assert site.flood(pbx, "INVITE", 3 * CALLS) == {200: 3 * CALLS}
