"""Where the edge sends what, and to whom it says no: Kamailio alone, with PBXs and switches by hand."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from eslbot.sim.addresses import colon
from eslbot.sim.switch.sip_message import SipMessage
from tests.e2e.edge.kamailio import EDGE, Kamailio
from tests.e2e.edge.sip import PATIENCE, Caller, FakeSwitch, answer, refuse, silence, trying_for_ever

#: Those of kamailio.cfg, made shorter: what is tested is what happens then.
TIMERS = {'"fr_timer", 3000': '"fr_timer", 800', '"fr_inv_timer", 10000': '"fr_inv_timer", 1200'}
ACME, OTHER, STRANGER = "127.0.0.1", "127.0.0.3", "127.0.0.9"
SOURCES = {"acme": [ACME], "other": ["127.0.0.3/32"], "six": ["2001:db8::/64"]}


class Site:
    """A PBX, an edge, three switches."""

    def __init__(self, edge: Kamailio, switches: list[FakeSwitch], pbx: Caller) -> None:
        self.edge, self.switches, self.pbx = edge, switches, pbx

    def counts(self) -> list[int]:
        return [len(switch.invites()) for switch in self.switches]

    def wait_asked(self) -> FakeSwitch:
        """The switch that has the first INVITE."""
        deadline = time.monotonic() + PATIENCE
        while not any(self.counts()):
            assert time.monotonic() < deadline, "no switch was asked"
            time.sleep(0.01)
        return self.only_asked()[0]

    def only_asked(self) -> tuple[FakeSwitch, SipMessage]:
        """The switch that had the only INVITE, and that."""
        (asked,) = [switch for switch in self.switches if switch.invites()]
        (invite,) = asked.invites()
        return asked, invite


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with ExitStack() as stack:
        switches = [stack.enter_context(FakeSwitch()) for _ in range(3)]
        addresses = [switch.address for switch in switches]
        folder = tmp_path_factory.mktemp("edge")
        edge = stack.enter_context(Kamailio(folder, addresses, SOURCES, edits=TIMERS))
        yield Site(edge, switches, stack.enter_context(Caller(edge.address, ACME)))


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    """As new: every switch answers, is in the dispatcher's list and has had nothing."""
    for switch in running.switches:
        switch.script, switch.alive = answer, True
        running.edge.command("dispatcher.set_state", "ap", "1", f"sip:{colon(switch.address)}")
        switch.requests.clear()
        while not switch.arrived.empty():
            switch.arrived.get_nowait()
    with Caller(running.edge.address, ACME) as pbx:
        yield Site(running.edge, running.switches, pbx)


def source_headers(invite: SipMessage) -> list[tuple[str, str]]:
    return [(name, value) for name, value in invite.headers if "source-ip" in name.lower()]


# -- one of several ------------------------------------------------------------------------------------------


def test_calls_are_spread_evenly(site: Site) -> None:
    assert {site.pbx.call().status for _ in range(30)} == {200}
    assert site.counts() == [10, 10, 10]


def test_the_keep_alives_of_pbxs_do_not_take_a_turn(site: Site) -> None:
    for _ in range(12):
        assert site.pbx.call().status == 200
        for _ in range(2):
            assert site.pbx.asks(site.pbx.request("OPTIONS")).status == 200
    assert site.counts() == [4, 4, 4]


def test_those_that_are_left_share_what_a_dead_one_had(site: Site) -> None:
    dead = site.switches[1]
    site.edge.command("dispatcher.set_state", "ip", "1", f"sip:{colon(dead.address)}")
    dead.alive = False
    assert {site.pbx.call().status for _ in range(20)} == {200}
    assert site.counts() == [10, 0, 10]


def test_a_repeated_invite_is_the_same_call(site: Site) -> None:
    invite = site.pbx.request()
    answers = [site.pbx.asks(invite) for _ in range(4)]
    assert {a.need("To") for a in answers} == {answers[0].need("To")}
    assert sum(site.counts()) == 1


# -- a switch that does not take the call --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (503, "Service Unavailable"),
        (503, "Maximum Calls In Progress"),
        (500, "Server Internal Error"),
        (504, "x"),
    ],
)
def test_what_is_wrong_with_the_switch_is_tried_at_the_next(site: Site, status: int, reason: str) -> None:
    for switch in site.switches[:2]:
        switch.script = refuse(status, reason, ("Retry-After", "5"))
    assert {site.pbx.call().status for _ in range(6)} == {200}
    assert len(site.switches[2].invites()) == 6


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "Bad Request"),
        (403, "Forbidden"),
        (486, "Busy Here"),
        (488, "Not Acceptable Here"),
        (603, "Decline"),
    ],
)
def test_what_is_wrong_with_the_call_is_not(site: Site, status: int, reason: str) -> None:
    for switch in site.switches:
        switch.script = refuse(status, reason)
    answer = site.pbx.call()
    assert (answer.status, answer.reason) == (status, reason)
    assert sum(site.counts()) == 1


