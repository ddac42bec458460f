"""A call in the relay: what it tells the controller and the bot, whatever happens to either of them."""

from __future__ import annotations

import asyncio
import errno
import inspect
import json
import os
from collections.abc import Callable, Coroutine
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from eslbot.audio.decoder import PIECE
from eslbot.caller.invite import Invite
from eslbot.config.loader import from_tree
from eslbot.config.model import Config
from eslbot.recording.recorder import Recorder
from eslbot.relay import bot_part, control
from eslbot.relay import call as relay_call
from eslbot.relay.call import RelayCall
from eslbot.relay.caller_audio import CallerAudio
from eslbot.relay.control import Order, Part
from eslbot.relay.dialler import BotUnreachable
from eslbot.relay.playout import QueueFull
from eslbot.relay.playout_delay import PlayoutDelay
from eslbot.relay.protocols.base import Message
from eslbot.relay.turn_taking.conversation import DOWNLINK
from eslbot.sim.audio import tone
from eslbot.telemetry import metrics
from eslbot.telemetry.trace_context import traceparent
from tests.support.relays import ACME, configuration
from tests.support.voices import Samples, frames, silence, speech

TONE = b"\x00\x10" * 160
#: So much of a long speech is worked on in one of the loop's turns.
PIECE_OF_IT = TONE * (PIECE // len(TONE))
UUID = "0b1a4ad5-6e7c-4d1a-8a2c-1d1b3b3b3b3b"


class FakeStream:
    """mod_audio_stream's connection; what the controller gets is in `news`."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.closed = False

    def send_text(self, text: str) -> None:
        self.texts.append(text)

    def close(self) -> None:
        self.closed = True

    @property
    def news(self) -> list[dict[str, Any]]:
        return [json.loads(text) for text in self.texts]

    def of(self, what: str) -> list[dict[str, Any]]:
        return [entry for entry in self.news if entry["news"] == what]


class FakeSocket:
    """A bot's socket."""

    def __init__(self, listener: Any) -> None:
        self.listener = listener
        self.sent: list[Message] = []
        self.closed = False

    def send(self, message: Message) -> None:
        self.sent.append(message)

    def close(self, code: int = 1000) -> None:
        self.closed = True

    def says(self, **message: Any) -> None:
        self.listener.received(json.dumps(message))

    def got(self, kind: str) -> list[dict[str, Any]]:
        texts = [json.loads(message) for message in self.sent if isinstance(message, str)]
        return [text for text in texts if text["type"] == kind]


class FakePlayout:
    """Takes speech; the test says when it is heard."""

    def __init__(self, line: Any, margin: Any, told: Any) -> None:
        self.told = told
        self.queued = b""
        self.did: list[Any] = []
        self.full = self.taken = self.going = False
        #: Of what the caller has heard of it lately.
        self.level = 0.0
        self.lost = 0.0
        self.unmade: OSError | None = None

    @property
    def speaking(self) -> bool:
        return bool(self.queued)

    @property
    def idle(self) -> bool:
        return not self.queued

    def say(self, linear: bytes) -> None:
        if self.full:
            raise QueueFull("full")
        self.queued += linear

    def loudest(self) -> float:
        return self.level

    def mark(self, name: str) -> None:
        if self.idle:
            self.told.mark_reached(name, False)
        else:
            self.did.append(("mark", name))

    def attach(self, switch: str) -> bool:
        """FreeSWITCH has restarted where the test says so."""
        if self.unmade is not None:
            raise self.unmade
        self.did.append(("attached", switch))
        return switch == "restarted"

    def clear(self) -> None:
        self.queued = b""
        self.did.append("clear")

    def hold(self, on: bool) -> None:
        self.did.append(("hold", on))

    def finish(self) -> None:
        self.did.append("finish")

    def tick(self) -> float | None:
        return None if self.taken else asyncio.get_running_loop().time() + 60


class FakeLine:
    paths = (Path("/lines/a"), Path("/lines/b"))
    predecessor_paths: tuple[Path, ...] = ()
    opened = (False, False)
    removed = False
    missed = 0
    lost = 0.0
    noted = 0

    def checkpoint_now(self) -> None:
        self.noted += 1

    def close(self, remove: bool) -> None:
        self.removed = remove


class FakeCaller:
    """The caller's audio, of which a test says what becomes."""

    def __init__(self) -> None:
        self.late, self.short_packets, self.settled = 0.0, False, 0

    def frames(self, data: bytes) -> list[bytes]:
        return [data, data]

    def settle(self) -> None:
        self.settled += 1
        self.late = 0.0


class World:
    """The relay around one call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, config: Config) -> None:
        self.workspace = next(iter(config.workspaces.values()))
        self.line = FakeLine()
        self.playouts: list[FakePlayout] = []
        self.sockets: list[FakeSocket] = []
        #: What comes of each dialling; where there is none, the bot is there.
        self.refusals: list[str] = []
        self.forgotten: list[str] = []
        self.read_counter = self.directory = None
        self.url = "ws://127.0.0.1:40001/"
        self.traced = 1.0
        self.recorder = Recorder(config)
        monkeypatch.setattr(relay_call.Line, "open", lambda *_, **__: self.line)
        monkeypatch.setattr(relay_call, "Playout", self._playout)
        monkeypatch.setattr(bot_part, "dial", self._dial)

    def _playout(self, *args: Any) -> FakePlayout:
        self.playouts.append(FakePlayout(*args))
        return self.playouts[-1]

    async def _dial(self, bot: Any, headers: Any, listener: Any) -> FakeSocket:
        if self.refusals:
            raise BotUnreachable(self.refusals.pop(0))
        self.sockets.append(FakeSocket(listener))
        return self.sockets[-1]

    # eslbot.relay.resources.Resources

    def playout_delay(self, workspace_id: str) -> PlayoutDelay:
        return PlayoutDelay()

    def over(self, call_id: str) -> None:
        self.forgotten.append(call_id)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    # what the tests do

    def call(self, **bot: Any) -> RelayCall:
        workspace = replace(self.workspace, bot=replace(self.workspace.bot, **bot))
        invite = Invite(UUID, "00919990152080", "crt-1", workspace.id, "127.0.0.1", "040", "bot")
        return RelayCall(invite, workspace, self)  # type: ignore[arg-type]

    @property
    def socket(self) -> FakeSocket:
        return self.sockets[-1]

    @property
    def playout(self) -> FakePlayout:
        return self.playouts[-1]

    def heard(self, call: RelayCall) -> None:
        """The caller has heard everything."""
        self.playout.queued = b""
        call.tick()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    tree = configuration(tmp_path, 1)
    tree["workspaces"][ACME]["ameyo"]["bot_properties"] = ["summary"]
    return World(monkeypatch, from_tree(tree, {}))


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 5))


async def turn() -> None:
    """Let what is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def up(world: World, part: Part = Part.NEW, **bot: Any) -> tuple[RelayCall, FakeStream]:
    call, stream = world.call(**bot), FakeStream()
    call.open_line(20, "")
    call.stream_up(stream, part)
    await turn()
    return call, stream


def test_the_next_controller_is_told_which_ring_is_not_on_yet(world: World) -> None:
    """The one before died between the two displaces."""

    async def story() -> None:
        call, stream = await up(world)
        for opened in [(False, False), (True, False), (True, True)]:
            world.line.opened = opened
            call.receive_order(control.order(Order.HELLO, hold=False))
            assert tuple(ring["on"] for ring in stream.of("state")[-1]["lines"]) == opened
        call.stream_gone(True)

    run(story)


def test_a_bot_that_says_end_is_heard_to_its_last_word(world: World) -> None:
    async def story() -> None:
        call, stream = await up(world)
        assert [entry["news"] for entry in stream.news] == ["state", "connected"]
        assert stream.news[0]["lines"] == [
            {"path": "/lines/a", "on": False},
            {"path": "/lines/b", "on": False},
        ]
        assert world.socket.got("start")
        world.socket.listener.received(TONE)
        world.socket.says(type="end", reason="done", properties={"summary": "x", "foreign": "y"})
        (ended,) = stream.of("ended")
        assert ended["outcome"] == "bot_ended" and ended["reason"] == "done"
        assert ended["properties"] == {"summary": "x"} and ended["dropped"] == ["foreign"]
        assert world.socket.got("error")[0]["code"] == "property_dropped"
        assert not stream.of("done") and not world.socket.closed
        world.heard(call)
        assert stream.of("done")
        assert world.socket.got("stop") == [{"type": "stop", "reason": "ended"}] and world.socket.closed

    run(story)


def no_room(*_: Any, **__: Any) -> FakeLine:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/lines/a")


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("part", list(Part))
def test_a_call_without_line_files_is_over_at_once_and_says_why(
    world: World, monkeypatch: pytest.MonkeyPatch, part: Part, prepared: bool
) -> None:
    monkeypatch.setattr(relay_call.Line, "open", no_room)
    counted = metrics.RELAY_REFUSED.labels("not_made")
    before = counted._value.get()

    async def story() -> None:
        call, stream = world.call(), FakeStream()
        if prepared:
            call.prepare()
            await turn()
        with capture_logs() as told:
            call.open_line(20, "")
            call.stream_up(stream, part)
            await turn()
        assert [entry["news"] for entry in stream.news] == ["state", "ended", "done"]
        assert (stream.news[0]["lines"], stream.news[0]["done"]) == ([], True)
        (ended,) = stream.of("ended")
        assert ended["outcome"] == "relay_lost"
        assert ended["reason"] == "the relay cannot make its line files: No space left on device"
        assert [socket.closed for socket in world.sockets] == [True] * prepared, "the bot is not kept"
        (line,) = told
        assert (line["event"], line["call_id"]) == ("line_not_made", UUID)
        assert "relay.directory" in line["remedy"]
        # What a controller may still say of it, to a call that has no line.
        for order in (
            control.order(Order.HELLO, hold=True),
            control.order(Order.HOLD, on=False),
            control.order(Order.STOP, reason="ended"),
        ):
            with capture_logs() as told:
                call.receive_order(order)
            assert told == []
        call.receive_audio(TONE)
        call.stream_gone(True)
        assert world.forgotten == [UUID]

    run(story)
    assert counted._value.get() == before + 1


def test_a_bot_that_was_not_reached_and_a_line_that_is_not_made_are_one_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_call.Line, "open", no_room)
    world.refusals = ["HTTP status 403"]

    async def story() -> None:
        call, stream = world.call(), FakeStream()
        call.prepare()
        await turn()
        call.open_line(20, "")
        call.stream_up(stream, Part.NEW)
        assert [entry["news"] for entry in stream.news] == ["state", "ended", "done"]
        assert stream.of("ended")[0]["outcome"] == "bot_unreachable"

    run(story)


