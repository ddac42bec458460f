"""A process beside whoever measures, and how it is asked: one command at a time, over a pipe."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

#: How the process stands among others (nice): it is the measure, and must not be what is late.
PRIORITY = -15
#: Seconds for an answer of the process.
PATIENCE = 30.0


class Beside:
    """The process, which runs ``work`` with its end of the pipe until that is closed; a context manager."""

    def __init__(self, work: Callable[[Connection], None], name: str) -> None:
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_run, args=(work, other), name=name, daemon=True)
        self._process.start()
        other.close()

    def ask(self, *what: object, timeout: float = PATIENCE) -> Any:
        """A command to the process, and its answer. Raises TimeoutError; RuntimeError where it could not."""
        self._connection.send(what)
        return self.told(timeout)

    def told(self, timeout: float = PATIENCE) -> Any:
        """What the process says next. Raises as :meth:`ask` does."""
        if not self._connection.poll(timeout):
            raise TimeoutError(f"no answer within {timeout:g} s")
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise RuntimeError(f"the {self._process.name}: {answer}")
        return answer

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._process.pid is not None
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()


def _run(work: Callable[[Connection], None], connection: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(PermissionError):  # it goes first where it may
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    gc.disable()  # what is kept has no cycles, and a collection of it would be a pause
    work(connection)