@pytest.mark.parametrize(("reason", "wait"), [("Workspace Full", "30"), ("Too Many Calls A Second", "1")])
def test_a_tenant_that_has_all_it_may_have_is_asked_for_once(site: Site, reason: str, wait: str) -> None:
    for switch in site.switches:
        switch.script = refuse(503, reason, ("Retry-After", wait))
    answer = site.pbx.call()
    assert (answer.status, answer.reason, answer.get("Retry-After")) == (503, reason, wait)
    assert sum(site.counts()) == 1


def test_when_all_say_no_the_pbx_gets_their_answer(site: Site) -> None:
    for switch in site.switches:
        switch.script = refuse(503, "Service Unavailable", ("Retry-After", "5"))
    answer = site.pbx.call()
    assert (answer.status, answer.get("Retry-After")) == (503, "5")
    assert site.counts() == [1, 1, 1]


def test_a_dead_switch_leaves_and_comes_back(site: Site) -> None:
    dead = site.switches[0]
    dead.alive = False
    assert {site.pbx.call().status for _ in range(3)} == {200}
    site.edge.wait_state(dead.address, "I")
    before = len(dead.invites())
    assert {site.pbx.call().status for _ in range(6)} == {200}
    assert len(dead.invites()) == before == 0
    assert re.search(f"switch (down|silent.*): sip:{colon(dead.address)}", site.edge.log())
    dead.alive = True
    site.edge.wait_state(dead.address, "A")
    assert {site.pbx.call().status for _ in range(6)} == {200}
    assert len(dead.invites()) == 2


def test_a_switch_that_says_only_100_is_cancelled_and_left(site: Site) -> None:
    for switch in site.switches[:2]:
        switch.script = trying_for_ever
    for _ in range(3):  # one of them begins at the one that answers
        assert site.pbx.call().status == 200
    assert len(site.switches[2].invites()) == 3
    assert site.switches[0].next("CANCEL").get("CSeq") == "1 CANCEL"
    assert site.edge.states()[colon(site.switches[0].address)] == "AP", "it lives"


def test_when_none_is_there_the_pbx_is_told_so_at_once(site: Site) -> None:
    for switch in site.switches:
        switch.alive = False
        site.edge.command("dispatcher.set_state", "ip", "1", f"sip:{colon(switch.address)}")
    for told in (site.pbx.call(), site.pbx.asks(site.pbx.request("OPTIONS"))):
        assert (told.status, told.get("Retry-After")) == (503, "5")


def test_when_all_are_silent_the_pbx_gets_503_and_not_408(site: Site) -> None:
    for switch in site.switches:
        switch.script = silence
    answer = site.pbx.call()
    assert (answer.status, answer.get("Retry-After")) == (503, "5")
    for switch in site.switches:
        site.edge.wait_state(switch.address, "A")  # it says 200 to OPTIONS


def test_a_caller_who_gives_up_is_not_sent_on(site: Site) -> None:
    for switch in site.switches:
        switch.script = trying_for_ever
    invite = site.pbx.request(branch="z9hG4bK-gives-up")
    site.pbx.send(invite)
    assert site.pbx.receive().status == 100
    asked = site.wait_asked()
    cancel = SipMessage.parse(invite)
    headers = [(n, v) for n, v in cancel.headers if n in ("Via", "From", "To", "Call-ID", "Max-Forwards")]
    site.pbx.send(
        SipMessage(method="CANCEL", uri=cancel.uri, headers=[*headers, ("CSeq", "1 CANCEL")]).pack()
    )
    asked.next("CANCEL")
    asked.respond(asked.invites()[0], 487, "Request Terminated")
    statuses = {site.pbx.final().status, site.pbx.final().status}
    assert statuses == {200, 487}
    assert sum(site.counts()) == 1


# -- who is who ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ip", "said"), [(ACME, ACME), (OTHER, OTHER)])
def test_the_switch_is_told_where_a_call_comes_from(site: Site, ip: str, said: str) -> None:
    with Caller(site.edge.address, ip) as pbx:
        assert pbx.call().status == 200
    assert source_headers(site.only_asked()[1]) == [("X-Source-IP", said)]