def test_a_bot_that_breaks_off_is_cut_off_and_the_customer_handed_off(world: World) -> None:
    async def story() -> None:
        _, stream = await up(world)
        world.socket.listener.received(TONE)
        world.socket.listener.lost(1011, "oops")
        assert [entry["news"] for entry in stream.news][-2:] == ["ended", "done"]
        assert stream.of("ended")[0]["outcome"] == "bot_failed"
        assert "1011" in stream.of("ended")[0]["reason"] and "clear" in world.playout.did

    run(story)


def test_a_close_with_1000_is_an_end(world: World) -> None:
    async def story() -> None:
        call, stream = await up(world)
        world.socket.listener.received(TONE)
        world.socket.listener.lost(1000, "bye")
        assert stream.of("ended")[0]["outcome"] == "bot_closed" and not stream.of("done")
        world.heard(call)
        assert stream.of("done")

    run(story)


@pytest.fixture
def caller(monkeypatch: pytest.MonkeyPatch) -> FakeCaller:
    made = FakeCaller()
    monkeypatch.setattr(relay_call, "CallerAudio", lambda: made)
    monkeypatch.setattr(relay_call, "LATENESS_CHECK_INTERVAL", 0.0)
    return made


def test_each_frame_of_the_callers_is_a_message_of_its_own(world: World, caller: FakeCaller) -> None:
    async def story() -> None:
        call, _ = await up(world)
        before = len(world.socket.sent)
        call.receive_audio(TONE)
        assert world.socket.sent[before:] == [TONE, TONE]

    run(story)


