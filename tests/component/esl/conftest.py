"""A controller in this process, FreeSWITCH's end of real sockets, an Ameyo over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import gevent
import pytest

from eslbot.calls.call import NEXT
from eslbot.calls.context import CallContext
from eslbot.config.model import (
    Address,
    Ameyo,
    Bot,
    Config,
    Edge,
    FreeSwitch,
    Relay,
    Secret,
    Server,
    Web,
    Workspace,
    loopback,
)
from eslbot.config.sources import Sources
from eslbot.ledger.facts import What
from eslbot.outcome import Stage
from eslbot.server.call_counts import CallCounts
from eslbot.server.controller import Controller
from eslbot.server.ended_calls import EndedCalls
from eslbot.server.token_buckets import TokenBuckets
from tests.support.ameyo_server import AmeyoServer
from tests.support.peer import bounded, eventually, tcp_pair
from tests.support.switch import SIGNER, WORKSPACE, Channel

BOT_TOKEN, AMEYO_TOKEN = "Bearer bot-token-91ab", "ameyo-token-77c2"
OTHER = "11111111-1111-1111-1111-111111111111"


class House:
    """A controller with one workspace, its Ameyo, and the calls it has."""

    def __init__(self, ameyo: AmeyoServer, state: Path) -> None:
        self.ameyo = ameyo
        #: Where the service keeps its key, and what is left of calls.
        self.state = state
        #: FreeSWITCH's inbound one, and its password.
        self.event_socket: tuple[Address, Secret | None] = (loopback(1), Secret("password"))
        self.bot = Bot(
            urls=("wss://bot.example.com/stream",),
            sample_rate=8000,
            connect_timeout=0.3,
            first_audio_timeout=5.0,
            headers={"Authorization": Secret(BOT_TOKEN)},
            insecure=False,
        )
        self.rest = Ameyo(
            url=ameyo.url,
            tenant_host="acme.ameyo.app",
            token=Secret(AMEYO_TOKEN),
            ca_file=None,
            bot_properties=("summary", "DID", "score"),
            properties={"DID": "{did}", "outcome": "{outcome}", "why": "{reason}", "call": "{call_id}"},
            connect_timeout=1.0,
            timeout=2.0,
            insecure=True,
        )
        self.workspace = Workspace(
            WORKSPACE, "acme", (ip_network("127.0.0.1/32"),), 10, 60.0, self.bot, self.rest
        )
        self.max_calls = 10
        self.edge: Edge | None = None
        #: Nobody listens there, so no bot is dialled before the answer.
        self.relay = Relay(listen=loopback(1))
        self.counts = CallCounts()
        self.buckets = TokenBuckets()
        self.ended = EndedCalls()
        self.counts.know([WORKSPACE, OTHER])
        self.row = self.counts.take_row()
        self.channels: list[Channel] = []
        self.greenlets: list[gevent.Greenlet] = []
        self.others: list[Workspace] = []
        self.signer = SIGNER
        self._controller: Controller | None = None
        self.facts: list[dict[str, Any]] = []

    def append(self, call: str, what: What, facts: dict[str, Any], ago: float = 0.0) -> None:
        """What the ledger is told."""
        self.facts.append({"call": call, "what": str(what), **facts})

    def flush(self, seconds: float) -> None:
        """It is there."""

    def told(self, what: What) -> dict[str, Any]:
        """The only fact of its kind."""
        (fact,) = [fact for fact in self.facts if fact["what"] == what]
        return fact

    def with_another_tenant(self) -> None:
        """A second workspace, with a bot and a token of its own, that the same PBX may call."""
        bot = replace(
            self.bot, urls=("wss://other.example.com/",), headers={"Authorization": Secret("other")}
        )
        rest = replace(self.rest, tenant_host="other.ameyo.app", token=Secret("other-token"))
        self.others = [replace(self.workspace, id=OTHER, name="other", bot=bot, ameyo=rest)]

    @property
    def controller(self) -> Controller:
        if self._controller is None:
            listen, key_file = loopback(8084), str(self.state / "identity.key")
            server = Server(listen, (ip_network("127.0.0.1/32"),), 1, self.max_calls, key_file=key_file)
            switch = FreeSwitch(None, 5060, None, (10000, 60000), *self.event_socket, ())
            workspaces = {workspace.id: workspace for workspace in (self.workspace, *self.others)}
            config = Config(server, switch, Web(loopback(8085)), workspaces, edge=self.edge, relay=self.relay)
            self.buckets.know(Sources(config).parties)
            self._controller = Controller(
                config, self.signer, self.counts, self.row, self, buckets=self.buckets, ended=self.ended
            )
        return self._controller

    def call(
        self, variables: dict[str, str] | None = None, more: dict[str, str] | None = None, **options: Any
    ) -> Channel:
        """FreeSWITCH connects with a call; ``more`` are headers of its answer to `connect`."""
        ours, theirs = tcp_pair()
        channel = Channel(theirs, variables, **options)
        channel.more_headers.update(more or {})
        self.channels.append(channel)
        self.greenlets.append(gevent.spawn(self.controller.take, ours, ("127.0.0.1", 40000)))
        return channel

    def taken_over(self, before: Channel, more: dict[str, str] | None = None, **variables: str) -> Channel:
        """The same call again, its controller having gone; ``variables`` are changes of its channel's."""
        if not before._greenlet.ready():
            before.lose_controller()
        eventually(lambda: not self.controller.calls)
        age = time.time() - before.created
        channel = self.call({**before.variables, **variables}, more, answered=before.answered, age=age)
        channel.attached, channel.displaced = before.attached, before.displaced
        channel.relay, before.relay.channel = before.relay, channel
        return channel

    def restarted(self, before: Channel, core: str = "2") -> Channel:
        """The same call again, its FreeSWITCH having died, and with it what was noted since the answer."""
        if not before._greenlet.ready():
            before.lose_controller()
        eventually(lambda: not self.controller.calls)
        channel = self.call(before.tracked, {"Core-UUID": core}, answered=True)
        channel.tracked = before.tracked
        channel.relay, before.relay.channel = before.relay, channel
        return channel

    def talking(self, variables: dict[str, str] | None = None) -> Channel:
        """A call whose bot is there."""
        channel = self.call(variables)
        channel.wait_stage("talking")
        return channel

    def posts(self) -> list[dict[str, Any]]:
        return [json.loads(request.body) for request in self.ameyo.requests]


