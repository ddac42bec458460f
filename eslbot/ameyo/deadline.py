"""A deadline for what a greenlet waits for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
from gevent.event import Event as Flag


class OutOfTime(BaseException):
    """The deadline has passed. Not an Exception, so that no library takes it for one of its own."""


@contextmanager
def deadline(seconds: float, over: Flag, afterwards: float) -> Iterator[None]:
    """Raise OutOfTime where the block waits for longer than ``seconds``.

    Once ``over`` is set it may go on for ``afterwards`` seconds from that moment, however long it had.
    """
    here: Any = gevent.getcurrent()
    loop: Any = gevent.get_hub().loop
    timers = [loop.timer(seconds)]

    def shorten(_: Flag) -> None:
        if timers[0].active:
            timers[0].stop()
            timers.append(loop.timer(afterwards))
            timers[-1].start(here.throw, OutOfTime(), update=True)

    # From now, and not from when the loop began its turn.
    timers[0].start(here.throw, OutOfTime(), update=True)
    over.rawlink(shorten)
    try:
        yield
    finally:
        over.unlink(shorten)
        for timer in timers:
            timer.close()