def test_lateness_is_told_once_and_then_it_settles(
    world: World, caller: FakeCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_call, "LATENESS_CHECK_INTERVAL", 0.0)

    async def story() -> None:
        call, stream = await up(world)
        caller.late = 0.02
        call.receive_audio(TONE)
        assert not stream.of("late")
        caller.late = 0.04
        call.receive_audio(TONE)
        call.receive_audio(TONE)
        assert [entry["by"] for entry in stream.of("late")] == [0.04]
        assert caller.settled == 1

    run(story)


def test_behind_a_jitter_buffer_nobody_is_made_to_flush(world: World, caller: FakeCaller) -> None:
    async def story() -> None:
        call, stream = await up(world)
        caller.short_packets = True
        call.receive_audio(TONE)
        caller.late, caller.short_packets = 0.3, False
        call.receive_audio(TONE)
        assert len(stream.of("short_packets")) == 1 and not stream.of("late")

    run(story)


@pytest.mark.parametrize("order", [(Order.HELLO, {"hold": False}), (Order.HOLD, {"on": True})])
def test_what_costs_ticks_is_not_late(
    world: World, caller: FakeCaller, order: tuple[Order, dict[str, bool]]
) -> None:
    async def story() -> None:
        call, _ = await up(world)
        call.receive_order(control.order(order[0], ack=0, **order[1]))
        assert caller.settled == 1

    run(story)


def test_no_url_takes_the_call(world: World) -> None:
    async def story() -> None:
        world.refusals = ["Connection refused"]
        _, stream = await up(world)
        assert stream.of("ended")[0] | {"n": 0} == {
            "news": "ended",
            "n": 0,
            "outcome": "bot_unreachable",
            "reason": "Connection refused",
            "properties": {},
            "dropped": [],
        }
        assert stream.of("done")

    run(story)


def test_one_more_chance_is_one(world: World) -> None:
    async def story() -> None:
        _, stream = await up(world, reconnect=True)
        first = world.socket
        first.listener.lost(0, "the connection broke off")
        await turn()
        assert stream.of("reconnected")[0]["why"] == "the connection broke off"
        assert world.socket.got("start")[0]["resumed"] is True
        first.listener.received(TONE)  # what comes of the old socket now is nobody's
        assert not world.playout.queued
        world.socket.listener.lost(1006, "")
        await turn()
        assert stream.of("ended")[0]["outcome"] == "bot_failed" and len(world.sockets) == 2

    run(story)


def test_what_comes_together_is_looked_at_once_and_more_of_what_stands_not_at_all(world: World) -> None:
    async def story() -> None:
        call, _ = await up(world)
        looks: list[float | None] = []
        tick = world.playout.tick
        world.playout.tick = lambda: looks.append(tick()) or looks[-1]  # type: ignore[method-assign]
        world.socket.listener.received(TONE)
        assert len(looks) == 1  # an utterance begins
        world.playout.going = True
        world.socket.listener.received(TONE)
        await turn()
        assert len(looks) == 1  # it stands: the look that is due is soon enough
        say = world.playout.say

        def waits(linear: bytes) -> None:
            say(linear)
            world.playout.going = False  # as where so much stands that it can wait

        world.playout.say = waits  # type: ignore[method-assign]
        world.socket.listener.received(TONE)
        world.playout.going = True
        world.socket.listener.received(TONE)
        assert len(looks) == 1
        await turn()
        assert len(looks) == 2
        call.stream_gone(clean=True)

    run(story)


