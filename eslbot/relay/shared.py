"""What one relay worker lends to each of its calls.

Nothing in here waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from eslbot.telemetry import metrics

if TYPE_CHECKING:
    from eslbot.recording.recorder import Recorder
    from eslbot.relay.margin import Margin
    from eslbot.relay.reads import Reads

log = structlog.get_logger()


class Shared:
    """One worker's. ``url`` reaches this very worker, and only it: ``ws://<ip>:<port>/``.

    ``over`` is called with a call's id when there is nothing left to do for it; the worker forgets it then.
    """

    def __init__(
        self,
        directory: Path,
        reads: Reads,
        margin: Callable[[], Margin],
        url: str,
        over: Callable[[str], None],
        recorder: Recorder,
        traced: float | None = None,
    ) -> None:
        self.directory = directory
        self.reads = reads
        self.recorder = recorder
        self.url = url
        self.over = over
        #: The share of calls whose spans are exported; None where no traces are made.
        self.traced = traced
        self._loop = asyncio.get_running_loop()
        self._new_margin = margin
        self._margins: dict[str, Margin] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def margin(self, workspace_id: str) -> Margin:
        """What was learnt of this workspace's bot; it seeds a new call's own and takes its lessons back."""
        margin = self._margins.get(workspace_id)
        if margin is None:
            margin = self._margins[workspace_id] = self._new_margin()
        return margin

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