@pytest.fixture
def ameyo() -> Iterator[AmeyoServer]:
    with AmeyoServer() as server:
        yield server


@pytest.fixture
def forbidden_steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Stage | None, Stage]]:
    """Steps from stage to stage that are not in the story's table."""
    found: list[tuple[Stage | None, Stage]] = []
    enter = CallContext.enter

    def checked(context: CallContext, stage: Stage, **variables: str) -> None:
        if stage not in NEXT[context.stage]:
            found.append((context.stage, stage))
        enter(context, stage, **variables)

    monkeypatch.setattr(CallContext, "enter", checked)
    return found


@pytest.fixture
def house(
    ameyo: AmeyoServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    forbidden_steps: list[tuple[Stage | None, Stage]],
) -> Iterator[House]:
    monkeypatch.setattr("eslbot.ameyo.retry.FIRST_DELAY", 0.02)
    house = House(ameyo, tmp_path)
    with bounded(20):
        yield house
        for channel in house.channels:
            if not channel.down:
                channel.lose_controller()
        gevent.joinall(house.greenlets, timeout=5)
    # What holds for every call of every test:
    assert all(greenlet.ready() for greenlet in house.greenlets)
    assert [channel.violations for channel in house.channels] == [[] for _ in house.channels]
    assert (house.controller.calls, house.controller._admitted) == (set(), 0)
    assert house.counts.total(WORKSPACE) == 0
    assert forbidden_steps == []
