"""News are numbered from 1 on, and kept until a controller has acknowledged them."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from eslbot.relay.control import News, read_news
from eslbot.relay.outbox import MOST, Outbox


def numbers(outbox: Outbox) -> list[int]:
    return [read_news(text).number for text in outbox.again()]


def test_what_nobody_has_acknowledged_is_told_again_as_it_was() -> None:
    outbox = Outbox()
    texts = [outbox.put(News.MARK, name=str(n), cleared=False) for n in range(3)]
    assert [read_news(text).number for text in texts] == [1, 2, 3]
    assert [read_news(text).facts["name"] for text in texts] == ["0", "1", "2"]
    assert list(outbox.again()) == texts
    assert list(outbox.again()) == texts, "to any number of controllers"
    outbox.ack(2)
    assert list(outbox.again()) == texts[2:]
    assert outbox.acked == 2


def test_an_acknowledgement_of_what_was_never_told_is_one_of_all_that_was() -> None:
    outbox = Outbox()
    outbox.put(News.CONNECTED)
    outbox.ack(1_000_000)  # of the relay before, whose numbers were higher
    assert outbox.acked == 1
    assert read_news(outbox.put(News.CLEARED)).number == 2
    assert numbers(outbox) == [2], "it is new all the same"


def test_an_older_acknowledgement_takes_nothing_back() -> None:
    outbox = Outbox()
    for _ in range(5):
        outbox.put(News.CLEARED)
    outbox.ack(4)
    outbox.ack(2)
    assert (outbox.acked, numbers(outbox)) == (4, [5])


def test_the_oldest_are_forgotten_where_nobody_acknowledges() -> None:
    outbox = Outbox()
    for _ in range(MOST + 10):
        outbox.put(News.CLEARED)
    assert numbers(outbox) == [*range(11, MOST + 11)]
    assert outbox.acked == 0


class Outboxes(RuleBasedStateMachine):
    """Against a list of all that was ever told."""

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox()
        self.told: list[str] = []
        self.acked = 0

    @rule(what=st.sampled_from(News), times=st.integers(1, 100))
    def put(self, what: News, times: int) -> None:
        for _ in range(times):
            self.told.append(self.outbox.put(what))

    @rule(number=st.integers(-5, 1000))
    def ack(self, number: int) -> None:
        self.outbox.ack(number)
        self.acked = max(self.acked, min(number, len(self.told)))

    @invariant()
    def keeps_what_is_behind_the_acknowledged(self) -> None:
        assert self.outbox.acked == self.acked
        assert list(self.outbox.again()) == self.told[self.acked :][-MOST:]


TestOutboxes = Outboxes.TestCase
