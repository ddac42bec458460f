"""Whole calls through the edge: two machines, each with its switch and its eslbot, one Ameyo, one bot."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from eslbot.sim.addresses import colon
from eslbot.sim.bot import BotCall
from eslbot.sim.lab import Tenant
from eslbot.sim.pbx import CallResult, Pbx
from tests.e2e.calls.conftest import one_kind
from tests.e2e.edge.kamailio import Kamailio
from tests.e2e.edge.sip import Caller
from tests.support.lab import Lab
from tests.support.rows import wait_row

ACME, OTHER, STRANGER = "127.0.0.1", "127.0.0.3", "127.0.0.9"
TENANTS = [
    Tenant("acme", "talk?listen_ms=100", sources=[ACME]),
    Tenant("holds", "hold", sources=[ACME]),
    Tenant("small", "hold", sources=[ACME], workspace={"max_calls": 1}),
    Tenant("other", "talk?listen_ms=100", sources=[OTHER]),
]


class Machine(Lab):
    """A switch and an eslbot; its PBX talks to the switch itself, which is what nobody is to do here."""

    def admitted(self) -> set[str]:
        """CRT Object IDs of the calls that its eslbot has admitted."""
        return {line["crt_object_id"] for line in self.log_lines() if line["event"] == "call_admitted"}


class Centre:
    """Two machines behind an edge, and the PBXs of two tenants."""

    def __init__(self, machines: list[Machine], edge: Kamailio, pbx: Pbx, other: Pbx) -> None:
        self.machines, self.edge, self.pbx, self.other = machines, edge, pbx, other
        self.ameyo, self.bot = machines[0].ameyo, machines[0].bot

    def id(self, tenant: str) -> str:
        return self.machines[0].tenants[tenant].id

    def call(self, crt: str, tenant: str = "acme", pbx: Pbx | None = None, **options: Any) -> CallResult:
        """A call from its INVITE to its end."""
        return (pbx or self.pbx).call("00919990152080", crt, self.id(tenant), **options).wait()

    def lines(self, event: str, crt: str) -> list[dict[str, Any]]:
        """What has been logged of a call, at either machine."""
        found = [line for machine in self.machines for line in machine.log_lines()]
        return [line for line in found if line["event"] == event and line.get("crt_object_id") == crt]

    def logged(self, event: str, crt: str) -> dict[str, Any]:
        """The only line of its kind; it is written a moment after the PBX has seen what it is about."""
        deadline = time.monotonic() + 10
        while not (lines := self.lines(event, crt)) and time.monotonic() < deadline:
            time.sleep(0.02)  # another process's log file: there is no event to wait for
        (line,) = lines
        return line

    def calls(self, crts: Iterable[str], **options: Any) -> list[CallResult]:
        """Calls at once, to their ends."""
        placed = [self.pbx.call("00919990152080", crt, self.id("acme"), **options) for crt in crts]
        return [call.wait(60) for call in placed]

    def bot_of(self, crt: str) -> BotCall:
        """The bot's side of a call, when it is there."""
        return self.bot.wait_for_call(lambda c: c.headers.get("X-CRT-Object-ID") == crt)

    def where(self, crt: str) -> Machine:
        """The machine that admitted a call."""
        deadline = time.monotonic() + 10
        while not (found := [m for m in self.machines if crt in m.admitted()]):
            assert time.monotonic() < deadline, f"nobody has admitted {crt}"
            time.sleep(0.02)  # another process's log file: there is no event to wait for
        (machine,) = found
        return machine


