"""Runs jobs in threads until a deadline, which no job can delay."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

#: Threads of one call of :func:`together`.
MOST = 32


@dataclass
class Result(Generic[T]):
    """``value`` or ``error``; neither was there at the deadline where both are None. ``seconds`` it took."""

    value: T | None = None
    error: BaseException | None = None
    seconds: float = 0.0


def together(
    jobs: Sequence[Callable[[], T]], deadline: float, done: Callable[[int], None] = lambda _: None
) -> list[Result[T]]:
    """Run ``jobs`` and wait until ``deadline`` (monotonic clock); results are in the order of the jobs.

    A job that is late goes on in its daemon thread, unheard: a name server that does not answer cannot be
    interrupted. ``done`` is told the number of each job that ends, in that job's thread.
    """
    results: list[Result[T]] = [Result() for _ in jobs]
    waiting = iter(list(enumerate(jobs)))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                number, job = next(waiting, (-1, None))
            if job is None:
                return
            result, began = results[number], time.monotonic()
            try:
                result.value = job()
            except Exception as error:  # noqa: BLE001  # whoever asked looks at it
                result.error = error
            result.seconds = time.monotonic() - began
            done(number)

    threads = [
        threading.Thread(target=work, name=f"parallel-{n}", daemon=True) for n in range(min(MOST, len(jobs)))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return results
