"""The end of what a call waits for: by its own time, and by the end of the call."""

from __future__ import annotations

import time

import gevent
import pytest
from gevent.event import Event as Flag

from eslbot.ameyo.deadline import OutOfTime, deadline

LONG = 30.0


def seconds_of(seconds: float, over: Flag, afterwards: float) -> float:
    """How long a block lasts that would wait for ever."""
    began = time.monotonic()
    with pytest.raises(OutOfTime), deadline(seconds, over, afterwards):
        gevent.sleep(LONG)
    return time.monotonic() - began


def test_a_block_ends_when_its_time_is_over() -> None:
    assert 0.05 <= seconds_of(0.05, Flag(), LONG) < LONG


def test_the_end_of_the_call_leaves_it_a_last_time_and_no_more() -> None:
    over = Flag()
    gevent.spawn(over.set)
    assert 0.1 <= seconds_of(LONG, over, 0.1) < LONG


def test_it_may_use_its_last_time_up_although_its_own_would_be_over() -> None:
    over = Flag()
    over.set()
    assert 0.3 <= seconds_of(0.01, over, 0.3) < LONG


def test_behind_a_block_nothing_is_raised_any_more() -> None:
    over = Flag()
    with deadline(0.01, over, 0.01):
        over.set()
    with deadline(0.01, Flag(), 0.01):
        pass
    gevent.sleep(0.05)  # a time-out that is left would be raised here


def test_what_a_block_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="of the block"), deadline(LONG, Flag(), LONG):
        raise ValueError("of the block")
