"""Who is calling, and what was said before that was told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import CALL, FakeSocket, start
from pipecat_eslbot import BadStart, Start
from pipecat_eslbot.start import MOST_BEFORE, read_start


def test_start_tells_who_calls() -> None:
    told = Start.read(start(traceparent="00-1-2-01", tomorrow="?"))
    assert told.call_id == CALL and told.did == "00919990152080" and told.caller == "0401234567"
    assert (told.sample_rate, told.traceparent, told.resumed) == (8000, "00-1-2-01", False)
    assert Start.read(start(resumed=True, rate=16000)).resumed


def test_what_the_caller_says_before_start_is_kept() -> None:
    async def go() -> tuple[Start, str, list[bytes]]:
        socket = FakeSocket()
        for message in (b"a" * 320, b"b" * 320, start(), b"c" * 320):
            socket.say(message)
        return await read_start(socket.starlette)

    told, text, before = asyncio.run(go())
    assert told.call_id == CALL and text == start() and before == [b"a" * 320, b"b" * 320]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nonsense", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"type": "mark"}', "'mark'"),
        (start(audio={"sample_rate": 44100}), "44100"),
        (start(audio=[]), "None"),
        (start(call_id=""), "call_id"),
        (start(did=7), "did is 7"),
    ],
)
def test_what_is_no_start_is_named(text: str, said: str) -> None:
    with pytest.raises(BadStart, match=said):
        Start.read(text)


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (lambda socket: socket.hang_up(1001), "closed with 1001"),
        (lambda socket: None, "no start within 0.05 s"),
        (lambda socket: [socket.say(b"x") for _ in range(MOST_BEFORE)], "messages"),
    ],
)
def test_a_start_that_does_not_come(act: Any, said: str) -> None:
    async def go() -> None:
        socket = FakeSocket()
        act(socket)
        await read_start(socket.starlette, timeout=0.05)

    with pytest.raises(BadStart, match=said):
        asyncio.run(go())
