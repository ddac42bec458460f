"""What one relay worker gives each of its calls to work with. Nothing in here waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from eslbot.telemetry import metrics

if TYPE_CHECKING:
    from eslbot.recording.recorder import Recorder
    from eslbot.relay.line.read_counter import ReadCounter
    from eslbot.relay.playout_delay import PlayoutDelay

log = structlog.get_logger()


class Resources:
    """One worker's. ``url`` reaches this very worker, and only it: ``ws://<ip>:<port>/``.

    ``over`` is called with a call's id when there is nothing left to do for it; the worker forgets it then.
    """

    def __init__(
        self,
        directory: Path,
        read_counter: ReadCounter,
        new_delay: Callable[[], PlayoutDelay],
        url: str,
        over: Callable[[str], None],
        recorder: Recorder,
        traced: float | None = None,
    ) -> None:
        self.directory = directory
        self.read_counter = read_counter
        self.recorder = recorder
        self.url = url
        self.over = over
        #: The share of calls whose spans are exported; None where no traces are made.
        self.traced = traced
        self._loop = asyncio.get_running_loop()
        self._new_delay = new_delay
        self._delays: dict[str, PlayoutDelay] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def playout_delay(self, workspace_id: str) -> PlayoutDelay:
        """What was learnt of this workspace's bot; it seeds a new call's own and takes its lessons back."""
        delay = self._delays.get(workspace_id)
        if delay is None:
            delay = self._delays[workspace_id] = self._new_delay()
        return delay

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do it beside everything else. A fault of ours in it is told and counted, and ends nothing else."""
        task = self._loop.create_task(work)
        self._tasks.add(task)  # the loop itself keeps no reference
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            metrics.INTERNAL_ERRORS.inc()
            log.error("relay_task_failed", exc_info=error)
