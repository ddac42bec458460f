"""TurnTaking out of who is heard when: the table of the room, and what holds whatever happens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eslbot.relay.turn_taking.states import (
    MAX_ANSWER_DELAY,
    MAX_CLEAR_DELAY,
    MIN_OVERLAP,
    BotBegins,
    BotStops,
    Broken,
    CallerBegins,
    CallerStops,
    Clear,
    Event,
    State,
    TurnTaking,
)
from eslbot.turns import By, Kind, Turn


def told(*events: Event) -> list[Turn]:
    """The turns of a story."""
    turns = TurnTaking()
    return [turn for event in events if (turn := turns.happened(event)) is not None]


def after(*events: Event) -> State:
    """Where a story ends."""
    turns = TurnTaking()
    for event in events:
        turns.happened(event)
    return turns.state


QUIET: tuple[Event, ...] = ()
CALLER = (CallerBegins(1.0),)
AWAITED = (*CALLER, CallerStops(2.0))
BOT = (BotBegins(1.0, 0.9),)
BOTH = (*BOT, CallerBegins(2.0))


@pytest.mark.parametrize(
    ("state", "event", "then"),
    [
        (QUIET, CallerBegins(9), State.CALLER),
        (QUIET, CallerStops(9), State.QUIET),
        (QUIET, BotBegins(9, 9), State.BOT),
        (QUIET, BotStops(9), State.QUIET),
        (QUIET, Broken(9), State.QUIET),
        (CALLER, CallerBegins(9), State.CALLER),
        (CALLER, CallerStops(9), State.AWAITED),
        (CALLER, BotBegins(9, 9), State.BOTH),
        (CALLER, BotStops(9), State.CALLER),
        (CALLER, Broken(9), State.QUIET),
        (AWAITED, CallerBegins(9), State.CALLER),
        (AWAITED, CallerStops(9), State.AWAITED),
        (AWAITED, BotBegins(9, 9), State.BOT),
        (AWAITED, BotStops(9), State.AWAITED),
        (AWAITED, Broken(9), State.QUIET),
        (BOT, CallerBegins(9), State.BOTH),
        (BOT, CallerStops(9), State.BOT),
        (BOT, BotBegins(9, 9), State.BOT),
        (BOT, BotStops(9), State.QUIET),
        (BOT, Broken(9), State.BOT),
        (BOTH, CallerBegins(9), State.BOTH),
        (BOTH, CallerStops(9), State.BOT),
        (BOTH, BotBegins(9, 9), State.BOTH),
        (BOTH, BotStops(9), State.CALLER),
        (BOTH, Broken(9), State.BOT),
        *((state, Clear(9), after(*state)) for state in (QUIET, CALLER, AWAITED, BOT, BOTH)),
    ],
)
def test_the_table(state: tuple[Event, ...], event: Event, then: State) -> None:
    assert after(*state, event) is then


def test_an_answer_and_the_bots_share() -> None:
    (turn,) = told(*AWAITED, BotBegins(2.9, 2.6))
    assert turn == Turn(Kind.ANSWER, 2.9, pytest.approx(0.9), pytest.approx(0.6))


def test_an_answer_is_to_the_last_word() -> None:
    (turn,) = told(*AWAITED, CallerBegins(2.4), CallerStops(3.0), BotBegins(3.5, 3.4))
    assert turn.seconds == pytest.approx(0.5)


def test_what_the_bot_had_to_say_anyway_is_no_answer() -> None:
    assert told(*AWAITED, BotBegins(2.9, 0.8)) == []
    assert told(*BOT) == []
    assert told(*AWAITED, BotBegins(2.0 + MAX_ANSWER_DELAY + 1, 2.0 + MAX_ANSWER_DELAY)) == []


def test_a_bot_that_has_begun_to_answer_early_has_no_share() -> None:
    (turn,) = told(*AWAITED, BotBegins(2.2, 1.9))
    assert turn.bot == 0.0


def test_a_barge_in_and_the_bots_share() -> None:
    (turn,) = told(*BOTH, Clear(2.5), BotStops(2.52, cut=True))
    assert turn == Turn(Kind.BARGE_IN, 2.52, pytest.approx(0.52), pytest.approx(0.5))


def test_a_short_word_that_silences_the_bot_is_answered() -> None:
    barge_in, answer = told(
        *BOTH, CallerStops(2.3), Clear(2.6), BotStops(2.62, cut=True), BotBegins(3.1, 3.0)
    )
    assert (barge_in.kind, answer.kind) == (Kind.BARGE_IN, Kind.ANSWER)
    assert answer.seconds == pytest.approx(0.8)


@pytest.mark.parametrize(
    "story",
    [
        (
            *BOTH,
            CallerStops(2.3),
            Clear(2.3 + MAX_CLEAR_DELAY + 0.1),
            BotStops(5.0, cut=True),
        ),  # for another reason
        (*BOT, Clear(1.9), CallerBegins(2.0), BotStops(2.02, cut=True)),  # it was before
        (*BOTH, Clear(2.5), BotStops(2.52)),  # it had nothing more to say
        (*BOTH, BotStops(2.52, cut=True)),
        (*BOT, CallerBegins(2.0, sure=False), Clear(2.5), BotStops(2.52, cut=True)),
        (*BOTH, Broken(2.1), Clear(2.5), BotStops(2.52, cut=True)),
        (*CALLER, BotBegins(1.5, 1.4), Clear(1.8), BotStops(1.9, cut=True)),  # it had spoken over the caller
    ],
)
def test_no_barge_in(story: tuple[Event, ...]) -> None:
    assert [turn for turn in told(*story) if turn.kind is Kind.BARGE_IN] == []


def test_who_speaks_over_whom() -> None:
    (turn,) = told(*BOTH, CallerStops(2.2), CallerBegins(2.6), BotStops(3.0))
    assert turn == Turn(Kind.OVERLAP, 3.0, pytest.approx(0.6), by=By.CALLER)
    (turn,) = told(*CALLER, BotBegins(1.5, 1.4), CallerStops(1.9), BotStops(3.0))
    assert turn == Turn(Kind.OVERLAP, 3.0, pytest.approx(0.4), by=By.BOT)
    assert told(*BOTH, CallerStops(2.0 + MIN_OVERLAP / 2), BotStops(3.0)) == []


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(
            ("caller begins", "unsure", "stops", "bot", "late bot", "bot stops", "cut", "clear", "broken")
        ),
        st.integers(0, 400),
    ),
    max_size=60,
)


def made(what: str, at: float) -> Event:
    return {
        "caller begins": CallerBegins(at),
        "unsure": CallerBegins(at, sure=False),
        "stops": CallerStops(at),
        "bot": BotBegins(at, at - 0.01),
        "late bot": BotBegins(at, at - 3),
        "bot stops": BotStops(at),
        "cut": BotStops(at, cut=True),
        "clear": Clear(at),
        "broken": Broken(at),
    }[what]


@given(EVENTS)
def test_whatever_happens_nothing_is_told_wrongly(steps: list[tuple[str, int]]) -> None:
    """Beside it stands the plainest account: who speaks, since when, what has come since it last broke."""
    turns, at = TurnTaking(), 0.0
    caller = bot = False
    stopped: float | None = None  # where the caller's last word is known, and nothing has come behind it
    began_over: float | None = None
    cleared = False
    for what, hundredths in steps:
        at += hundredths / 100
        event = made(what, at)
        turn = turns.happened(event)
        if turn is not None:
            assert turn.at == at
            assert turn.seconds >= 0
            assert turn.bot is None or 0 <= turn.bot <= turn.seconds
            assert (turn.by is None) == (turn.kind is not Kind.OVERLAP)
            if turn.kind is Kind.ANSWER:
                assert isinstance(event, BotBegins) and not bot and not caller and stopped is not None
                assert turn.seconds == at - stopped <= MAX_ANSWER_DELAY
            else:
                assert isinstance(event, BotStops) and bot
            if turn.kind is Kind.BARGE_IN:
                assert event == BotStops(at, cut=True) and cleared and began_over is not None
                assert turn.seconds <= at - began_over or turn.seconds == pytest.approx(at - began_over)
        match event:
            case CallerBegins():
                if not caller:
                    caller, stopped = True, None
                    if bot and began_over is None and event.sure:
                        began_over = at
            case CallerStops():
                if caller:
                    caller = False
                    stopped = None if bot else at
                    last_word = at
            case BotBegins():
                if not bot:
                    bot, stopped, began_over, cleared = True, None, None, False
            case BotStops():
                if bot:
                    bot = False
                    if turn is not None and turn.kind is Kind.BARGE_IN and not caller:
                        stopped = last_word
                began_over, cleared = (None, False)
            case Clear():
                cleared = cleared or (bot and began_over is not None)
            case Broken():
                caller, stopped, began_over, cleared = False, None, None, False
        assert (
            turns.state
            in {
                (False, False): (State.AWAITED,) if stopped is not None else (State.QUIET,),
                (True, False): (State.CALLER,),
                (False, True): (State.BOT,),
                (True, True): (State.BOTH,),
            }[caller, bot]
        )
