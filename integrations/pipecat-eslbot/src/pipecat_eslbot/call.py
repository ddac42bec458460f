"""One call, as the user's function gets it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from loguru import logger
from pipecat.frames.frames import ErrorFrame
from pipecat.pipeline.base_pipeline import BasePipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker, ProcessorUnusablePolicy
from pipecat.processors import frame_processor
from pipecat.workers.runner import WorkerRunner

from pipecat_eslbot.line import Line
from pipecat_eslbot.serializer import EslbotFrameSerializer
from pipecat_eslbot.speech import CallerSpeechObserver
from pipecat_eslbot.start import Start
from pipecat_eslbot.transport import EslbotParams, EslbotTransport


@dataclass(eq=False)
class Call:
    """A call, from its ``start`` to its end, over every connection that it has.

    Attributes:
        start: who is calling; ``start.resumed`` where the conversation was another process's, and is not
            known here: do not greet again.
        line: the connection; its ``headers`` are the upgrade's.
        properties: what Ameyo gets with the hand-off, where the workspace lists them in ``bot_properties``;
            set them at any time before the ``EndFrame``. At most 64: texts, numbers, truth values, None.
    """

    start: Start
    line: Line
    properties: dict[str, Any] = field(default_factory=dict)

    def transport(self, **options: Any) -> EslbotTransport:
        """The transport for a pipeline; ``options`` are of :class:`EslbotParams`. Once a call."""
        serializer = EslbotFrameSerializer(self.start.sample_rate, self.properties)
        return EslbotTransport(self.line, EslbotParams(serializer=serializer, **options))

    def worker(
        self, pipeline: BasePipeline, *, survive_errors: bool = False, **options: Any
    ) -> PipelineWorker:
        """The pipeline's worker, at the line's sample rate.

        Args:
            pipeline: from the transport's ``input()`` to its ``output()``.
            survive_errors: go on when a processor raises, or reports itself unusable. Otherwise the call has
                failed then, and the customer goes to an agent: a pipeline with a hole in it is silent.
            options: of Pipecat's ``PipelineWorker``, before these defaults.
        """
        rate = self.start.sample_rate
        defaults: dict[str, Any] = {
            "params": PipelineParams(audio_in_sample_rate=rate, audio_out_sample_rate=rate),
            "conversation_id": self.start.call_id,
            "enable_rtvi": False,  # it is for clients that are programs
        }
        if not survive_errors:
            defaults["processor_unusable_policy"] = ProcessorUnusablePolicy.CANCEL
        observers = [CallerSpeechObserver(self.line), *options.pop("observers", [])]
        worker = PipelineWorker(pipeline, observers=observers, **{**defaults, **options})
        if not survive_errors:
            worker.add_event_handler("on_pipeline_error", _cancel_where_raised)
        return worker

    async def run(self, worker: PipelineWorker) -> None:
        """Until the bot has ended, has failed, or the call is over for another reason."""
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        over = asyncio.create_task(self._cancel_when_over(worker))
        try:
            await runner.run()
        finally:
            over.cancel()

    async def _cancel_when_over(self, worker: PipelineWorker) -> None:
        await self.line.over.wait()
        if not self.line.ended:  # else it is about to end by itself
            await worker.cancel(reason=self.line.stop_reason or "the line is gone")


async def _cancel_where_raised(worker: PipelineWorker, frame: ErrorFrame) -> None:
    """Pipecat reports what a processor raises as any other error, and goes on without that frame."""
    trace = frame.exception.__traceback__ if frame.exception is not None else None
    if trace is not None and trace.tb_frame.f_globals.get("__name__") == frame_processor.__name__:
        logger.opt(exception=frame.exception).error(f"{frame.processor} has failed: {frame.error}")
        await worker.cancel(reason=f"{frame.processor} has failed")
