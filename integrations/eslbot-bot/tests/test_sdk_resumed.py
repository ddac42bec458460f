"""Connections that break: what the bot notices, and what it says again."""

from __future__ import annotations

import pytest
from fake_eslbot import House
from test_sdk_call import Listener, listening

from eslbot_bot import Audio, Cleared, Dtmf, Hold, Mark, Resumed, Stop


def test_the_same_coroutine_goes_on_and_does_not_greet_again() -> None:
    async def story(house: House, bot: Listener) -> None:
        first = await house.begin()
        call = await bot.call
        greeting = call.say(b"\1" * 320)
        await first.next()
        await first.break_off()
        second = await house.begin(resumed=True)
        await bot.heard(Resumed())
        await second.answer_mark()
        assert await greeting
        assert not second.speech, "speech is not repeated"
        await second.tell(type="dtmf", digit="1", duration_ms=100)
        await bot.heard(Dtmf("1", 100))
        await second.stop()
        await bot.heard(Stop("ended"))

    bot = listening(story)
    (call,) = bot.calls
    assert not call.resumed
    assert bot.events == [Resumed(), Dtmf("1", 100), Stop("ended")]


def test_what_is_said_between_two_connections_is_said_on_the_next() -> None:
    async def story(house: House, bot: Listener) -> None:
        first = await house.begin()
        call = await bot.call
        await first.break_off()
        while call.connected:
            await bot.tick()
        heard = call.say(b"\1" * 320)
        call.end()
        second = await house.begin(resumed=True)
        await second.answer_mark()
        assert await heard
        assert second.speech == b"\1" * 320
        assert (await second.next())["type"] == "end"

    listening(story)


def test_an_end_is_said_again() -> None:
    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin()
        call = await bot.call
        call.end({"agent_group": "sales"}, "done")
        end = await relay.next()
        for _ in range(2):
            await relay.break_off()
            relay = await house.begin(resumed=True)
            assert await relay.next() == end
        await relay.stop()
        await bot.heard(Stop("ended"))

    listening(story)


def test_resumed_is_answered_and_behind_it_an_end_that_was_said() -> None:
    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin()
        call = await bot.call
        await relay.tell(type="resumed")
        assert await relay.next() == {"type": "resumed"}
        call.end()
        end = await relay.next()
        await relay.tell(type="resumed")
        assert [await relay.next(), await relay.next()] == [{"type": "resumed"}, end]

    listening(story)


def test_marks_that_come_from_before_the_break_and_behind_it_are_told_once() -> None:
    """With ``reconnect`` it is the bot's connection that broke: the relay knows all, and is told again."""

    async def story(house: House, bot: Listener) -> None:
        first = await house.begin()
        call = await bot.call
        once, twice = call.mark("same"), call.mark("same")
        names = [(await first.next())["name"], (await first.next())["name"]]
        await first.break_off()
        second = await house.begin(resumed=True)
        assert [(await second.next())["name"], (await second.next())["name"]] == names
        for name in (*names, *names):
            await second.tell(type="mark", name=name)
        assert await once and await twice
        await second.stop()
        await bot.heard(Stop("ended"))

    bot = listening(story)
    assert bot.events == [Resumed(), Mark("same", False), Mark("same", False), Stop("ended")]


def test_a_clear_that_was_not_answered_is_sent_again_with_all_behind_it() -> None:
    async def story(house: House, bot: Listener) -> None:
        first = await house.begin()
        call = await bot.call
        before = call.say(b"\1" * 320)
        await first.next()
        call.clear()
        after = call.say(b"\2" * 320)
        assert [(await first.next())["type"], (await first.next())["type"]] == ["clear", "mark"]
        await first.break_off()
        second = await house.begin(resumed=True)
        assert (await second.next())["type"] == "clear"
        await second.tell(type="cleared")
        await bot.heard(Cleared())
        assert not await before, "no relay knows that mark any more"
        await second.answer_mark()
        assert await after
        assert second.speech == b"\2" * 320
        # What was answered is not repeated.
        await second.break_off()
        third = await house.begin(resumed=True)
        call.end()
        assert (await third.next())["type"] == "end"

    listening(story)