@pytest.fixture(scope="module", params=one_kind())
def centre(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    folder: Path = tmp_path_factory.mktemp(f"centre-{request.param}")
    table: dict[str, Any] = {}
    with ExitStack() as stack:
        machines = []
        for name in ("one", "two"):
            (folder / name).mkdir()
            machines.append(Machine(folder / name, TENANTS, switch=request.param, edge=table))
        sources = {tenant.name: list(tenant.sources) for tenant in TENANTS}
        edge = Kamailio(folder, [machine.sip for machine in machines], sources)
        table.update(edge.table)
        first, second = machines
        stack.enter_context(first)
        second.tenants = {name: _like(tenant, first) for name, tenant in second.tenants.items()}
        stack.enter_context(second)
        stack.enter_context(edge)
        pbxs = [stack.enter_context(Pbx(edge.address, ip, first.ameyo)) for ip in (ACME, OTHER)]
        yield Centre(machines, edge, *pbxs)


def _like(tenant: Tenant, first: Machine) -> Tenant:
    """The tenant with the first machine's bot and Ameyo: there is one of each."""
    assert isinstance(tenant.bot, str)
    ameyo: Mapping[str, Any] = {"url": first.ameyo.url, "ca_file": str(first.ameyo.ca_file)}
    return replace(tenant, bot=first.bot.url(tenant.bot), ameyo_keys=ameyo)


@pytest.fixture
def crt() -> str:
    return f"d444-{uuid4().hex[:12]}-edge"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_whole_calls_at_both_machines(centre: Centre, crt: str, transport: str) -> None:
    crts = [f"{crt}-{number}" for number in range(4)]
    for one, result in zip(crts, centre.calls(crts, transport=transport), strict=True):
        assert result.completed, result
        assert result.cause == "accepted"
        ended = centre.logged("call_ended", one)
        assert (ended["sip_hangup_disposition"], ended["handed_off"]) == ("recv_bye", True)
        assert centre.logged("call_admitted", one)["source"] == ACME
        assert len(centre.ameyo.requests_for(one)) == 1
        assert result.received, "audio, past the edge"
    assert [len(machine.admitted() & set(crts)) for machine in centre.machines] == [2, 2]


def test_a_strangers_call_is_refused_at_the_edge(centre: Centre, crt: str) -> None:
    with Pbx(centre.edge.address, STRANGER, centre.ameyo) as stranger:
        result = centre.call(crt, pbx=stranger)
    assert (result.status, result.reason) == (403, "Forbidden")
    assert not centre.lines("call_refused", crt)
    assert f"403: {STRANGER}" in centre.edge.log()


def test_a_strangers_call_to_the_switch_itself_too(centre: Centre, crt: str) -> None:
    for ip in (ACME, STRANGER):
        with Pbx(centre.machines[0].sip, ip, centre.ameyo) as pbx:
            result = centre.call(crt, pbx=pbx, extra_headers=[f"X-Source-IP: {ACME}"])
        assert (result.status, result.answered) == (403, False)
    assert not centre.lines("call_refused", crt), "it never came to eslbot"


@pytest.mark.parametrize("transport", ["udp", "tcp"])
@pytest.mark.parametrize(
    "forged",
    [
        [],
        [f"X-Source-IP: {ACME}"],
        [f"x-source-ip: {ACME}", f"X-SOURCE-IP: {ACME}"],
        [f"X-Source-IP : {ACME}"],
        [f"X-Source-IP-1: {ACME}"],
        [f"X-Source-IP\t: {ACME}"],
    ],
    ids=repr,
)
def test_one_tenants_pbx_does_not_reach_another_ones_bot(
    centre: Centre, crt: str, forged: list[str], transport: str
) -> None:
    result = centre.call(crt, "acme", centre.other, extra_headers=forged, transport=transport)
    assert (result.status, result.answered) == (403, False)
    line = centre.logged("call_refused", crt)
    assert (line["why"], line["source"]) == ("foreign_source", OTHER)


def test_no_bytes_make_another_source_of_a_pbx(centre: Centre, crt: str) -> None:
    """What one parser takes for a line's end, and another one does not."""
    ends = [
        "\n",
        "\r",
        "\r\r",
        "\n\r",
        "\x0b",
        "\x0c",
        "\0",
        "\0\r",
        "\x1e",
        "\x85",
        "\u2028",
        "\r\n ",
        "\n\t",
    ]
    for number, line in enumerate(f"Subject: x{end}X-Source-IP: {ACME}" for end in ends):
        with Caller(centre.edge.address, OTHER) as pbx:
            message = pbx.request("INVITE", "X-Placeholder: y", f"X-Workspace-ID: {centre.id('acme')}")
            message = message.replace(b"|crt-", f"|{crt}-{number}-".encode())
            answer = pbx.asks(message.replace(b"X-Placeholder: y", line.encode()))
        assert answer.status in (400, 403), (line, answer)
    assert not [one for machine in centre.machines for one in machine.admitted() if crt in one]


def test_a_workspace_that_is_full_here_is_not_tried_there(centre: Centre, crt: str) -> None:
    calls = [centre.pbx.call("00919990152080", f"{crt}-{n}", centre.id("small")) for n in range(2)]
    for number, call in enumerate(calls):
        call.wait_answered()
        centre.logged("call_admitted", f"{crt}-{number}")  # told behind the answer
    assert [len(machine.admitted() & {f"{crt}-0", f"{crt}-1"}) for machine in centre.machines] == [1, 1]
    result = centre.call(f"{crt}-2", "small")
    assert (result.status, result.reason, result.retry_after) == (503, "Workspace Full", 30)
    assert centre.logged("call_refused", f"{crt}-2")["why"] == "workspace_full"
    for call in calls:
        call.hang_up()
        assert call.wait().completed


def test_a_machine_without_eslbot_is_passed_over(centre: Centre, crt: str) -> None:
    without, other = centre.machines
    without.stop_eslbot()
    try:
        crts = [f"{crt}-{number}" for number in range(4)]
        assert all(result.completed for result in centre.calls(crts))
        assert other.admitted() >= set(crts)
        assert centre.edge.states()[colon(without.sip)].startswith("A"), "its switch is there"
    finally:
        without.start_eslbot()


def test_a_killed_switch_loses_no_new_call_and_is_used_again(centre: Centre, crt: str) -> None:
    dead, living = centre.machines
    held = [centre.pbx.call("00919990152080", f"{crt}-held-{n}", centre.id("holds")) for n in range(2)]
    bots = [centre.bot_of(call.crt_object_id) for call in held]
    (its_own,) = [n for n, call in enumerate(held) if centre.where(call.crt_object_id) is dead]
    wait_row(dead, bots[its_own].headers["X-Call-ID"])
    dead.switch.kill()  # as when the power goes
    try:
        during = [f"{crt}-during-{number}" for number in range(4)]
        assert all(result.completed for result in centre.calls(during))
        assert living.admitted() >= set(during)
        centre.edge.wait_state(dead.sip, "I")
        after = [f"{crt}-after-{number}" for number in range(2)]
        assert all(result.completed for result in centre.calls(after))
    finally:
        dead.switch.start()
    centre.edge.wait_state(dead.sip, "A")
    again = [f"{crt}-again-{number}" for number in range(4)]
    assert all(result.completed for result in centre.calls(again))
    assert [len(machine.admitted() & set(again)) for machine in centre.machines] == [2, 2]
    for number, (call, bot) in enumerate(zip(held, bots, strict=True)):
        one = call.crt_object_id
        if centre.lines("call_stranded", one):  # a slow machine: it was away for 15 s, and an agent has them
            assert number == its_own
            assert (call.wait(60).ended_by, call.wait(0).cause) == ("pbx", "accepted")
            assert [told.properties["outcome"] for told in centre.ameyo.requests_for(one)] == ["switch_lost"]
            continue
        if number == its_own:
            call.wait_taken_up()
        heard = bot.audio_frames
        bot.wait(lambda c, heard=heard: c.audio_frames > heard + 10)  # type: ignore[misc]
        call.hang_up()
        assert (call.wait().completed, call.wait(0).cause) == (True, "hang_up")
        assert call.taken_up == (number == its_own)
        assert centre.logged("call_ended", one)["sip_hangup_disposition"] == "recv_bye"
        assert centre.ameyo.requests_for(one) == [], "nobody else was to be told"
        assert [c for c in centre.bot.calls if c.headers.get("X-CRT-Object-ID") == one] == [bot]


def test_calls_outlive_the_edge(centre: Centre, crt: str) -> None:
    calls = [centre.pbx.call("00919990152080", f"{crt}-{n}", centre.id("holds")) for n in range(2)]
    for call in calls:
        call.wait_answered()
    centre.edge.stop()
    centre.edge.start()
    for call in calls:
        one = call.crt_object_id
        centre.bot_of(one).end()
        result = call.wait()
        assert (result.completed, result.cause) == (True, "accepted")
        assert centre.logged("call_ended", one)["sip_hangup_disposition"] == "recv_bye"


def test_a_machine_is_drained_with_its_calls_up(centre: Centre, crt: str) -> None:
    call = centre.pbx.call("00919990152080", crt, centre.id("holds"))
    call.wait_answered()
    machine = centre.where(crt)
    name = f"sip:{colon(machine.sip)}"
    centre.edge.command("dispatcher.set_state", "dx", "1", name)
    try:
        crts = {f"{crt}-{number}" for number in range(3)}
        assert all(result.completed for result in centre.calls(crts))
        assert not machine.admitted() & crts
        call.hang_up()
        assert call.wait().completed
    finally:
        centre.edge.command("dispatcher.set_state", "ap", "1", name)


def test_a_paused_freeswitch_leaves_by_itself(centre: Centre, crt: str) -> None:
    if centre.machines[0].real_switch is None:
        pytest.skip("the stand-in switch cannot be paused")
    call = centre.pbx.call("00919990152080", f"{crt}-up", centre.id("holds"))
    call.wait_answered()
    machine = centre.where(f"{crt}-up")
    assert machine.real_switch is not None
    machine.real_switch.api("fsctl pause inbound")
    try:
        crts = [f"{crt}-{number}" for number in range(2)]
        assert all(result.completed for result in centre.calls(crts)), "also before the edge has noticed"
        assert not machine.admitted() & set(crts)
        centre.edge.wait_state(machine.sip, "I")
        call.hang_up()
        assert call.wait().completed
    finally:
        machine.real_switch.api("fsctl resume inbound")
    centre.edge.wait_state(machine.sip, "A")


def test_another_tenant_calls_from_its_own_pbx(centre: Centre, crt: str) -> None:
    result = centre.call(crt, "other", centre.other, extra_headers=[f"X-Source-IP: {ACME}"])
    assert result.completed, result
    assert centre.logged("call_admitted", crt)["source"] == OTHER
