"""A call over several connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fakes import FakeSocket, start
from pipecat_eslbot import Line
from pipecat_eslbot.line import FAILED, MOST_WAITING, TAKEN_OVER
from starlette.websockets import WebSocketState

END = {"type": "end", "properties": {"a": 1}}


class Scene:
    """A line, and its connections."""

    def __init__(self, patience: float = 5.0) -> None:
        self.line = Line({}, patience=patience)
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, *, resumed: bool = False, before: tuple[bytes, ...] = ()) -> FakeSocket:
        socket = FakeSocket()
        carried = self.line.carry(socket.starlette, start(resumed=resumed), before)
        self._tasks.append(asyncio.create_task(carried))
        await settle()
        return socket

    async def say(self, message: dict[str, Any]) -> None:
        await self.line.send_text(json.dumps(message))

    async def mark(self, name: str) -> None:
        await self.say({"type": "mark", "name": name})

    def received(self) -> list[Any]:
        """What waits for the pipeline."""
        waiting = [message.get("bytes") or json.loads(message["text"]) for message in self.line._waiting]
        self.line._waiting.clear()
        return waiting

    async def finish(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def settle() -> None:
    """Let everything that can run have run."""
    for _ in range(20):
        await asyncio.sleep(0)


def scene(play: Callable[[Scene], Awaitable[None]], patience: float = 5.0) -> None:
    async def go() -> None:
        played = Scene(patience)
        try:
            await play(played)
        finally:
            await played.finish()

    asyncio.run(go())


def test_both_ways() -> None:
    async def play(scene: Scene) -> None:
        socket = await scene.connect(before=(b"first",))
        socket.say(b"second")
        socket.say({"type": "dtmf", "digit": "5"})
        await settle()
        assert scene.received() == [b"first", b"second", {"type": "dtmf", "digit": "5"}]
        await scene.line.send_bytes(b"speech")
        await scene.say({"type": "clear"})
        assert socket.sent == [b"speech", {"type": "clear"}]
        assert scene.line.client_state is WebSocketState.CONNECTED

    scene(play)


def test_what_is_said_while_the_line_is_away_comes_behind_it() -> None:
    async def play(scene: Scene) -> None:
        first = await scene.connect()
        await scene.line.send_bytes(b"one")
        first.hang_up(1006)
        await settle()
        await scene.line.send_bytes(b"two")
        await scene.mark("heard")
        await scene.line.send_bytes(b"three")
        assert scene.line.client_state is WebSocketState.CONNECTED, "the pipeline goes on"
        second = await scene.connect(resumed=True)
        await scene.line.send_bytes(b"four")
        assert second.sent == [b"two", {"type": "mark", "name": "heard"}, b"three", b"four"]
        assert [message["type"] for message in scene.received()] == ["start"]

    scene(play)


def test_a_send_that_fails_before_the_break_is_told_is_not_lost() -> None:
    async def play(scene: Scene) -> None:
        first = await scene.connect()
        first.broken = True
        await scene.line.send_bytes(b"one")
        first.hang_up(1006)
        second = await scene.connect(resumed=True)
        assert second.sent == [b"one"]

    scene(play)


def test_an_interruption_while_the_line_is_away_drops_what_nobody_heard() -> None:
    async def play(scene: Scene) -> None:
        first = await scene.connect()
        await scene.mark("sent")
        first.hang_up(1006)
        await settle()
        await scene.line.send_bytes(b"old")
        await scene.mark("kept")
        await scene.say({"type": "clear"})
        await scene.line.send_bytes(b"new")
        second = await scene.connect(resumed=True)
        marks = [{"type": "mark", "name": name} for name in ("sent", "kept")]
        assert second.sent == [*marks, {"type": "clear"}, b"new"]

    scene(play)


def test_marks_that_have_not_come_back_are_asked_for_again_and_come_once() -> None:
    async def play(scene: Scene) -> None:
        first = await scene.connect()
        for name in ("a", "b", "b"):
            await scene.mark(name)
        first.say({"type": "mark", "name": "a"})
        await settle()
        first.hang_up(1006)
        second = await scene.connect(resumed=True)
        assert second.sent == [{"type": "mark", "name": "b"}] * 2
        scene.received()
        for _ in range(3):  # the first connection's own come as well, where a relay has lived
            second.say({"type": "mark", "name": "b"})
        await settle()
        assert scene.received() == [{"type": "mark", "name": "b"}] * 2

    scene(play)


@pytest.mark.parametrize("away", [False, True])
def test_the_end_is_said_again(away: bool) -> None:
    async def play(scene: Scene) -> None:
        first = await scene.connect()
        if away:
            first.hang_up(1006)
            await settle()
        await scene.line.send_bytes(b"good-bye")
        await scene.say(END)
        await scene.line.close(1000)
        assert first.closed is None, "eslbot closes when the last word was heard"
        first.hang_up(1006)
        second = await scene.connect(resumed=True)
        assert second.sent == ([b"good-bye", END] if away else [END])
        second.say({"type": "resumed"})
        await settle()
        assert second.sent[-2:] == [{"type": "resumed"}, END]
        second.say({"type": "stop", "reason": "ended"})
        second.hang_up(1000)
        await scene.line.part(5)
        assert scene.line.stop_reason == "ended"

    scene(play)


def test_resumed_is_answered() -> None:
    async def play(scene: Scene) -> None:
        socket = await scene.connect()
        socket.say({"type": "resumed"})
        await settle()
        assert socket.sent == [{"type": "resumed"}] and scene.received() == []

    scene(play)


@pytest.mark.parametrize(("reason", "code"), [("caller_hangup", 1000), ("max_duration", 1006), ("", 1000)])
def test_a_stop_or_a_close_is_the_end_of_the_call(reason: str, code: int) -> None:
    async def play(scene: Scene) -> None:
        socket = await scene.connect()
        if reason:
            socket.say({"type": "stop", "reason": reason})
        socket.hang_up(code)
        await settle()
        assert scene.line.over.is_set() and scene.line.stop_reason == reason
        assert scene.line.client_state is WebSocketState.DISCONNECTED
        assert (await scene.line.receive())["type"] == "websocket.disconnect"

    scene(play)


def test_a_relay_that_shuts_down_is_followed_by_another_one() -> None:
    async def play(scene: Scene) -> None:
        first = await scene.connect()
        first.say({"type": "stop", "reason": "shutdown"})
        first.hang_up(1000)
        await settle()
        assert not scene.line.over.is_set()
        second = await scene.connect(resumed=True)
        second.say({"type": "stop", "reason": "caller_hangup"})
        second.hang_up(1000)
        await settle()
        assert scene.line.over.is_set()

    scene(play)


def test_a_line_that_does_not_come_back_is_over() -> None:
    async def play(scene: Scene) -> None:
        first = await scene.connect()
        first.hang_up(1006)
        await asyncio.wait_for(scene.line.over.wait(), 5)
        assert (await scene.line.receive())["type"] == "websocket.disconnect"

    scene(play, patience=0.01)


def test_a_second_connection_takes_over_from_one_that_hangs() -> None:
    async def play(scene: Scene) -> None:
        first = await scene.connect()
        second = await scene.connect(resumed=True)
        assert first.closed == TAKEN_OVER
        await settle()
        await scene.line.send_bytes(b"on")
        assert second.sent == [b"on"] and not scene.line.over.is_set()

    scene(play)


@pytest.mark.parametrize("away", [False, True])
def test_a_pipeline_that_leaves_without_an_end_has_failed(away: bool) -> None:
    async def play(scene: Scene) -> None:
        socket = await scene.connect()
        if away:
            socket.hang_up(1006)
            await settle()
        await scene.line.close(1000)
        assert socket.closed == (None if away else FAILED) and scene.line.over.is_set()

    scene(play)


def test_what_eslbot_does_not_close_is_closed() -> None:
    async def play(scene: Scene) -> None:
        socket = await scene.connect()
        await scene.say(END)
        await scene.line.part(0.01)
        assert socket.closed == 1000 and scene.line.over.is_set()

    scene(play)


def test_a_pipeline_that_reads_nothing_has_the_latest_and_not_everything() -> None:
    async def play(scene: Scene) -> None:
        socket = await scene.connect()
        for number in range(MOST_WAITING + 10):
            socket.say(number.to_bytes(2, "big"))
        while not socket._coming.empty():
            await asyncio.sleep(0)
        received = scene.received()
        assert len(received) == MOST_WAITING and received[-1] == (MOST_WAITING + 9).to_bytes(2, "big")

    scene(play)


@pytest.mark.parametrize("nonsense", ["nonsense", "[]", '{"type": 7}', '{"type": "mark"}'])
def test_nonsense_is_survived(nonsense: str) -> None:
    async def play(scene: Scene) -> None:
        socket = await scene.connect()
        socket.say(nonsense)
        socket.say(b"audio")
        await settle()
        assert scene.received()[-1] == b"audio"

    scene(play)