def test_silence_is_not_speech(world: World) -> None:
    async def story() -> None:
        _, stream = await up(world, first_audio_timeout=0.02)
        world.socket.listener.received(bytes(3200))
        while not stream.of("ended"):
            await asyncio.sleep(0.005)
        assert stream.of("ended")[0]["outcome"] == "bot_silent"

    run(story)


@pytest.mark.parametrize("spoken", [True, False])
def test_a_bot_that_waits_for_the_caller_may_be_silent(world: World, spoken: bool) -> None:
    async def story() -> None:
        call, stream = await up(world, first_audio_timeout=0.02 if spoken else 0)
        if spoken:
            world.socket.listener.received(TONE)
        assert call._bot._first_audio is None or call._bot._first_audio.cancelled()
        assert not stream.of("ended")

    run(story)


def test_a_new_controller_asks_once_and_knows_all(world: World) -> None:
    async def story() -> None:
        call, stream = await up(world)
        world.socket.listener.received(TONE)
        world.socket.says(type="end")
        call.receive_order(control.order(Order.ACK, ack=1))
        before = len(stream.texts)
        call.receive_order(control.order(Order.HELLO, hold=True))
        state, *again = stream.news[before:]
        assert state["news"] == "state" and state["acked"] == 1
        assert state["bot"] == "over" and state["spoken"] and state["ended"]["outcome"] == "bot_ended"
        assert [entry["news"] for entry in again] == ["ended"] and again[0]["n"] == 2
        assert world.socket.got("hold") == [{"type": "hold", "on": True}]
        assert ("hold", True) in world.playout.did

    run(story)


def test_another_stream_finds_the_bot_as_it_was(world: World) -> None:
    async def story() -> None:
        call, _ = await up(world)
        call.stream_gone(clean=False)
        world.socket.listener.received(TONE)
        other = FakeStream()
        call.open_line(20, "")
        call.stream_up(other, Part.UNDER_WAY)
        await turn()
        assert len(world.sockets) == 1 and not world.socket.closed
        assert other.news[0]["bot"] == "connected" and other.news[0]["speaking"]
        assert not world.forgotten

    run(story)


def test_a_freeswitch_that_has_restarted_is_told_of_its_own_rings(world: World, caller: FakeCaller) -> None:
    async def story() -> None:
        call, _ = await up(world)
        caller.short_packets = True
        call.receive_audio(TONE)
        call.receive_order(control.order(Order.HOLD, on=True))
        world.socket.listener.received(TONE)
        world.line.opened = (True, True)
        call.stream_gone(clean=False)
        call.open_line(20, "same")
        call.stream_up(stream := FakeStream(), Part.UNDER_WAY)
        call.receive_audio(TONE)
        assert stream.of("state")[0]["lines"][0]["on"], "the stream merely broke"
        assert len(stream.of("short_packets")) == 1, "told again, and no second time"
        call.stream_gone(clean=False)
        world.line.opened = (False, False)
        call.open_line(20, "restarted")
        call.stream_up(stream := FakeStream(), Part.UNDER_WAY)
        await turn()
        (state,) = stream.of("state")
        assert [ring["on"] for ring in state["lines"]] == [False, False]
        assert (state["bot"], state["speaking"], state["hold"]) == ("connected", True, True)
        assert [did[1] for did in world.playout.did if did[0] == "attached"] == ["same", "restarted"]
        told = len(stream.of("short_packets"))
        call.receive_audio(TONE)
        assert len(stream.of("short_packets")) == told + 1, "its jitter buffer is gone as well"
        assert len(world.sockets) == 1 and not world.socket.closed
        assert not world.socket.got("stop") and len(world.socket.got("start")) == 1
        call.stream_gone(True)

    run(story)


@pytest.mark.parametrize("ended", [False, True])
def test_where_its_rings_cannot_be_made_the_customer_goes_to_a_human(world: World, ended: bool) -> None:
    async def story() -> None:
        call, _ = await up(world)
        world.socket.listener.received(TONE)
        if ended:
            world.socket.says(type="end", reason="said all")
        call.stream_gone(clean=False)
        world.playout.unmade = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        call.open_line(20, "restarted")
        call.stream_up(stream := FakeStream(), Part.UNDER_WAY)
        await turn()
        (state,) = stream.of("state")
        assert state["done"] and state["ended"]["outcome"] == ("bot_ended" if ended else "relay_lost")
        assert world.socket.closed
        call.stream_gone(True)
        assert world.forgotten == [UUID]

    run(story)


@pytest.mark.parametrize("comes", [True, False])
def test_a_stream_that_is_to_be_followed_by_another_is_not_the_calls_end(
    world: World, monkeypatch: pytest.MonkeyPatch, comes: bool
) -> None:
    monkeypatch.setattr(relay_call, "RESTART_TIMEOUT", 0.02)

    async def story() -> None:
        call, _ = await up(world)
        call.receive_order(control.order(Order.AGAIN))
        call.stream_gone(clean=True)
        world.socket.says(type="end")  # while nobody is there to be told
        assert not world.line.removed and not world.forgotten
        if comes:
            other = FakeStream()
            call.stream_up(other, Part.NEW)
            assert len(world.sockets) == 1 and [e["outcome"] for e in other.of("ended")] == ["bot_ended"]
            call.stream_gone(clean=True)  # this is
        else:
            await asyncio.sleep(0.05)  # the time that is measured
        assert world.line.removed and world.socket.closed and world.forgotten == [UUID]

    run(story)


