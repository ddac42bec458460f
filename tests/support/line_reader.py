"""FreeSWITCH as a line file sees it, on a clock that only moves when somebody looks at it.

Each look at the clock may let time pass, and FreeSWITCH reads meanwhile: so it comes between any two steps of
what is tested.
"""

from __future__ import annotations

import array
import os
from collections.abc import Callable, Iterator
from pathlib import Path

PERIOD = 0.02
FRAME = 320


class Clock:
    """Monotonic time; ``passes`` gives the seconds that go by at a look."""

    def __init__(self, passes: Iterator[float] | None = None) -> None:
        self.time = 1000.0
        self.passes = passes
        self.reader: Reader | None = None

    def __call__(self) -> float:
        if self.passes is not None:
            self.go(self.time + next(self.passes))
        return self.time

    def go(self, until: float) -> None:
        if self.reader:
            self.reader.run(until)
        self.time = max(self.time, until)


class Reader:
    """Displaced pairs of rings: opened, read through, then a frame of each every 20 ms, none at an end."""

    def __init__(self, clock: Clock, paths: tuple[Path, ...], phase: float = 0.007, second: int = 3) -> None:
        self.clock = clock
        clock.reader = self
        self.next = clock.time + phase
        self.second = second  # the tick of ring A with which ring B is begun
        self.fds: dict[Path, list[int]] = {}
        self.heard: list[tuple[float, bytes]] = []
        self.later: dict[Path, int] = {}  # those that are still to be begun, and with which tick
        self.dies_at = float("inf")
        self.displace(paths)

    def displace(self, paths: tuple[Path, ...]) -> None:
        """What the controller does with a pair that STATE names."""
        self.open(paths[0])
        self.later.update((path, len(self.heard) + self.second) for path in paths[1:])

    def come_back(self, paths: tuple[Path, ...], phase: float) -> None:
        """FreeSWITCH has died, if not before, and another one is told to read these."""
        self.close()
        self.fds, self.later = {}, {}
        self.dies_at = float("inf")
        self.next = self.clock.time + phase
        self.displace(paths)

    def take_off(self, path: Path) -> None:
        """And with a file that STATE names no more."""
        self.later.pop(path, None)
        if path in self.fds:
            os.close(self.fds.pop(path)[0])

    def open(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY)
        for at in range(0, os.fstat(fd).st_size, 2048):
            os.pread(fd, 2048, at)
        self.fds = {path: [fd, 0]} | self.fds  # the newest media bug comes first

    def run(self, until: float) -> None:
        while self.next <= until and self.next < self.dies_at:
            self.clock.time = max(self.clock.time, self.next)
            for path in [path for path, tick in self.later.items() if tick == len(self.heard)]:
                del self.later[path]
                self.open(path)
            self.tick()
            self.next += PERIOD

    def tick(self) -> None:
        mixed = array.array("h", bytes(FRAME))
        for ring in self.fds.values():
            data = os.pread(ring[0], FRAME, ring[1])
            ring[1] = ring[1] + len(data) if data else 0
            if any(data):
                for i, sample in enumerate(array.array("h", data)):
                    mixed[i] += sample
        self.heard.append((self.clock.time, mixed.tobytes()))

    def close(self) -> None:
        for fd, _ in self.fds.values():
            os.close(fd)

    def speech(self) -> list[int]:
        """The samples heard, without silence."""
        return [s for _, frame in self.heard if any(frame) for s in array.array("h", frame) if s]

    def when(self, sample: int) -> int:
        """The tick in which a sample was heard."""
        for tick, (_, frame) in enumerate(self.heard):
            if any(frame) and sample in array.array("h", frame):
                return tick
        raise AssertionError(f"{sample} was not heard")


class Speech:
    """Samples that are never silent, and tell their place; they begin again after 30,000."""

    def __init__(self) -> None:
        self.said: list[int] = []
        self.next = 1

    def __call__(self, samples: int) -> bytes:
        out = array.array("h")
        for _ in range(samples):
            out.append(self.next)
            self.next = self.next % 30000 + 1
        self.said += out
        return out.tobytes()


def play(clock: Clock, tick: Callable[[], float | None], until: float) -> None:
    """Let time go on, doing what is due, as a relay's loop does."""
    while clock.time < until:
        due = tick()
        clock.go(until if due is None else min(until, max(due, clock.time + 0.0002)))