@pytest.mark.parametrize(
    "forged",
    [
        ["X-Source-IP: 127.0.0.3"],
        ["x-source-ip: 127.0.0.3"],
        ["X-SOURCE-IP:127.0.0.3"],
        ["X-Source-IP : 127.0.0.3"],
        ["X-Source-IP\t: 127.0.0.3"],
        ["X-Source-IP: 127.0.0.3", "x-sOurce-iP: 127.0.0.1"],
        ["X-Source-IP-1: 127.0.0.3"],
        ["X-Source-IP:\r\n 127.0.0.3"],
        ["X-Source-IP: 127.0.0.3, 127.0.0.1"],
        ["X-Source-IP:"],
        ["Subject: x\nX-Source-IP: 127.0.0.3"],
    ],
    ids=repr,
)
def test_a_source_that_the_pbx_writes_itself_is_taken_out(site: Site, forged: list[str]) -> None:
    assert site.pbx.call(*forged).status == 200
    invite = site.only_asked()[1]
    assert source_headers(invite) == [("X-Source-IP", ACME)]
    assert not any("\n" in value and "Source" in value for _, value in invite.headers)


def test_a_header_that_is_only_alike_stays(site: Site) -> None:
    assert site.pbx.call("X-Source-IP-Of-SBC: 10.1.1.1", "My-X-Source-IP: y").status == 200
    names = [name for name, _ in source_headers(site.only_asked()[1])]
    assert names == ["X-Source-IP", "X-Source-IP-Of-SBC", "My-X-Source-IP"]


def test_ours_stands_first(site: Site) -> None:
    assert site.pbx.call("X-Workspace-ID: a").status == 200
    assert site.only_asked()[1].headers[0][0] in ("X-Source-IP", "Record-Route")


@pytest.mark.parametrize(
    "line",
    [b"Subject: x\rX-Source-IP: 127.0.0.3", b"Subject: x\rReplaces: 1;to-tag=2;from-tag=3", b"X: \r\r"],
    ids=["source", "replaces", "two"],
)
@pytest.mark.parametrize("nul", [b"", b"Organization: a\0b\r\n"], ids=["", "behind a NUL"])
def test_no_header_hides_behind_a_bare_cr(site: Site, line: bytes, nul: bytes) -> None:
    message = site.pbx.request().replace(b"Max-Forwards", nul + line + b"\r\nMax-Forwards")
    assert site.pbx.asks(message).status == 400
    assert sum(site.counts()) == 0


@pytest.mark.parametrize("name", ["Replaces", "replaces", "REPLACES ", "Replaces\t"])
def test_an_invite_that_would_end_another_call_is_refused(site: Site, name: str) -> None:
    assert site.pbx.call(f"{name}: 12345@1.2.3.4;to-tag=a;from-tag=b").status == 403
    assert sum(site.counts()) == 0


def test_a_strangers_invite_gets_403_and_everything_else_nothing(site: Site) -> None:
    with Caller(site.edge.address, STRANGER) as stranger:
        answer = stranger.call()
        assert (answer.status, answer.reason) == (403, "Forbidden")
        for method in ("OPTIONS", "REGISTER", "BYE", "CANCEL", "ACK", "MESSAGE", "INFO", "UPDATE"):
            stranger.send(stranger.request(method))
        assert stranger.call("Route: <sip:127.0.0.1:5060;lr>").get("CSeq") == "1 INVITE", "and nothing before"
    assert sum(site.counts()) == 0
    assert f"403: {STRANGER}" in site.edge.log()


@pytest.mark.parametrize("method", ["BYE", "INFO", "UPDATE", "INVITE"])
def test_a_stranger_with_the_ids_of_a_call_does_nothing_to_it(site: Site, method: str) -> None:
    invite = site.pbx.request()
    answered = site.pbx.asks(invite)
    same = {
        "to_tag": answered.need("To").partition("tag=")[2],
        "call_id": SipMessage.parse(invite).need("Call-ID"),
        "uri": answered.need("Contact").strip("<>"),
    }
    switch, _ = site.only_asked()
    with Caller(site.edge.address, STRANGER) as stranger:
        stranger.send(stranger.request(method, *routes(answered), cseq=2, **same))
        assert stranger.call().status == 403
    assert site.pbx.asks(site.pbx.request("BYE", *routes(answered), cseq=3, **same)).status == 200
    assert [request.need("CSeq") for request in switch.requests] == ["1 INVITE", "3 BYE"]