def test_a_hold_is_over_unless_it_is_told_again() -> None:
    async def story(house: House, bot: Listener) -> None:
        first = await house.begin()
        call = await bot.call
        await first.tell(type="hold", on=True)
        await bot.heard(Hold(True))
        assert call.held
        await first.break_off()
        second = await house.begin(resumed=True)
        await bot.heard(Resumed())
        assert not call.held
        await second.stop()
        await bot.heard(Stop("ended"))

    assert listening(story).events == [Hold(True), Hold(False), Resumed(), Stop("ended")]


def test_a_relay_that_ends_is_followed_by_another() -> None:
    async def story(house: House, bot: Listener) -> None:
        first = await house.begin()
        await bot.call
        await first.stop("shutdown")
        second = await house.begin(resumed=True)
        await second.stop("max_duration")
        await bot.heard(Stop("max_duration"))

    bot = listening(story)
    assert bot.events == [Resumed(), Stop("max_duration")]
    assert len(bot.calls) == 1


def test_another_connection_counts_though_the_first_seems_to_be_there() -> None:
    async def story(house: House, bot: Listener) -> None:
        first = await house.begin()
        call = await bot.call
        second = await house.begin(resumed=True)
        await bot.heard(Resumed())
        assert await first.closed() == 1001
        call.say(b"\1" * 320)
        await second.answer_mark()
        assert second.speech == b"\1" * 320 and not first.speech
        await second.socket.send(b"\2" * 320)
        await bot.heard(Audio(b"\2" * 320))

    listening(story)


def test_no_other_connection_is_the_end() -> None:
    async def story(house: House, bot: Listener) -> None:
        first = await house.begin()
        call = await bot.call
        waiting = call.say(b"\1")
        await first.next()
        await first.break_off()
        await bot.heard(Stop("lost"))
        assert not await waiting and call.over
        while house.bot.calls:
            await bot.tick()

    listening(story, resume_within=0.05)


@pytest.mark.parametrize("known", [False, True], ids=["another process's call", "one that is over here"])
def test_a_call_that_is_not_known_here_is_told_to_be_resumed(known: bool) -> None:
    async def story(house: House, bot: Listener) -> None:
        if known:
            await (await house.begin()).stop()
            await bot.heard(Stop("ended"))
            while house.bot.calls:
                await bot.tick()
        relay = await house.begin(resumed=True)
        await relay.stop()
        while len(bot.events) < 1 + known:
            await bot.tick()

    bot = listening(story)
    assert [call.resumed for call in bot.calls] == [False, True][1 - known :]
    assert Resumed() not in bot.events


def test_a_call_that_begins_again_is_a_new_one() -> None:
    """A relay that dialled while the phone rang and died: the caller has heard nothing."""

    async def story(house: House, bot: Listener) -> None:
        first = await house.begin()
        old = await bot.call
        await first.break_off()
        second = await house.begin()
        await second.socket.send(b"\1" * 320)
        await bot.heard(Audio(b"\1" * 320))
        assert old.over
        await second.stop()
        await bot.heard(Stop("ended"))

    bot = listening(story)
    assert [call.resumed for call in bot.calls] == [False, False]


def test_calls_do_not_hear_each_other() -> None:
    async def story(house: House, bot: Listener) -> None:
        relays = [await house.begin(call_id=name) for name in ("one", "two")]
        while len(bot.calls) < 2:
            await bot.tick()
        for call in bot.calls:
            call.say(call.id.encode())
        for name, relay in zip(("one", "two"), relays, strict=True):
            await relay.answer_mark()
            assert relay.speech == name.encode()

    listening(story)