def test_the_relay_before_died(world: World) -> None:
    async def story() -> None:
        _, stream = await up(world, Part.UNDER_WAY)
        assert world.socket.got("start")[0]["resumed"] is True
        assert stream.of("reconnected")

    run(story)


@pytest.mark.parametrize(("part", "silent"), [(Part.UNDER_WAY, True), (Part.HEARD, False)])
def test_who_has_spoken_to_the_relay_before_may_listen(world: World, part: Part, silent: bool) -> None:
    """It is told `resumed`, and right not to greet again."""

    async def story() -> None:
        call, stream = await up(world, part, first_audio_timeout=0.02)
        assert world.socket.got("start")[0]["resumed"] is True
        assert stream.of("state")[0]["spoken"] is not silent
        while silent and not stream.of("ended"):
            await asyncio.sleep(0.005)
        assert (call._bot._first_audio is not None) is silent

    run(story)


def test_the_relay_before_died_with_the_last_words_on_the_line(world: World) -> None:
    async def story() -> None:
        call = world.call()
        call.open_line(20, "")
        world.playout.queued = TONE
        stream = FakeStream()
        call.stream_up(stream, Part.OVER)
        await turn()
        assert not world.sockets and not stream.of("done")
        world.heard(call)
        assert stream.of("done")

    run(story)


def test_files_of_the_relay_before_are_named_until_they_were_heard(world: World) -> None:
    async def story() -> None:
        world.line.predecessor_paths = (Path("/lines/old"),)
        call, stream = await up(world, Part.UNDER_WAY)
        (state,) = stream.of("state")
        assert state["lines"][2:] == [{"path": "/lines/old", "on": True}]
        call.tick()
        assert len(stream.of("state")) == 1
        world.line.predecessor_paths = ()
        call.tick()
        assert [len(state["lines"]) for state in stream.of("state")] == [3, 2]

    run(story)


def test_the_caller_hangs_up(world: World) -> None:
    async def story() -> None:
        call, _ = await up(world)
        call.stream_gone(clean=True)
        assert (
            world.socket.got("stop") == [{"type": "stop", "reason": "caller_hangup"}] and world.socket.closed
        )
        assert world.line.removed and world.forgotten == [UUID]

    run(story)


def test_the_caller_hangs_up_while_the_bot_is_dialled(world: World) -> None:
    async def story() -> None:
        call, stream = world.call(), FakeStream()
        call.open_line(20, "")
        call.stream_up(stream, Part.NEW)
        call.stream_gone(clean=True)
        await turn()
        assert not world.sockets and world.forgotten == [UUID]

    run(story)


def test_the_controller_stops_the_bot(world: World) -> None:
    async def story() -> None:
        call, _ = await up(world)
        world.socket.listener.received(TONE)
        call.receive_order(control.order(Order.STOP, reason="max_duration"))
        assert (
            world.socket.got("stop") == [{"type": "stop", "reason": "max_duration"}] and world.socket.closed
        )
        assert not world.playout.queued
        call.stream_gone(clean=True)
        assert world.line.removed

    run(story)


def test_the_callers_audio_has_no_gap_in_its_time(world: World) -> None:
    async def story() -> None:
        call, _ = await up(world, protocol="twilio")
        frame = tone(1000, 0.02)
        for _ in range(300):
            call.receive_audio(frame)
        call._media_time._began -= 20.0137  # of which none was heard
        for _ in range(2000):
            call.receive_audio(frame)
        messages = [json.loads(message) for message in world.socket.sent]
        times = [int(it["media"]["timestamp"]) for it in messages if it["event"] == "media"]
        assert times[:3] == [0, 20, 40]
        steps = [later - before for before, later in pairwise(times)]
        assert steps[299] >= 14_000 and steps[299] % 20 == 0
        assert set(steps[:299] + steps[300:]) == {20}

    run(story)


def test_a_key_goes_to_the_bot_and_an_unknown_order_nowhere(world: World) -> None:
    async def story() -> None:
        call, _ = await up(world)
        call.receive_order(control.order(Order.KEY, digit="5", ms=120))
        for text in (
            "{",
            "[]",
            '{"order": "dance"}',
            '{"order": "key", "digit": 5}',
            '{"order": "ack", "ack": "x"}',
        ):
            call.receive_order(text)
        assert world.socket.got("dtmf") == [{"type": "dtmf", "digit": "5", "duration_ms": 120}]

    run(story)


def test_what_the_bot_says_before_its_start_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async def dial(bot: Any, headers: Any, listener: Any) -> FakeSocket:
            socket = await world._dial(bot, headers, listener)
            listener.received(TONE)
            listener.received(json.dumps({"type": "end"}))
            listener.lost(1000, "")
            return socket

        monkeypatch.setattr(bot_part, "dial", dial)
        _, stream = await up(world)
        assert world.playout.queued == TONE
        assert stream.of("ended")[0]["outcome"] == "bot_ended"

    run(story)


