"""What happens to a call is said once: each event has an observer, and each fact of the ledger an event."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, is_dataclass

import pytest

from eslbot.calls import events
from eslbot.calls.call import NEXT
from eslbot.calls.events import CallEvent
from eslbot.calls.observers import log, metrics
from eslbot.ledger import observer
from eslbot.ledger.facts import What
from eslbot.outcome import Stage

EVENTS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, CallEvent) and kind is not CallEvent
]
#: What only the story itself listens to (eslbot.calls.call.Call._on_bot).
OF_THE_STORY = {events.RelayFound}


@pytest.mark.parametrize("kind", EVENTS, ids=lambda kind: kind.__name__)
def test_each_event_is_small_typed_and_heard_by_somebody(kind: type[CallEvent]) -> None:
    assert is_dataclass(kind) and hasattr(kind, "__slots__")
    assert kind in {*metrics._COUNTS, *log._LINES, *observer._FACTS, *OF_THE_STORY}


def test_an_event_does_not_change() -> None:
    event = events.KeyPressed()
    with pytest.raises(FrozenInstanceError):
        event.ago = 1.0  # type: ignore[misc]


def test_each_fact_of_the_ledger_comes_from_an_event() -> None:
    told = {what for what, _ in observer._FACTS.values()}
    assert told == set(What) - {What.TIMELINE_FULL}  # which is told in place of a fact


def test_from_each_stage_there_is_a_way_to_the_hand_off() -> None:
    assert set(NEXT) == {None, *Stage}
    for stage in Stage:
        seen, reached = {stage}, {stage}
        while seen:
            seen = set().union(*(NEXT[one] for one in seen)) - reached
            reached |= seen
        assert Stage.HELD in reached
