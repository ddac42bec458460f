"""The bots in ``integrations/examples`` by eslbot's protocol alone: all of them do the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from eslbot.audio.decoder import Decoder
from eslbot.relay.protocols import headers, speak
from eslbot.relay.protocols.base import Clear, End, Mark, Message, Protocol, Speech, Wish
from eslbot.sim.audio import heard, silence, tone
from eslbot.sim.bot.wavfiles import wav
from tests.e2e.outside import bots
from tests.e2e.outside.bots import Running
from tests.support.protocols import INVITE, TRACE, bot_of

#: Hertz of what the bots say, and of their caller.
GREETING, YES, GOODBYE, CALLER = 440, 550, 660, 350
#: Frames of a caller, and of one that is not there.
LOUD, QUIET = tone(CALLER, 0.02), silence(0.02)
LIMIT = 15.0


@pytest.fixture(scope="module", params=["plain", "sdk", "node"])
def example(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    try:
        with bots.example(request.param, tmp_path_factory.mktemp(request.param)) as running:
            yield running
    except bots.Missing as missing:
        pytest.skip(str(missing))


class Relay:
    """One connection of a call; what the bot wants is read by the relay's own protocol."""

    def __init__(self, socket: ClientConnection, protocol: Protocol) -> None:
        self.socket, self.protocol = socket, protocol
        self.speech = bytearray()
        self._decoder = Decoder()

    async def say(self, *messages: Message) -> None:
        for message in messages:
            await self.socket.send(message)

    async def wish(self) -> Wish:
        """The bot's next, but for speech."""
        while True:
            for wish in self.protocol.read(await self.socket.recv()):
                if not isinstance(wish, Speech):
                    return wish
                self.speech += self._decoder.decode(wish)

    async def mark(self) -> str:
        wish = await self.wish()
        assert isinstance(wish, Mark), wish
        return wish.name

    async def closed(self) -> int:
        try:
            while True:
                await self.wish()
        except ConnectionClosed:
            assert self.socket.close_code is not None
            return self.socket.close_code


Dial = Callable[..., Awaitable[Relay]]


def call(running: Running, story: Callable[[Dial], Awaitable[None]], rate: int = 8000) -> None:
    """A call to the bot, which has an id of its own; ``story`` has its connections."""
    invite = replace(INVITE, call_id=str(uuid4()))
    bot = bot_of("eslbot", rate)
    open_sockets: list[ClientConnection] = []

    async def dial(*, resumed: bool = False) -> Relay:
        socket = await connect(
            running.url,
            additional_headers=headers(invite, bot, TRACE),
            compression=None,
            proxy=None,
        )
        open_sockets.append(socket)
        relay = Relay(socket, speak(invite, bot, TRACE))
        await relay.say(*relay.protocol.start(resumed=resumed))
        return relay

    async def told() -> None:
        try:
            await story(dial)
        finally:
            for socket in open_sockets:  # without a close they would be waited for
                await socket.close()

    asyncio.run(asyncio.wait_for(told(), LIMIT))


def ended(digit: str, group: str, greeting: str) -> End:
    return End({"agent_group": group, "summary": f"pressed {digit}, greeting {greeting}"}, "key pressed")


