"""What one greenlet waits for: the answer, its time, and whoever else ends the wait."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from eslbot.esl.waiting import Future, Wakeup
from tests.support.peer import bounded

#: Longer than any test: what must not be waited for in full.
LONG = 60.0


@pytest.fixture(autouse=True)
def _bounded() -> Iterator[None]:
    with bounded():
        yield


def waiting(answer: Future[str], seconds: float = LONG) -> gevent.Greenlet:
    greenlet = gevent.spawn(answer.wait, seconds)
    gevent.idle()  # it has come to its wait
    return greenlet


def test_an_answer_ends_the_wait() -> None:
    answer: Future[str] = Future()
    greenlet = waiting(answer)
    assert not greenlet.ready() and not answer.ready
    answer.set("here")
    assert greenlet.get() == "here" and answer.ready


def test_an_answer_that_is_there_is_not_waited_for() -> None:
    answer: Future[str] = Future()
    answer.set("first")
    answer.set("second")
    answer.set_exception(ValueError("third"))
    assert [answer.wait(LONG), answer.wait(0.0)] == ["first", "first"]


def test_what_ends_it_instead_is_raised_each_time_and_keeps_no_frames() -> None:
    answer: Future[str] = Future()
    greenlet = waiting(answer)
    error = ValueError("gone")
    answer.set_exception(error)
    depths = []
    for wait in (greenlet.get, lambda: answer.wait(0.0), lambda: answer.wait(0.0)):
        with pytest.raises(ValueError, match="gone"):
            wait()
        trace, depth = error.__traceback__, 0
        while trace is not None:
            trace, depth = trace.tb_next, depth + 1
        depths.append(depth)
    assert depths[1] == depths[2], "else it would grow with each wait"


def test_no_answer_in_time_is_none_and_a_late_one_is_kept() -> None:
    answer: Future[str] = Future()
    assert answer.wait(0.0) is None
    assert answer.wait(0.01) is None
    answer.set("late")
    assert answer.wait(0.0) == "late"


def test_whoever_is_killed_or_timed_out_in_a_wait_leaves_it_usable() -> None:
    answer: Future[str] = Future()
    waiting(answer).kill()
    with gevent.Timeout(0.01, False):  # type: ignore[arg-type]  # the stubs forget False
        answer.wait(LONG)
    greenlet = waiting(answer)
    answer.set("here")
    assert greenlet.get() == "here"


def test_a_kill_in_the_moment_of_the_answer_wakes_nobody_else() -> None:
    answer: Future[str] = Future()
    greenlet = waiting(answer)
    answer.set("here")
    greenlet.kill(block=False)
    wakeup = Wakeup()
    other = gevent.spawn(wakeup.sleep, LONG)
    gevent.idle()
    assert greenlet.ready() and not other.ready()
    wakeup.wake()
    other.get()


def test_two_wakes_of_one_turn_end_one_wait() -> None:
    wakeup, heard = Wakeup(), []

    def sleeping() -> None:
        for number in range(2):
            wakeup.sleep(LONG)
            heard.append(number)

    greenlet = gevent.spawn(sleeping)
    gevent.idle()
    wakeup.wake()
    wakeup.wake()
    gevent.idle()
    assert heard == [0]
    wakeup.wake()
    greenlet.get()


def test_a_wake_that_nobody_waits_for_is_not_kept() -> None:
    wakeup = Wakeup()
    wakeup.wake()
    greenlet = gevent.spawn(wakeup.sleep, 0.02)
    gevent.idle()
    assert not greenlet.ready()
    greenlet.get()
