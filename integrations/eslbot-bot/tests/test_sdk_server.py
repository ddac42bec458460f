"""How a bot's coroutine ends, who is let in, and how its server does."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_eslbot import House, Relay, play
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve as websockets_serve
from websockets.exceptions import InvalidStatus

import eslbot_bot
from eslbot_bot import Bot, Call
from eslbot_bot import server as server_module


async def patient(call: Call) -> None:
    async for _ in call:
        pass


async def raises(call: Call) -> None:
    raise LookupError("a secret of the builder's")


# -- how a bot ends ---------------------------------------------------------------------------------------


def test_a_coroutine_that_returns_is_finished() -> None:
    async def returns(call: Call) -> None:
        call.say(b"\1" * 320)

    async def story(house: House) -> None:
        relay = await house.begin()
        await relay.answer_mark()
        assert await relay.next() == {"type": "end", "properties": {}, "reason": ""}
        await relay.stop()

    play(story, returns)


def test_a_coroutine_that_raises_is_a_failure_and_tells_nobody_why(caplog: pytest.LogCaptureFixture) -> None:
    async def story(house: House) -> None:
        relay = await house.begin()
        assert await relay.closed() == 1011
        assert relay.socket.close_reason == "the bot has failed"
        # With `reconnect` eslbot tries once more: the call is the same, and it has failed.
        again = await house.begin(resumed=True)
        assert await again.closed() == 1011

    play(story, raises)
    assert caplog.text.count("LookupError: a secret of the builder's") == 1, "once, in the builder's own log"


def test_a_coroutine_that_raises_in_a_break_has_failed_too() -> None:
    async def fragile(call: Call) -> None:
        await broken.wait()
        raise LookupError

    async def story(house: House) -> None:
        global broken
        broken = asyncio.Event()
        relay = await house.begin()
        await relay.break_off()
        broken.set()
        again = await house.begin(resumed=True)
        assert await again.closed() == 1011

    play(story, fragile)


def test_what_was_ended_before_it_raised_stays_so() -> None:
    async def late(call: Call) -> None:
        call.end({"summary": "done"})
        raise LookupError

    async def story(house: House) -> None:
        relay = await house.begin()
        assert (await relay.next())["properties"] == {"summary": "done"}
        await relay.tell(type="resumed")
        assert (await relay.next())["type"] == "resumed"
        assert (await relay.next())["type"] == "end"
        await relay.stop()
        assert relay.socket.close_code == 1000

    play(story, late)


def test_eslbot_that_does_not_close_behind_an_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "END_WITHIN", 0.05)

    async def story(house: House) -> None:
        relay = await house.begin()
        assert await relay.closed() == 1001
        assert house.bot.calls == 0

    async def returns(call: Call) -> None:
        return

    play(story, returns)


# -- who is let in ----------------------------------------------------------------------------------------


def test_no_start_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "START_WITHIN", 0.05)

    async def story(house: House) -> None:
        relay = await house.dial()
        await relay.socket.send(b"\1" * 320)
        assert await relay.closed() == 1002
        assert house.bot.calls == 0
        gone = await house.dial()
        await gone.break_off()

    play(story, patient)


async def refused(house: House, call_id: str = "another", **headers: str) -> int:
    with pytest.raises(InvalidStatus) as caught:
        await house.dial(call_id, **headers)
    return caught.value.response.status_code


def test_authorization() -> None:
    async def story(house: House) -> None:
        assert await refused(house) == 401
        assert await refused(house, Authorization="Bearer other") == 401
        relay = await house.dial(Authorization="Bearer ours")
        await relay.start()
        await relay.stop()

    play(story, patient, authorization="Bearer ours")


def test_others_than_so_many_are_refused_and_a_call_that_is_here_is_not() -> None:
    async def story(house: House) -> None:
        first = await house.begin()
        await first.socket.send(b"\1\1")
        while house.bot.calls < 1:
            await asyncio.sleep(0.002)
        assert await refused(house) == 503
        await first.break_off()
        second = await house.begin(resumed=True)
        await second.stop()

    play(story, patient, max_calls=1)


def test_in_somebody_elses_server_nobody_is_let_in_either() -> None:
    bot = Bot(patient, authorization="Bearer ours", max_calls=0)

    async def told() -> None:
        async with websockets_serve(bot, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            for headers, code in ({}, 1008), ({"Authorization": "Bearer ours"}, 1013):
                async with connect(
                    f"ws://127.0.0.1:{port}/", additional_headers=headers, proxy=None
                ) as socket:
                    assert await Relay(socket).closed() == code

    asyncio.run(asyncio.wait_for(told(), 10))


# -- how its server ends ----------------------------------------------------------------------------------


def test_a_drain_waits_for_calls_and_takes_no_others() -> None:
    async def story(house: House) -> None:
        relay = await house.begin()
        while house.bot.calls < 1:
            await asyncio.sleep(0.002)
        draining = asyncio.create_task(house.bot.drain(10))
        await asyncio.sleep(0)
        assert await refused(house) == 503
        await relay.break_off()
        relay = await house.begin(resumed=True)
        assert not draining.done()
        await relay.stop()
        assert await draining == 0

    play(story, patient)


def test_what_a_drain_cuts_is_a_failure() -> None:
    async def story(house: House) -> None:
        relay = await house.begin()
        while house.bot.calls < 1:
            await asyncio.sleep(0.002)
        draining = asyncio.create_task(house.bot.drain(0.05))
        assert await relay.closed() == 1012
        assert await draining == 1

    play(story, patient)


SERVER = """
import asyncio
from eslbot_bot import serve
async def bot(call):
    async for event in call:
        pass
asyncio.run(serve(bot, "127.0.0.1", 0, listening=lambda host, port: print(host, port, flush=True)))
"""


@contextmanager
def process() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server in a process of its own, and its port."""
    path = str(Path(eslbot_bot.__file__).parents[1])
    running = subprocess.Popen(
        [sys.executable, "-c", SERVER],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    try:
        assert running.stdout is not None
        yield running, int(running.stdout.readline().split()[1])
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize("twice", [False, True])
def test_signals(twice: bool) -> None:
    async def told(port: int, send: int) -> None:
        async with connect(f"ws://127.0.0.1:{port}/", proxy=None) as socket:
            relay = Relay(socket)
            await relay.start()
            await relay.tell(type="resumed")
            await relay.next()  # the call is there
            os.kill(send, signal.SIGTERM)
            if twice:
                os.kill(send, signal.SIGINT)
                assert await relay.closed() == 1012
                return
            while True:  # until the signal has come
                try:
                    async with connect(f"ws://127.0.0.1:{port}/", proxy=None):
                        await asyncio.sleep(0.01)
                except InvalidStatus as error:
                    assert error.response.status_code == 503
                    break
            await relay.tell(type="resumed")
            assert await relay.next() == {"type": "resumed"}, "it is still here"
            await relay.stop()

    with process() as (running, port):
        asyncio.run(asyncio.wait_for(told(port, running.pid), 20))
        assert running.wait(10) == 0
