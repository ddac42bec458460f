"""What is sent, and sent again, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from eslbot_bot import outgoing
from eslbot_bot.outgoing import Outgoing


def in_a_loop(test: Callable[[], None]) -> Callable[[], None]:
    async def run() -> None:
        test()

    def wrapped() -> None:
        asyncio.run(run())

    wrapped.__name__ = test.__name__
    return wrapped


def send(out: Outgoing, most: int = 100, *, land: bool = True) -> list[bytes | str]:
    """Take so many messages; the last of them may not have landed. Texts by their types and names."""
    sent: list[bytes | str] = []
    while len(sent) < most and (item := out.take()) is not None:
        if land or len(sent) < most - 1:
            out.landed()
        if isinstance(item.frame, bytes):
            sent.append(item.frame)
        else:
            message = json.loads(item.frame)
            sent.append(" ".join(filter(None, (message["type"], message.get("name")))))
    return sent


@in_a_loop
def test_what_was_being_sent_is_said_again_and_no_other_speech() -> None:
    out = Outgoing()
    out.say([b"1"], more=False)
    out.say([b"2", b"3"], more=False)
    assert send(out, 3, land=False) == [b"1", "mark said#1", b"2"]
    out.again()
    assert send(out) == ["mark said#1", b"2", b"3", "mark said#2"]
    out.again()
    assert send(out) == ["mark said#1", "mark said#2"]


@in_a_loop
def test_what_was_being_sent_is_not_said_again_behind_a_clear() -> None:
    out = Outgoing()
    out.say([b"1", b"2"], more=False)
    assert send(out, 1, land=False) == [b"1"]
    out.clear()
    out.again()
    assert send(out) == ["clear"]


@in_a_loop
def test_a_clear_and_what_is_behind_it_are_said_again_once() -> None:
    out = Outgoing()
    out.say([b"1"], more=False)
    send(out)
    out.clear()
    out.say([b"2"], more=False)
    assert send(out, 2, land=False) == ["clear", b"2"]
    out.again()
    assert send(out) == ["clear", b"2", "mark said#2"]
    assert [mark.wire for mark in out.cleared()] == ["said#1"]
    assert out.cleared() == [], "one that nobody asked for"
    out.again()
    assert send(out) == ["mark said#2"]


@in_a_loop
def test_of_two_clears_the_second_counts() -> None:
    out = Outgoing()
    out.clear()
    out.mark("a")
    out.clear()
    out.mark("b")
    assert send(out) == ["clear", "clear", "mark b#2"], "what was not sent is not sent"
    assert out.cleared() == []
    out.again()
    assert send(out) == ["clear", "mark b#2"]
    assert out.cleared() == []
    out.again()
    assert send(out) == ["mark b#2"]


@in_a_loop
def test_an_end_is_said_behind_all_that_was_said_before_it() -> None:
    out = Outgoing()
    out.mark("a")
    out.end('{"type":"end"}')
    out.end_again()
    assert send(out) == ["mark a#1", "end"]
    out.end_again()
    assert send(out) == ["end"]
    out.again()
    assert send(out) == ["mark a#1", "end"]


def test_what_is_kept_behind_a_clear_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outgoing, "MAX_BEHIND_CLEAR", 100)

    @in_a_loop
    def story() -> None:
        out = Outgoing()
        out.clear()
        out.say([b"1" * 60, b"2" * 60], more=False)
        send(out)
        out.again()
        assert send(out) == ["mark said#1"], "from a peer that answers no clear: as if it had"

    story()


@in_a_loop
def test_what_is_over_keeps_nothing() -> None:
    out = Outgoing()
    heard, open_one = out.say([b"1"], more=False), out.say([b"2"], more=True)
    send(out, 1)
    assert out.speaking
    out.over()
    assert heard.done and open_one.done and not out.speaking
    assert out.take() is None
