"""One lab a switch for all scenarios; a test that wants to see the channel itself takes :func:`raw`."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from eslbot.sim.addresses import free_port
from eslbot.sim.bot import BotCall
from eslbot.sim.lab import Tenant
from tests.e2e.calls.conftest import Labs, kinds
from tests.e2e.interop.controller import Channel, controller, take
from tests.e2e.interop.pbx import PATIENCE, Call
from tests.e2e.interop.phones.pbx import PBX
from tests.support.lab import Lab

#: Where the switch looks for a controller first.
FIRST = ("127.0.0.1", free_port())

TENANTS = [
    Tenant("hold", "hold?greeting_ms=40"),
    Tenant("behind-nat", "hold?greeting_ms=40", workspace={"nat": True}),
    Tenant("phones", "hold?greeting_ms=400", sources=[PBX]),
]


@pytest.fixture(scope="package")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    def make(kind: str) -> Lab:
        folder = tmp_path_factory.mktemp(f"interop-{kind}")
        return Lab(folder, TENANTS, switch=kind, workers=2, controllers=[FIRST], ledger=True)

    labs = Labs(make)
    yield labs
    labs.close()


@pytest.fixture(params=kinds())
def lab(request: pytest.FixtureRequest, labs: Labs) -> Lab:
    return labs.of(request.param)


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


def bot_of(lab: Lab, call: Call) -> BotCall:
    """The bot's side of a call."""
    return lab.bot.wait_for_call(lambda bot: bot.headers.get("X-CRT-Object-ID") == call.crt)


def line_of(lab: Lab, event: str, **wanted: object) -> dict[str, Any]:
    """The one line ``event`` of eslbot's log that has what is wanted."""
    deadline = time.monotonic() + PATIENCE
    while True:
        lines = [line for line in lab.log_lines() if line["event"] == event]
        found = [line for line in lines if all(line.get(key) == value for key, value in wanted.items())]
        if found or time.monotonic() > deadline:
            assert len(found) == 1, (event, wanted, found, lines[-3:])
            return found[0]
        time.sleep(0.02)  # another process's log file: there is no event to wait for


def message_of(bot: BotCall, kind: str, seconds: float = PATIENCE, **wanted: object) -> dict[str, Any]:
    """The first message ``kind`` to the bot that has what is wanted."""

    def found() -> list[dict[str, Any]]:
        return [
            received.message
            for received in bot.messages_of(kind)
            if all(received.message.get(key) == value for key, value in wanted.items())
        ]

    bot.wait(lambda _: bool(found()), seconds)
    return found()[0]