@pytest.mark.parametrize(
    "method", ["REGISTER", "SUBSCRIBE", "NOTIFY", "MESSAGE", "REFER", "PUBLISH", "INFO", "BYE"]
)
def test_methods_that_nobody_needs(site: Site, method: str) -> None:
    answer = site.pbx.asks(site.pbx.request(method))
    assert answer.status == 405
    assert "INVITE" in answer.need("Allow")
    assert sum(site.counts()) == 0


def test_garbage_harms_nobody(site: Site) -> None:
    for junk in (
        b"\0" * 400,
        b"INVITE\r\n\r\n",
        b"\xff\xfe" * 700,
        b"INVITE sip:a SIP/2.0\r\nVia: x\r\n\r\n",
    ):
        site.pbx.send(junk)
    assert site.pbx.call().status == 200


# -- within a call -------------------------------------------------------------------------------------------


def routes(answered: SipMessage) -> list[str]:
    """The caller's route set (RFC 3261, 12.1.2)."""
    return [f"Route: {line}" for line in reversed(answered.all("Record-Route"))]


def tag(answered: SipMessage) -> str:
    return answered.need("To").partition(";tag=")[2]


def test_what_belongs_to_a_call_finds_its_switch(site: Site) -> None:
    for _ in range(6):
        answered = site.pbx.call()
        port = int(tag(answered).removeprefix("to-"))
        (switch,) = (s for s in site.switches if s.address[1] == port)
        same = {"to_tag": tag(answered), "call_id": answered.need("Call-ID")}
        where = f"sip:bot@127.0.0.1:{port}"
        site.pbx.send(site.pbx.request("ACK", *routes(answered), uri=where, **same))
        assert switch.next("ACK").uri == where
        for number, method in enumerate(("INVITE", "INFO", "BYE"), 2):
            message = site.pbx.request(method, *routes(answered), uri=where, cseq=number, **same)
            assert site.pbx.asks(message).status == 200
            assert switch.next(method).need("Call-ID") == answered.need("Call-ID")


def test_also_one_that_takes_no_new_calls(site: Site) -> None:
    answered = site.pbx.call()
    switch = site.only_asked()[0]
    site.edge.command("dispatcher.set_state", "dx", "1", f"sip:{colon(switch.address)}")
    assert {site.pbx.call().status for _ in range(6)} == {200}
    assert len(switch.invites()) == 1
    same = {"to_tag": tag(answered), "call_id": answered.need("Call-ID")}
    bye = site.pbx.request("BYE", *routes(answered), uri=f"sip:bot@{colon(switch.address)}", cseq=2, **same)
    assert site.pbx.asks(bye).status == 200
    switch.next("BYE")


def test_what_was_set_by_hand_is_forgotten_when_the_list_is_read_again(site: Site) -> None:
    """A fact of Kamailio's that docs/edge.md tells of."""
    switch = site.switches[0]
    site.edge.command("dispatcher.set_state", "dx", "1", f"sip:{colon(switch.address)}")
    assert site.edge.states()[colon(switch.address)].startswith("D")
    site.edge.command("dispatcher.reload")
    assert site.edge.states()[colon(switch.address)].startswith("A")


def test_a_switch_may_end_a_call(site: Site) -> None:
    invite = site.pbx.request()
    answered = site.pbx.asks(invite)
    switch, arrived = site.only_asked()
    route_set = arrived.all("Record-Route")
    assert all(EDGE in route for route in route_set)
    headers = [
        ("Via", f"SIP/2.0/UDP {colon(switch.address)};branch=z9hG4bK-bye"),
        *[("Route", route) for route in route_set],
        ("From", answered.need("To")),
        ("To", answered.need("From")),
        ("Call-ID", answered.need("Call-ID")),
        ("CSeq", "1 BYE"),
        ("Max-Forwards", "70"),
    ]
    bye = SipMessage(method="BYE", uri=f"sip:caller@{colon(site.pbx.address)}", headers=headers)
    switch.send(bye, site.edge.inner)
    received = site.pbx.receive()
    assert received.method == "BYE"
    ok = [(n, v) for n, v in received.headers if n in ("Via", "From", "To", "Call-ID", "CSeq")]
    site.pbx.socket.sendto(SipMessage(status=200, reason="OK", headers=ok).pack(), site.edge.inner)
    assert switch.next("").status == 200


def test_a_route_leads_to_switches_only(site: Site) -> None:
    answered = site.pbx.call()
    same = {"to_tag": tag(answered), "call_id": answered.need("Call-ID")}
    with Caller(site.edge.address, STRANGER) as elsewhere:
        for uri, more in (
            (f"sip:x@{colon(elsewhere.address)}", []),
            (
                f"sip:bot@{colon(site.only_asked()[0].address)}",
                [f"Route: <sip:{colon(elsewhere.address)};lr>"],
            ),
        ):
            message = site.pbx.request("BYE", *routes(answered), *more, uri=uri, cseq=2, **same)
            assert site.pbx.asks(message).status == 403
        assert site.pbx.asks(site.pbx.request("BYE", to_tag="x", uri=f"sip:x@{EDGE}")).status == 481
        elsewhere.call()  # and before its answer it has had nothing


