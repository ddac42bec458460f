"""News are numbered from 1 on, and kept until a controller has acknowledged them."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from eslbot.relay.control import News, read_news
from eslbot.relay.outbox import MAX_KEPT, Outbox


class FakeStream:
    """What a controller gets."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def send_text(self, text: str) -> None:
        self.texts.append(text)

    def close(self, code: int = 1000) -> None:
        raise AssertionError("not the outbox's to close")


def told(outbox: Outbox, what: News, **facts: object) -> str:
    """News, as they are sent."""
    before, outbox.stream = outbox.stream, FakeStream()
    outbox.tell(what, **facts)
    (text,) = outbox.stream.texts
    outbox.stream = before
    return text


def again(outbox: Outbox) -> tuple[int, list[str]]:
    """What a new controller is told: up to where news were acknowledged, and those behind it."""
    before, outbox.stream = outbox.stream, FakeStream()
    outbox.tell_state(url="ws://127.0.0.1:1/")
    state, *texts = outbox.stream.texts
    outbox.stream = before
    assert read_news(state).number == 0
    return read_news(state).facts["acked"], texts


def numbers(outbox: Outbox) -> list[int]:
    return [read_news(text).number for text in again(outbox)[1]]


def test_what_nobody_has_acknowledged_is_told_again_as_it_was() -> None:
    outbox = Outbox()
    texts = [told(outbox, News.MARK, name=str(n), cleared=False) for n in range(3)]
    assert [read_news(text).number for text in texts] == [1, 2, 3]
    assert [read_news(text).facts["name"] for text in texts] == ["0", "1", "2"]
    assert again(outbox) == (0, texts)
    assert again(outbox) == (0, texts), "to any number of controllers"
    outbox.ack(2)
    assert again(outbox) == (2, texts[2:])


def test_what_is_told_while_there_is_no_stream_is_kept() -> None:
    outbox = Outbox()
    outbox.tell(News.CONNECTED)
    assert numbers(outbox) == [1]


def test_an_acknowledgement_of_what_was_never_told_is_one_of_all_that_was() -> None:
    outbox = Outbox()
    outbox.tell(News.CONNECTED)
    outbox.ack(1_000_000)  # of the relay before, whose numbers were higher
    assert again(outbox) == (1, [])
    assert read_news(told(outbox, News.CLEARED)).number == 2
    assert numbers(outbox) == [2], "it is new all the same"


def test_an_older_acknowledgement_takes_nothing_back() -> None:
    outbox = Outbox()
    for _ in range(5):
        outbox.tell(News.CLEARED)
    outbox.ack(4)
    outbox.ack(2)
    assert again(outbox)[0] == 4 and numbers(outbox) == [5]


def test_the_oldest_are_forgotten_where_nobody_acknowledges() -> None:
    outbox = Outbox()
    for _ in range(MAX_KEPT + 10):
        outbox.tell(News.CLEARED)
    assert numbers(outbox) == [*range(11, MAX_KEPT + 11)]
    assert again(outbox)[0] == 0


class Outboxes(RuleBasedStateMachine):
    """Against a list of all that was ever told."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.told: list[str] = []
        self.acked = 0

    @rule(what=st.sampled_from([what for what in News if what is not News.STATE]), times=st.integers(1, 100))
    def tell(self, what: News, times: int) -> None:
        for _ in range(times):
            self.told.append(told(self.outbox, what))

    @rule(number=st.integers(-5, 1000))
    def ack(self, number: int) -> None:
        self.outbox.ack(number)
        self.acked = max(self.acked, min(number, len(self.told)))

    @invariant()
    def keeps_what_is_behind_the_acknowledged(self) -> None:
        assert again(self.outbox) == (self.acked, self.told[self.acked :][-MAX_KEPT:])


TestOutboxes = Outboxes.TestCase
