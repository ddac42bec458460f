"""Drives a parser with one input: what it did that it must not do, and how long it kept the loop.

The time is the thread's own processor time, so that a busy machine does not matter. What seems too long is
done again: a turn of the garbage collector, or a neighbour on the same core, is not the input's fault.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass

from tests.hostile.parsers import Parser

#: Seconds of processor time that one input may keep the event loop.
STALL = 0.050
#: How often what seems too long is done in all; the least counts.
TIMES = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one input. ``step``: seconds of its longest; ``fault``: an exception not expected."""

    step: float
    fault: BaseException | None = None

    @property
    def place(self) -> str:
        """Which fault it is: its type, and where it was raised."""
        assert self.fault is not None
        frame = traceback.extract_tb(self.fault.__traceback__)[-1]
        where = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
        return f"{type(self.fault).__name__} in {frame.name} ({where})"


def drive(parser: Parser, content: bytes) -> Outcome:
    """Once; where a step takes too long, as often as it takes to be sure."""
    if parser.most is not None:
        content = content[: parser.most]
    outcome = _once(parser, content)
    for _ in range(TIMES - 1):
        if outcome.fault is not None or outcome.step <= STALL or not parser.in_loop:
            break
        again = _once(parser, content)
        outcome = min(outcome, again, key=lambda one: one.step) if again.fault is None else again
    return outcome


def _once(parser: Parser, content: bytes) -> Outcome:
    longest = 0.0
    began = time.thread_time()
    try:
        steps = parser.drive(content)
        if isinstance(steps, Iterator):
            while True:
                ended = next(steps, _END) is _END
                longest = max(longest, time.thread_time() - began)
                if ended:
                    break
                began = time.thread_time()
        else:
            longest = time.thread_time() - began
    except parser.expected:
        longest = max(longest, time.thread_time() - began)
    except Exception as fault:  # noqa: BLE001  # the very thing that is looked for
        return Outcome(max(longest, time.thread_time() - began), fault)
    return Outcome(longest)


_END = object()
