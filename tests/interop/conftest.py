"""One lab a switch for all scenarios; a test that wants to see the channel itself takes :func:`raw`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from eslbot.sim.lab import Lab, Tenant, free_port
from tests.e2e.conftest import kinds
from tests.interop.controller import Channel, controller, take
from tests.interop.pbx import Call

#: Where the switch looks for a controller first.
FIRST = ("127.0.0.1", free_port())

TENANTS = [Tenant("hold", "hold"), Tenant("echo", "echo"), Tenant("drone", "drone")]


@pytest.fixture(scope="session", params=kinds())
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp(f"interop-{request.param}")
    with Lab(folder, TENANTS, switch=request.param, workers=2, controllers=[FIRST], ledger=True) as lab:
        yield lab


Calling = Callable[..., Call]


@pytest.fixture
def calling(lab: Lab) -> Iterator[Calling]:
    """Makes calls that are cleared up behind the test: ``calling("hold", transport="tcp")``."""
    calls: list[Call] = []

    def make(tenant: str = "hold", **how: object) -> Call:
        calls.append(Call(lab.sip, lab.tenants[tenant].id, **how))  # type: ignore[arg-type]
        return calls[-1]

    yield make
    for call in calls:
        call.close()


@pytest.fixture
def raw() -> Iterator[socket.socket]:
    """Calls come to the test and not to eslbot."""
    with controller(FIRST) as server:
        yield server


@pytest.fixture
def channel_of(raw: socket.socket) -> Iterator[Callable[[Call], Channel]]:
    """The channel of a call that is answered without eslbot, and acknowledged."""
    channels: list[Channel] = []

    def establish(call: Call) -> Channel:
        invite = call.invite()
        channels.append(channel := take(raw))
        assert channel.execute("answer")["Answer-State"] == "answered"
        call.accept(invite)
        return channel

    yield establish
    for channel in channels:
        channel.close()
