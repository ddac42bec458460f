"""Background tasks whose failures are told, never lost."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Coroutine
from typing import Any

from eslbot.sim.events import Emit


class Tasks:
    """Starts tasks, keeps them alive, and emits ``error`` with the traceback where one fails."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._running: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run ``work`` in the background under ``name``."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def stop(self, grace: float) -> None:
        """Give every task ``grace`` seconds to end by itself, then cancel what is left."""
        if self._running:
            await asyncio.wait(self._running, timeout=grace)
        for task in list(self._running):
            task.cancel()
        if self._running:
            await asyncio.wait(self._running, timeout=grace)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            trace = "".join(traceback.format_exception(error))
            self._emit("error", {"task": task.get_name(), "error": repr(error), "traceback": trace})