@pytest.mark.parametrize("rate", [8000, 16000, 24000])
def test_it_greets_takes_a_key_and_ends(example: Running, rate: int) -> None:
    async def story(dial: Dial) -> None:
        relay = await dial()
        await relay.say(bytes(rate // 25), json.dumps({"type": "news", "more": 1}))
        marks = [await relay.mark()]
        if "greeted" not in marks[0]:  # the SDK's own, behind what was said
            marks.append(await relay.mark())
        assert heard(relay.speech, GREETING) == pytest.approx(3.0, abs=0.05)
        for mark in marks:
            await relay.say(*relay.protocol.mark(mark, cleared=False))
        relay.speech.clear()
        await relay.say(*relay.protocol.key("2", 120))
        assert await relay.wish() == Clear()
        await relay.mark()
        assert heard(relay.speech, GOODBYE) == pytest.approx(0.4, abs=0.05)
        assert await relay.wish() == ended("2", "support", "heard")
        await relay.say(*relay.protocol.key("1", 120), *relay.protocol.stop("ended"))
        await relay.socket.close()

    call(example, story, rate)


def test_it_is_interrupted_and_the_caller_is_not_music_on_hold(example: Running) -> None:
    async def story(dial: Dial) -> None:
        relay = await dial()
        marks = [await relay.mark()]
        if "greeted" not in marks[0]:
            marks.append(await relay.mark())
        await relay.say(*relay.protocol.hold(True), *[LOUD] * 10, *relay.protocol.hold(False), *[QUIET] * 25)
        await relay.say(*[LOUD] * 2, QUIET, *[QUIET] * 25)  # a click
        relay.speech.clear()
        await relay.say(*[LOUD] * 5)
        assert await relay.wish() == Clear()
        for mark in marks:
            await relay.say(*relay.protocol.mark(mark, cleared=True))
        await relay.say(*relay.protocol.cleared())
        yes = await relay.mark()
        assert heard(relay.speech, YES) == pytest.approx(0.3, abs=0.05)
        await relay.say(*relay.protocol.mark(yes, cleared=False), *[LOUD] * 50)  # it is silent: no barge-in
        await relay.say(*relay.protocol.key("9", 120))
        assert await relay.wish() == Clear()
        await relay.mark()
        assert await relay.wish() == ended("9", "general", "interrupted")

    call(example, story)


def test_a_second_connection_has_the_same_conversation(example: Running) -> None:
    async def story(dial: Dial) -> None:
        first = await dial()
        while "greeted" not in await first.mark():
            pass
        first.socket.transport.abort()
        second = await dial(resumed=True)
        name = await second.mark()
        while "greeted" not in name:
            name = await second.mark()
        assert not second.speech, "it has greeted"
        await second.say(*second.protocol.mark(name, cleared=False), *second.protocol.key("1", 120))
        assert await second.wish() == Clear()
        await second.mark()
        end = await second.wish()
        assert end == ended("1", "sales", "heard")
        second.socket.transport.abort()
        third = await dial(resumed=True)
        while isinstance(said := await third.wish(), Mark | Clear):
            pass
        assert said == end

    call(example, story)


def test_a_call_that_it_does_not_know_is_not_greeted(example: Running) -> None:
    async def story(dial: Dial) -> None:
        relay = await dial(resumed=True)
        await relay.say(*relay.protocol.key("1", 120))
        assert await relay.wish() == Clear()
        assert not relay.speech
        await relay.mark()
        assert await relay.wish() == ended("1", "sales", "not heard")

    call(example, story)


@pytest.mark.parametrize("name", ["plain", "sdk", "node"])
def test_it_greets_with_a_file(name: str, tmp_path: Path) -> None:
    greeting = tmp_path / "greeting.wav"
    greeting.write_bytes(wav(tone(1000, 0.5), 8000))

    async def story(dial: Dial) -> None:
        relay = await dial()
        while "greeted" not in await relay.mark():
            pass
        assert heard(relay.speech, 1000) == pytest.approx(0.5, abs=0.05)

    try:
        with bots.example(name, tmp_path, greeting) as running:
            call(running, story)
    except bots.Missing as missing:
        pytest.skip(str(missing))


@pytest.mark.parametrize("name", ["plain", "node"])
def test_what_is_raised_in_it_is_a_failure(name: str, tmp_path: Path) -> None:
    """And no other call's; of the SDK that is tested by its own tests."""

    async def story(dial: Dial) -> None:
        other = await dial()
        await other.mark()
        bad = await dial()
        await bad.say("not JSON")
        assert await bad.closed() == 1011
        await other.say(*other.protocol.stop("ended"))

    try:
        with bots.example(name, tmp_path) as running:
            call(running, story)
    except bots.Missing as missing:
        pytest.skip(str(missing))
