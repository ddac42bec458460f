"""A bot's coroutine and eslbot's messages: what each hears of the other."""

from __future__ import annotations

import asyncio
import json
import logging

import pytest
from fake_eslbot import START, House, Relay, play

from eslbot_bot import (
    Audio,
    Call,
    Cleared,
    Dtmf,
    Error,
    Event,
    Hold,
    Mark,
    QueueFull,
    Sound,
    Stop,
    UnusableSound,
)
from eslbot_bot.call import MAX_AUDIO, MAX_EVENTS
from eslbot_bot.outgoing import MAX_MARKS, MAX_NAME, MAX_WAITING

FRAME = bytes(range(256)) + bytes(64)


class Listener:
    """A bot that notes what it hears, and speaks when the test says so."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.calls: list[Call] = []
        self.call: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self._heard = asyncio.Condition()

    async def __call__(self, call: Call) -> None:
        self.calls.append(call)
        if not self.call.done():
            self.call.set_result(call)
        async for event in call:
            async with self._heard:
                self.events.append(event)
                self._heard.notify_all()

    async def tick(self) -> None:
        """Let others do something; for what has no event to wait for."""
        await asyncio.sleep(0.002)

    async def heard(self, event: Event) -> None:
        async with self._heard:
            await self._heard.wait_for(lambda: event in self.events)


def listening(story: object, **options: object) -> Listener:
    """Run ``story(house, listener)``; the listener afterwards."""
    made: list[Listener] = []

    async def told(house: House) -> None:
        await story(house, made[0])  # type: ignore[operator]

    async def handler(call: Call) -> None:
        await made[0](call)

    async def begin(house: House) -> None:
        made.append(Listener())
        await told(house)

    play(begin, handler, **options)
    return made[0]


def test_every_event_is_told_in_order_and_what_is_unknown_is_not() -> None:
    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin(future={"field": 1}, traceparent="00-aa-bb-01")
        call = await bot.call
        call.mark("greeted")
        wire = (await relay.next())["name"]
        await relay.socket.send(FRAME)
        for text in ("", "[]", "7", "{}", '{"type":"news"}', '{"type":["stop"]}', "[" * 50_000):
            await relay.socket.send(text)
        await relay.tell(type="dtmf", digit="5", duration_ms=120, more=1)
        await relay.tell(type="dtmf", digit=5)
        await relay.tell(type="mark", name="not asked for")
        await relay.tell(type="mark", name=wire)
        await relay.tell(type="mark", name=wire)
        await relay.tell(type="hold", on=True)
        await relay.tell(type="hold", on=False)
        await relay.tell(type="error", code="unusable_audio", message="why")
        await relay.tell(type="cleared")
        await relay.stop("caller_hangup")
        await bot.heard(Stop("caller_hangup"))

    bot = listening(story)
    assert bot.events == [
        Audio(FRAME),
        Dtmf("5", 120),
        Mark("greeted", False),
        Hold(True),
        Hold(False),
        Error("unusable_audio", "why"),
        Cleared(),
        Stop("caller_hangup"),
    ]
    (call,) = bot.calls
    start = call.start
    assert (call.id, call.rate, call.resumed) == (START["call_id"], 8000, False)
    assert call.headers["X-Call-ID"] == START["call_id"]
    assert (start.workspace_id, start.did) == (START["workspace_id"], START["did"])
    assert (start.crt_object_id, start.caller, start.to) == (START["crt_object_id"], "0401234567", "bot")
    assert start.traceparent == "00-aa-bb-01"


def test_the_caller_is_heard_though_frames_come_before_start() -> None:
    async def story(house: House, bot: Listener) -> None:
        relay = await house.dial()
        await relay.socket.send(FRAME)
        await relay.socket.send("not JSON")
        await relay.tell(type="start", audio={"sample_rate": 44100}, call_id="x")
        await relay.start()
        await relay.socket.send(FRAME[::-1])
        await bot.heard(Audio(FRAME[::-1]))

    assert listening(story).events[:2] == [Audio(FRAME), Audio(FRAME[::-1])]


def test_speech_is_binary_in_order_and_heard_by_its_mark() -> None:
    speech = bytes(range(250)) * 100

    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin()
        call = await bot.call
        assert not call.speaking
        heard, not_heard = call.say(speech), call.say(b"\1\2\3")
        assert call.speaking and not heard.done
        await relay.answer_mark()
        assert await heard and await heard
        assert call.speaking
        await relay.answer_mark(cleared=True)
        assert not await not_heard
        assert not call.speaking
        assert relay.speech == speech + b"\1\2\3"

    assert not any(isinstance(event, Mark) for event in listening(story).events), "these are nobody's names"


def test_pieces_of_an_utterance_have_one_mark() -> None:
    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin()
        call = await bot.call
        pieces = [call.say(bytes(10), more=True) for _ in range(2000)]
        last = call.say(b"")
        assert set(pieces) == {last}
        await relay.answer_mark()
        assert await pieces[0]
        assert len(relay.speech) == 20_000

    listening(story)


def test_sound_of_another_rate_says_so() -> None:
    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin()
        call = await bot.call
        call.say(Sound(b"\1\2" * 100, 24000))
        said = await relay.next()
        assert said["data"]["sampleRate"] == 24000 and said["data"]["audioDataType"] == "raw"
        call.say(Sound(b"\1\2" * 100, 8000))
        await relay.next()
        await relay.next()
        assert relay.speech == b"\1\2" * 100
        with pytest.raises(UnusableSound, match=r"44100 Hz.*call\.rate"):
            call.say(Sound(b"\1\2", 44100))

    listening(story)


def test_a_clear_forgets_what_was_not_sent_and_marks_come_back() -> None:
    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin()
        call = await bot.call
        sent = call.say(b"\1" * 10)
        name = (await relay.next())["name"]
        unsent, mark, piece = call.say(b"\2" * 10), call.mark("never"), call.say(b"\3", more=True)
        call.clear()
        assert [unsent.done, mark.done, piece.done, sent.done] == [True, True, True, False]
        after = call.say(b"\4" * 10)
        assert await relay.next() == {"type": "clear"}
        assert relay.speech == b"\1" * 10
        await relay.tell(type="mark", name=name, cleared=True)
        await relay.tell(type="cleared")
        await bot.heard(Cleared())
        assert not await sent and not await unsent
        await relay.answer_mark()
        assert await after
        assert relay.speech == b"\1" * 10 + b"\4" * 10

    events = listening(story).events
    assert events[:2] == [Mark("never", True), Cleared()]


def test_a_clear_when_nothing_is_said_is_harmless() -> None:
    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin()
        (await bot.call).clear()
        assert await relay.next() == {"type": "clear"}
        await relay.tell(type="cleared")
        await bot.heard(Cleared())

    listening(story)


def test_the_end_is_said_once_and_with_its_properties() -> None:
    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin()
        call = await bot.call
        call.end({"agent_group": "sales", "score": 0.5, "vip": True, "none": None}, "x" * 300)
        call.end({"agent_group": "other"})
        end = await relay.next()
        assert end == {
            "type": "end",
            "properties": {"agent_group": "sales", "score": 0.5, "vip": True, "none": None},
            "reason": "x" * 200,
        }
        call.caller_speech(True)
        assert await relay.next() == {"type": "caller_speech", "speaking": True}
        await relay.stop()
        await bot.heard(Stop("ended"))
        assert not await call.say(b"behind the end")
        assert call.over and not call.speaking

    listening(story)


@pytest.mark.parametrize(
    ("properties", "error", "told"),
    [
        ({"a": [1]}, TypeError, "'a' is a list"),
        ({1: "a"}, TypeError, "1 has a name"),
        ({"a": float("nan")}, ValueError, "'a' is nan"),
        ({str(n): n for n in range(65)}, ValueError, "65 properties"),
    ],
)
def test_properties_that_eslbot_would_drop_are_errors(
    properties: dict[str, object], error: type[Exception], told: str
) -> None:
    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin()
        call = await bot.call
        with pytest.raises(error, match=told):
            call.end(properties)  # type: ignore[arg-type]
        assert not call.ended
        await relay.stop()

    listening(story)


def test_what_is_too_much_says_so() -> None:
    async def story(house: House, bot: Listener) -> None:
        await house.begin()
        call = await bot.call
        with pytest.raises(ValueError, match=f"0 characters; take 1 to {MAX_NAME}"):
            call.mark("")
        with pytest.raises(ValueError, match=f"{MAX_NAME + 1} characters"):
            call.mark("x" * (MAX_NAME + 1))
        for number in range(MAX_MARKS):
            call.mark(str(number))
        with pytest.raises(QueueFull, match="more=True"):
            call.mark("one more")
        with pytest.raises(QueueFull, match="more=True"):
            call.say(b"\1\1")
        with pytest.raises(QueueFull, match="bytes of speech wait"):
            call.say(bytes(MAX_WAITING), more=True)

    listening(story)


def test_the_longest_name_fits_the_wire() -> None:
    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin()
        (await bot.call).mark("ü" * MAX_NAME)
        assert len((await relay.next())["name"]) <= 128

    listening(story)


def test_a_slow_bot_loses_the_oldest_audio_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[Event] = []

    async def slow(call: Call) -> None:
        await call.wait_over()
        heard.extend([event async for event in call])
        assert call.dropped == 50

    async def story(house: House) -> None:
        relay = await house.begin()
        await relay.tell(type="dtmf", digit="1", duration_ms=1)
        for number in range(MAX_AUDIO + 50):
            await relay.socket.send(number.to_bytes(2, "little") * 160)
        await relay.tell(type="dtmf", digit="2", duration_ms=1)
        await relay.stop()
        while house.bot.calls:
            await asyncio.sleep(0.002)

    play(story, slow)
    assert heard[0] == Dtmf("1", 1) and heard[-2:] == [Dtmf("2", 1), Stop("ended")]
    audio = [event for event in heard if isinstance(event, Audio)]
    assert len(audio) == MAX_AUDIO
    assert audio[0].data[:2] == (50).to_bytes(2, "little")
    assert caplog.text.count("is slow to read events") == 1
    assert "has failed" not in caplog.text


def test_a_peer_that_floods_a_bot_that_reads_nothing_is_cut_off() -> None:
    async def story(house: House) -> None:
        relay = await house.begin()
        text = json.dumps({"type": "dtmf", "digit": "1", "duration_ms": 1})
        for _ in range(MAX_EVENTS + 2):
            await relay.socket.send(text)
        assert await relay.closed() == 1008

    async def deaf(call: Call) -> None:
        await call.wait_over()

    play(story, deaf)


def test_an_error_of_eslbots_is_logged_by_its_code_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "eslbot_bot")

    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin()
        await relay.tell(type="error", code="property_dropped", message="not in the workspace's: pin 1234")
        await bot.heard(Error("property_dropped", "not in the workspace's: pin 1234"))

    listening(story)
    assert "property_dropped" in caplog.text and "1234" not in caplog.text


def test_much_speech_at_once_is_within_eslbots_budget() -> None:
    """Ten minutes at 24,000 Hz are 27 MiB: more than eslbot takes at once from one that does not pace it."""

    async def story(house: House, bot: Listener) -> None:
        relay = await house.begin(audio={"sample_rate": 24000})
        call = await bot.call
        call.say(bytes(24000 * 2 * 600), more=True)
        received = 0
        while received < 12 * 1024 * 1024:
            received += len(await relay.socket.recv())
        with pytest.raises(asyncio.TimeoutError):  # what comes in a moment is less than a burst
            await asyncio.wait_for(_read(relay, 2 * 1024 * 1024), 0.5)

    listening(story)


async def _read(relay: Relay, size: int) -> None:
    while size > 0:
        size -= len(await relay.socket.recv())