def test_marks_and_refusals(world: World) -> None:
    async def story() -> None:
        call, stream = await up(world)
        world.socket.listener.received(TONE)
        world.socket.says(type="mark", name="one")
        call.mark_reached("one", False)
        assert world.socket.got("mark") == [{"type": "mark", "name": "one"}]
        assert stream.of("mark")[0]["name"] == "one"
        world.playout.full = True
        for _ in range(3):
            world.socket.listener.received(TONE)
        assert [error["code"] for error in world.socket.got("error")] == ["queue_full"]
        world.socket.listener.received("nonsense")
        world.socket.listener.received("nonsense")

    with capture_logs() as lines:
        run(story)
    ignored = [line["why"] for line in lines if line["event"] == "bot_message_ignored"]
    assert ignored == ["queue_full", "bad_json"]


def test_a_fault_of_ours_hands_the_customer_off(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        _call, stream = await up(world)

        def broken(linear: bytes) -> None:
            raise RuntimeError("a fault")

        monkeypatch.setattr(world.playout, "say", broken)
        world.socket.listener.received(TONE)
        assert stream.of("ended")[0]["outcome"] == "internal_error" and stream.of("done")
        assert world.socket.closed

    run(story)


def test_the_bot_of_a_call_that_is_about_to_be_answered_is_dialled_once(world: World) -> None:
    async def story() -> None:
        call = world.call()
        call.prepare()
        await turn()
        assert len(world.sockets) == 1 and len(world.socket.got("start")) == 1
        world.socket.listener.received(TONE)  # nobody has told it to wait
        stream = FakeStream()
        call.open_line(20, "")
        call.stream_up(stream, Part.NEW)
        await turn()
        assert len(world.sockets) == 1 and len(world.socket.got("start")) == 1
        assert [entry["news"] for entry in stream.news] == ["state", "connected"]
        assert world.playout.queued == TONE

    run(story)


def test_a_relay_that_ends_at_once_leaves_the_line_to_the_next(world: World) -> None:
    async def story() -> None:
        call, stream = await up(world)
        call.shutdown()
        assert world.socket.got("stop") == [{"type": "stop", "reason": "shutdown"}] and world.socket.closed
        assert not world.line.removed and world.forgotten == [UUID] and stream.closed

    run(story)


def test_a_relay_lets_go_of_a_call_that_another_one_has(world: World) -> None:
    async def story() -> None:
        call, stream = await up(world)
        world.playout.taken = True
        call.tick()
        assert world.socket.closed and stream.closed
        assert not world.line.removed and world.forgotten == [UUID]

    run(story)


def test_speech_that_is_not_heard_is_counted_and_told_once(world: World) -> None:
    lost = metrics.RELAY_SPEECH_LOST.labels("full")._value

    async def story() -> None:
        call, _ = await up(world)
        before = lost.get()
        for seconds in (0.5, 0.75):
            world.playout.lost = seconds
            call.tick()
        assert lost.get() - before == 0.75

    with capture_logs() as lines:
        run(story)
    assert [line["event"] for line in lines].count("speech_lost") == 1


def test_a_fault_of_ours_behind_the_bots_end_is_no_end_without_done(world: World) -> None:
    async def story() -> None:
        call, stream = await up(world)
        world.socket.listener.received(TONE)
        world.socket.says(type="end", reason="done")

        def broken() -> None:
            raise OSError(5, "Input/output error")

        world.playout.tick = broken  # type: ignore[method-assign]
        call.tick()
        call.tick()
        assert [end["outcome"] for end in stream.of("ended")] == ["bot_ended"]
        assert len(stream.of("done")) == 1 and world.socket.closed

    run(story)


def test_a_fault_that_each_frame_has_is_told_once_and_counted(world: World, caller: FakeCaller) -> None:
    async def story() -> None:
        call, stream = await up(world)
        caller.frames = None  # type: ignore[assignment, method-assign]
        before = metrics.INTERNAL_ERRORS._value.get()
        for _ in range(50):
            call.receive_audio(TONE)
        assert metrics.INTERNAL_ERRORS._value.get() == before + 50
        assert len(stream.of("ended")) == len(stream.of("done")) == 1

    with capture_logs() as lines:
        run(story)
    assert [line["event"] for line in lines].count("relay_call_failed") == 1


def test_last_words_that_were_heard_are_not_cut_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bot_part, "LAST_WORDS", 0.01)

    async def story() -> None:
        call, stream = await up(world)
        world.socket.says(type="end")
        assert stream.of("done") and call._bot._last_words is not None
        assert call._bot._last_words.cancelled()

    run(story)


def test_a_bot_that_is_dialled_again_has_its_whole_time_to_speak(world: World) -> None:
    async def story() -> None:
        call, _ = await up(world, reconnect=True, first_audio_timeout=1.0)
        first = call._bot._first_audio
        assert first is not None
        world.socket.listener.lost(0, "the connection broke off")
        assert first.cancelled(), "while it is dialled it cannot speak"
        await turn()
        assert call._bot._first_audio is not first and call._bot._first_audio is not None
        assert not call._bot._first_audio.cancelled()

    run(story)


# -- a bot that is there before the caller ----------------------------------------------------------------


async def prepared(world: World, **bot: Any) -> RelayCall:
    call = world.call(**bot)
    call.prepare()
    await turn()
    return call


async def answered(call: RelayCall) -> FakeStream:
    stream = FakeStream()
    call.open_line(20, "")
    call.stream_up(stream, Part.NEW)
    for _ in range(10):
        await turn()
    return stream