def test_nobody_but_switches_reaches_the_inner_port(site: Site) -> None:
    """A PBX there would not be asked where it comes from."""
    with Caller(site.edge.inner, ACME) as pbx, Caller(site.edge.address, ACME) as outside:
        for message in (pbx.request(), pbx.request("BYE", to_tag="x"), pbx.request("OPTIONS")):
            pbx.send(message)
        assert outside.call().status == 200
        pbx.edge = site.edge.address
        assert pbx.asks(pbx.request("OPTIONS")).get("CSeq") == "1 OPTIONS", "nothing before"
    assert sum(site.counts()) == 1
    switch = site.switches[0]
    new_call = SipMessage.parse(Caller(site.edge.inner, ACME).request())
    new_call.headers[0] = ("Via", f"SIP/2.0/UDP {colon(switch.address)};branch=z9hG4bK-own")
    switch.send(new_call, site.edge.inner)
    assert switch.next("").status == 403


def test_a_preloaded_route_is_not_followed(site: Site) -> None:
    with Caller(site.edge.address, STRANGER) as elsewhere:
        own = f"Route: <sip:{colon(site.edge.address)};lr>"
        assert site.pbx.call(own, f"Route: <sip:{colon(elsewhere.address)};lr>").status == 200
    assert site.only_asked()[1].all("Route") == []


# -- TCP, NAT ------------------------------------------------------------------------------------------------


def over_tcp(edge: tuple[str, int], ip: str, message: bytes) -> SipMessage:
    """One final response over a connection of its own."""
    with socket.create_connection(edge, PATIENCE, (ip, 0)) as connection:
        connection.sendall(message)
        stream = connection.makefile("rb")
        while True:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += stream.readline()
            response = SipMessage.parse(head.replace(b"Content-Length", b"X-Length"))
            stream.read(int(response.get("X-Length") or 0))
            if response.status >= 200:
                return response


@pytest.mark.parametrize(("ip", "status"), [(ACME, 200), (STRANGER, 403)])
def test_over_tcp_too(site: Site, ip: str, status: int) -> None:
    with Caller(site.edge.address, ip) as pbx:
        answered = over_tcp(site.edge.address, ip, pbx.request(transport="TCP"))
    assert answered.status == status
    assert sum(site.counts()) == (status == 200)
    if status == 200:
        assert source_headers(site.only_asked()[1]) == [("X-Source-IP", ACME)]
        assert "transport=tcp" in "".join(answered.all("Record-Route"))


def test_behind_nat_pbxs_see_the_public_address_and_switches_the_inner_one(tmp_path: Path) -> None:
    with FakeSwitch() as switch:
        with (
            Kamailio(tmp_path, [switch.address], SOURCES, {"external_ip": "198.51.100.20"}) as edge,
            Caller(edge.address, ACME) as pbx,
        ):
            answered = pbx.call()
        inner, outer = [value for line in answered.all("Record-Route") for value in line.split(",")]
        assert colon(edge.inner) in inner
        assert f"198.51.100.20:{edge.address[1]}" in outer
        assert colon(edge.inner) in switch.invites()[0].need("Via")


# -- changes -------------------------------------------------------------------------------------------------


def test_new_sources_count_without_a_restart(tmp_path: Path) -> None:
    with (
        FakeSwitch() as switch,
        Kamailio(tmp_path, [switch.address], SOURCES) as edge,
        Caller(edge.address, STRANGER) as pbx,
    ):
        assert pbx.call().status == 403
        edge.sources["net"] = ["127.0.0.8/29"]
        edge.render()
        edge.command("permissions.addressReload")
        assert pbx.call().status == 200


def test_new_switches_count_without_a_restart(tmp_path: Path) -> None:
    with (
        FakeSwitch() as first,
        FakeSwitch() as second,
        Kamailio(tmp_path, [first.address], SOURCES) as edge,
        Caller(edge.address, ACME) as pbx,
    ):
        edge.table["switches"] = [colon(second.address)]
        edge.render()
        edge.command("dispatcher.reload")
        assert {pbx.call().status for _ in range(4)} == {200}
        assert (len(first.invites()), len(second.invites())) == (0, 4)
