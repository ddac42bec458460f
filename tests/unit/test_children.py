"""Processes beside the arbiter's workers: when one that died is started again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from eslbot.runtime import children
from eslbot.runtime.children import AGAIN, RELAY, ChildProcess, Kind
from tests.support.clock import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(children, "time", clock)
    return clock


@pytest.fixture
def dying(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChildProcess]:
    """Of a kind that dies at once."""
    monkeypatch.setattr(children.sys, "executable", "/bin/false")
    reading, writing = os.pipe()
    yield ChildProcess(Kind("relay", ("relay",)), [], reading)
    os.close(reading)
    os.close(writing)


def died(child: ChildProcess) -> int:
    """The number of the process, which is over by now."""
    assert child.pid is not None
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    return child.pid


def test_one_that_has_lived_is_started_again_at_once(dying: ChildProcess, clock: Clock) -> None:
    dying.tend("purpose")
    first = died(dying)
    clock.now += AGAIN
    dying.tend("purpose")
    assert died(dying) != first, "streams find no relay for as long as it starts, and calls wait for 5 s"
    dying.end()


def test_one_that_dies_at_its_start_is_started_every_few_seconds(dying: ChildProcess, clock: Clock) -> None:
    dying.tend("purpose")
    first = died(dying)
    clock.now += AGAIN - 0.1
    dying.tend("purpose")
    assert dying.pid is None, first
    clock.now += 0.2
    dying.tend("purpose")
    died(dying)
    dying.end()


def test_one_that_cannot_be_started_is_tried_every_few_seconds(
    dying: ChildProcess, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[float] = []

    def no_memory(*_: object, **__: object) -> None:
        tried.append(clock.now)
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(children.subprocess, "Popen", no_memory)
    for _ in range(11):
        dying.tend("purpose")
        clock.now += 1
    assert tried == [1000.0, 1005.0, 1010.0]


class Staying:
    """A process that has calls left when it is told to end."""

    pid = 4711

    def __init__(self, *_: object, **__: object) -> None:
        self.told: list[int] = []

    def poll(self) -> int | None:
        return None

    def kill(self) -> None:
        self.told.append(signal.SIGKILL)

    def wait(self) -> None:
        pass

    def send_signal(self, signum: int) -> None:
        self.told.append(signum)


def test_one_that_stays_with_its_calls_is_not_told_twice_to_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children.subprocess, "Popen", Staying)
    child = ChildProcess(RELAY, [], 0)
    child.tend("purpose")
    process = child._process
    assert isinstance(process, Staying)
    child.tend(None)  # it is to run elsewhere
    child.tend(None)
    child.end()
    assert process.told == [signal.SIGTERM], "a second one would end its calls"


def test_one_that_stays_with_its_calls_keeps_no_other_from_being_started(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(children.subprocess, "Popen", Staying)
    child = ChildProcess(RELAY, [], 0)
    child.tend("purpose")
    staying = child._process
    assert isinstance(staying, Staying)
    child.tend(None)
    child.tend("purpose")
    assert child._process is not staying and child.pid is not None
    child.end(graceful=False)
    assert staying.told == [signal.SIGTERM, signal.SIGQUIT]
    assert staying in child._staying
    monkeypatch.setattr(staying, "poll", lambda: 0)
    child.tend(None)
    assert staying not in child._staying