@pytest.mark.parametrize("how", ["caller", "relay"])
def test_who_hangs_up_before_the_answer_leaves_a_bot_that_knows_it(world: World, how: str) -> None:
    async def story() -> None:
        call = await prepared(world)
        if how == "caller":
            call.stream_gone(clean=True)
        else:
            call.shutdown()
        reason = "caller_hangup" if how == "caller" else "shutdown"
        assert world.socket.got("stop") == [{"type": "stop", "reason": reason}]
        assert world.socket.closed and world.forgotten == [UUID]

    run(story)


def test_a_whole_minute_said_before_the_answer_is_heard(world: World) -> None:
    async def story() -> None:
        call = await prepared(world)
        for _ in range(5999):
            world.socket.listener.received(TONE[:160])
        world.socket.says(type="end")
        stream = await answered(call)
        assert len(world.playout.queued) == 5999 * 160
        assert stream.of("ended")[0]["outcome"] == "bot_ended"

    run(story)


def test_a_flood_before_the_answer_ends_the_bot_and_is_not_kept(world: World) -> None:
    async def story() -> None:
        call = await prepared(world, reconnect=True)
        for _ in range(5):
            world.socket.listener.received(bytes(4 * 1024 * 1024))
        assert world.socket.closed and world.socket.got("error")[0]["code"] == "over_budget"
        stream = await answered(call)
        assert not world.playout.queued and len(world.sockets) == 1
        assert [end["outcome"] for end in stream.of("ended")] == ["bot_failed"]
        assert len(stream.of("done")) == 1 and not stream.of("connected")

    run(story)


def test_a_bot_that_is_lost_before_the_answer_has_its_other_chance(world: World) -> None:
    async def story() -> None:
        call = await prepared(world, reconnect=True)
        world.socket.listener.lost(0, "the connection broke")
        stream = await answered(call)
        told = [entry["news"] for entry in stream.news if entry["news"] != "state"]
        assert told == ["connected", "reconnected"] and len(world.sockets) == 2

    run(story)


def test_a_bot_that_is_not_there_before_the_answer_is_told_with_the_stream(world: World) -> None:
    async def story() -> None:
        world.refusals = ["Connection refused"]
        call = await prepared(world)
        stream = await answered(call)
        told = [entry["news"] for entry in stream.news]
        assert told == ["state", "ended", "done"]
        assert stream.news[0]["ended"]["outcome"] == "bot_unreachable"

    run(story)


