"""What a controller and a relay tell each other: every text is understood or is bad, and none is more."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from eslbot.ameyo.properties import MAX_VALUE_BYTES, allowed
from eslbot.relay.control import MAX_BYTES, BadText, News, Order, Text, news, order, read_news, read_order
from eslbot.relay.protocols.eslbot import MAX_PROPERTIES, MAX_REASON

Read = Callable[[str | bytes], Text]

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FACTS = st.dictionaries(st.text().filter(lambda key: key not in ("order", "news", "n", "ack")), VALUES)
NUMBERS = st.integers(0, 2**40)


def understood(read: Read, kinds: type[Order | News], text: str | bytes) -> Text | None:
    """What is read, None where it is bad. Whatever else is raised fails the test."""
    try:
        found = read(text)
    except BadText as error:
        assert len(str(error)) < 100, "it is told in a log"
        return None
    assert found.what in list(kinds)
    assert {type(found.number), type(found.ack)} == {int}
    assert min(found.number, found.ack) >= 0
    return found


@given(st.text() | st.binary())
@example("")
@example(b"\xff\xfe")
@example("[" * 100_000)
@example('{"order":' * 50_000)
@example("9" * 5000)
@example('{"order":["stop"],"news":{}}')
@example("null")
def test_anything_is_read_or_bad(text: str | bytes) -> None:
    understood(read_order, Order, text)
    understood(read_news, News, text)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "order": VALUES | st.sampled_from(Order),
            "news": VALUES | st.sampled_from(News),
            "n": VALUES,
            "ack": VALUES,
            "hold": VALUES,
        },
    )
)
def test_any_object_is_read_or_bad(document: dict[str, Any]) -> None:
    text = json.dumps(document)
    wanted = understood(read_order, Order, text)
    assert wanted is None or wanted.what == document["order"]
    told = understood(read_news, News, text)
    assert told is None or told.what == document["news"]


@pytest.mark.parametrize("number", [True, False, -1, 1.5, "1", None, [1]])
@pytest.mark.parametrize("key", ["n", "ack"])
def test_what_is_no_number_is_bad(key: str, number: Any) -> None:
    for text, read in (({"news": "state"}, read_news), ({"order": "ack"}, read_order)):
        with pytest.raises(BadText, match="numbers"):
            read(json.dumps({**text, key: number}))


@given(st.sampled_from(Order), NUMBERS, FACTS)
def test_an_order_is_read_as_it_was_given(what: Order, ack: int, facts: dict[str, Any]) -> None:
    text = order(what, ack=ack, **facts)
    assert text.isascii() and "\n" not in text, "it is one argument of an API command"
    assert read_order(text) == read_order(text.encode()) == Text(what, facts, 0, ack)


@given(st.sampled_from(News), NUMBERS, FACTS)
def test_news_are_read_as_they_were_told(what: News, number: int, facts: dict[str, Any]) -> None:
    text = news(what, number, **facts)
    assert text.isascii() and "\n" not in text
    assert read_news(text) == Text(what, facts, number, 0)


def test_no_order_is_news_and_no_news_are_an_order() -> None:
    for what in News:
        with pytest.raises(BadText, match="order"):
            read_order(news(what, 1))
    for kind in Order:
        with pytest.raises(BadText, match="news"):
            read_news(order(kind))


def test_a_text_has_a_bound_which_the_longest_end_does_not_reach() -> None:
    room = "x" * (MAX_BYTES - len(news(News.ENDED, reason="")))
    assert read_news(news(News.ENDED, reason=room)).facts["reason"] == room
    with pytest.raises(BadText, match=str(MAX_BYTES + 1)):
        read_news(news(News.ENDED, reason=f"{room}x"))

    names = [f"property_{number:02}" for number in range(MAX_PROPERTIES)]
    longest = "\u00e9" * ((MAX_VALUE_BYTES - 2) // 6)  # six characters each, as JSON
    passed, dropped = allowed(dict.fromkeys(names, longest), names)
    assert (len(passed), dropped) == (MAX_PROPERTIES, [])
    of_dropped = ["\u00e9" * 64] * 20
    ended = news(News.ENDED, 2**40, reason="\u00e9" * MAX_REASON, properties=passed, dropped=of_dropped)
    assert len(ended) < MAX_BYTES