def test_a_fault_of_ours_before_the_answer_leaves_no_socket(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault")

    monkeypatch.setattr(bot_part.protocols.Protocol, "start", broken)
    monkeypatch.setattr("eslbot.relay.protocols.eslbot.Eslbot.start", broken)

    async def story() -> None:
        call = await prepared(world)
        assert world.socket.closed
        stream = await answered(call)
        assert [entry["news"] for entry in stream.news] == ["state", "ended", "done"]
        assert stream.of("ended")[0]["outcome"] == "internal_error"

    run(story)


@pytest.mark.parametrize("broken", ["stop", "close", "line"])
def test_whatever_goes_wrong_at_the_end_the_call_is_over(
    world: World, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    async def story() -> None:
        call, stream = await up(world)
        if broken == "stop":
            monkeypatch.setattr("eslbot.relay.protocols.eslbot.Eslbot.stop", fails)
        elif broken == "close":
            monkeypatch.setattr(stream, "close", fails)
        else:
            monkeypatch.setattr(world.line, "close", fails)
        call.shutdown()
        assert world.forgotten == [UUID] and world.socket.closed
        assert stream.closed or broken == "close"
        assert call._next_tick is not None and call._next_tick.cancelled()

    run(story)


def test_long_speeches_that_nobody_can_hear_are_refused_one_a_turn(world: World) -> None:
    async def story() -> None:
        _, stream = await up(world)
        depth = 0

        def say(linear: bytes) -> None:
            nonlocal depth
            frame, deep = inspect.currentframe(), 0
            while frame is not None:
                frame, deep = frame.f_back, deep + 1
            depth = max(depth, deep)
            if len(world.playout.queued) > len(PIECE_OF_IT):
                raise QueueFull("full")
            world.playout.queued += linear

        world.playout.say = say  # type: ignore[method-assign]
        world.socket.listener.received(PIECE_OF_IT * 40)
        first = depth
        for _ in range(100):
            world.socket.listener.received(PIECE_OF_IT + TONE)
        world.socket.says(type="end")
        for _ in range(50):
            await turn()
        assert stream.of("ended")[0]["outcome"] == "bot_ended"
        assert depth <= first

    run(story)


# -- orders while the bot is dialled, and a bot that goes on when it is over --------------------------------


def test_a_hold_that_is_told_while_the_bot_is_dialled_reaches_it(world: World) -> None:
    async def story() -> None:
        call, stream = world.call(), FakeStream()
        call.open_line(20, "")
        call.stream_up(stream, Part.NEW)
        call.receive_order(control.order(Order.HELLO, hold=True))
        assert [(state["bot"], state["hold"]) for state in stream.of("state")] == [("dialling", False)] * 2
        await turn()
        texts = [json.loads(message)["type"] for message in world.socket.sent]
        assert texts == ["start", "hold"]

    run(story)


def test_a_stop_while_the_bot_is_dialled_is_the_end_of_it(world: World) -> None:
    async def story() -> None:
        call, stream = world.call(), FakeStream()
        call.open_line(20, "")
        call.stream_up(stream, Part.NEW)
        call.receive_order(control.order(Order.STOP, reason="max_duration"))
        await turn()
        assert not world.sockets
        call.receive_order(control.order(Order.HELLO, hold=False))
        state = stream.of("state")[-1]
        assert (state["bot"], state["done"]) == ("over", True)
        assert not stream.of("ended") and not stream.of("done")

    run(story)


def test_a_bot_that_floods_behind_its_end_keeps_its_last_words_and_no_more(world: World) -> None:
    async def story() -> None:
        call, stream = await up(world, reconnect=True)
        world.socket.listener.received(TONE)
        world.socket.says(type="end", reason="done")
        for _ in range(7000):
            world.socket.listener.received("{}")
        assert world.socket.closed and len(world.sockets) == 1
        assert world.playout.queued == TONE and not stream.of("done")
        world.heard(call)
        assert [end["outcome"] for end in stream.of("ended")] == ["bot_ended"]
        assert len(stream.of("done")) == 1

    run(story)


# -- turns ------------------------------------------------------------------------------------------------


async def talks(
    world: World, monkeypatch: pytest.MonkeyPatch, breaks: Callable[[RelayCall], None]
) -> list[Any]:
    """The caller asks, something happens, the bot answers half a second later; the turns that are told."""
    now = 1000.0
    monkeypatch.setattr(relay_call.time, "monotonic", lambda: now)
    monkeypatch.setattr(relay_call, "CallerAudio", CallerAudio)
    call, stream = await up(world)

    def hear(*pieces: Samples) -> None:
        nonlocal now
        for frame in frames(*pieces):
            call.receive_audio(frame)
            now += 0.02

    hear(silence(1), speech(1, 1), silence(0.5))
    breaks(call)
    world.playout.told.bot_audible(now, now - 0.1)
    hear(silence(1))
    world.playout.told.bot_inaudible(now, False)
    hear(silence(1))
    told = stream.of("turn")
    call.stream_gone(True)
    return told


def test_an_answer_is_told_once_with_its_share(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        (turn,) = await talks(world, monkeypatch, lambda call: None)
        assert turn["kind"] == "answer" and turn["turn"] == 1 and turn["n"] > 0
        assert turn["seconds"] == pytest.approx(0.52, abs=0.025)
        assert turn["bot"] == pytest.approx(turn["seconds"] - DOWNLINK - 0.1, abs=0.002)
        assert 0.5 < turn["ago"] < 0.8

    run(story)


@pytest.mark.parametrize(
    "breaks",
    [
        lambda call: call.receive_order(control.order(Order.KEY, digit="5", ms=100)),
        lambda call: call.receive_order(control.order(Order.HOLD, on=True)),
        lambda call: call.stream_gone(False),
        lambda call: call.stream_up(FakeStream(), Part.UNDER_WAY),
        lambda call: call.open_line(20, "restarted"),
    ],
    ids=["key", "hold", "stream gone", "another stream", "switch restarted"],
)
def test_a_turn_that_cannot_be_measured_is_not_told(
    world: World, monkeypatch: pytest.MonkeyPatch, breaks: Callable[[RelayCall], None]
) -> None:
    async def story() -> None:
        assert await talks(world, monkeypatch, breaks) == []

    run(story)


def test_a_barge_in_is_told_and_an_echo_is_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        now = 1000.0
        monkeypatch.setattr(relay_call.time, "monotonic", lambda: now)
        monkeypatch.setattr(relay_call, "CallerAudio", CallerAudio)
        call, stream = await up(world)

        def hear(*pieces: Samples) -> None:
            nonlocal now
            for frame in frames(*pieces):
                call.receive_audio(frame)
                now += 0.02

        hear(silence(1))
        world.playout.told.bot_audible(now, now)
        world.playout.level = 6000.0
        hear(speech(2, 3, 600))  # of that
        hear(silence(0.5))
        hear(speech(0.4, 5, 6000))
        world.socket.says(type="clear")
        world.playout.told.bot_inaudible(now, True)
        world.playout.level = 0.0
        hear(speech(0.4, 6, 6000), silence(2))
        (turn,) = stream.of("turn")
        assert turn["kind"] == "barge_in"
        assert turn["seconds"] == pytest.approx(0.4, abs=0.04)
        assert turn["bot"] == pytest.approx(0.4, abs=0.04)
        call.stream_gone(True)

    run(story)


def test_with_other_packets_or_a_jitter_buffer_nothing_is_measured(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        call, stream = world.call(), FakeStream()
        call.open_line(40, "")
        call.stream_up(stream, Part.NEW)
        await turn()
        for frame in frames(silence(0.1)):
            call.receive_audio(frame)
        assert not call._turns.measured
        call.stream_gone(True)
        call, stream = await up(world)
        assert call._turns.measured
        call._caller.short_packets = True
        call.receive_audio(TONE)
        assert not call._turns.measured
        assert stream.of("short_packets")
        call.stream_gone(True)

    monkeypatch.setattr(relay_call, "CallerAudio", FakeCaller)
    run(story)


def test_a_bot_is_told_the_calls_trace(world: World) -> None:
    async def story() -> None:
        call, _ = await up(world)
        assert world.socket.got("start")[0]["traceparent"] == traceparent(UUID, 1.0)
        call.stream_gone(True)

    run(story)
