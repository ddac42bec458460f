"""Spans of calls that are over, on their way to whoever collects them (OTLP over HTTP).

A thread of its own in the page process: it is told which calls are over, asks the ledger for them, makes
their spans, and sends the spans of some calls together. What is told waits in a bounded queue. A collector
that hangs, refuses, or is not there costs the spans that were on their way to it, which are counted, and
nothing else: no call, no fact, and no page waits for it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode

import eslbot
from eslbot.config.model import Tracing
from eslbot.ledger.database import LedgerDown
from eslbot.ledger.queries import Story
from eslbot.ledger.reader import LedgerBusy
from eslbot.telemetry import metrics
from eslbot.tracing.context import is_sampled, span_id, trace_id
from eslbot.tracing.plan import CALL, spans_of

log = structlog.get_logger()

#: Calls that may wait for their spans to be sent: of a minute's outage at 16 calls a second.
MOST_WAITING = 1000
#: Seconds behind a call's end before it is looked at: other workers' facts of it may be on their way.
SETTLED = 2.0
#: Calls whose spans are sent together, and seconds for which the first of them waits for others.
BATCH, TOGETHER = 50, 2.0
#: Seconds that a collector has for one batch, all tries together.
PATIENCE = 10.0
#: Seconds that are waited for the ledger before a call's spans are given up, and between two tries.
LEDGER_DUE, AGAIN = 60.0, 2.0

#: The SDK says each failure by its own logger, and again and again; we say it once, below.
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)


class Stories(Protocol):
    """Who knows calls: :class:`eslbot.ledger.reader.Reader`."""

    def call(self, call_id: str, workspaces: frozenset[str] | None) -> Story | None:
        """One call. Raises LedgerDown, LedgerBusy."""


class _Ids(IdGenerator):
    """Those of the span that is begun next."""

    trace = span = 0

    def generate_trace_id(self) -> int:
        """The call's."""
        return self.trace

    def generate_span_id(self) -> int:
        """The span's."""
        return self.span


class _Ended(SpanProcessor):
    """Keeps the spans that were ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """One more."""
        self.spans.append(span)


class Spans:
    """Makes spans, with the ids that everybody derives from the call's."""

    def __init__(self, service_name: str) -> None:
        self._ids, self._ended = _Ids(), _Ended()
        provider = TracerProvider(
            sampler=ALWAYS_ON,  # who is sampled, is settled before
            resource=Resource({SERVICE_NAME: service_name, SERVICE_VERSION: eslbot.__version__}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("eslbot", eslbot.__version__)

    def of(self, story: Story) -> list[ReadableSpan]:
        """A call's."""
        call_id = story.call["call_id"]
        self._ids.trace = trace_id(call_id)
        contexts: dict[str | None, Context] = {None: Context()}
        for plan in spans_of(story):
            self._ids.span = span_id(call_id, plan.key)
            span = self._tracer.start_span(
                plan.name,
                contexts[plan.parent],
                SpanKind.SERVER if plan.key == CALL else SpanKind.INTERNAL,
                plan.attributes,
                start_time=_nanoseconds(plan.begin),
            )
            if plan.error is not None:
                span.set_status(Status(StatusCode.ERROR, plan.error))
            contexts[plan.key] = trace.set_span_in_context(span, contexts[None])
            span.end(_nanoseconds(plan.end))
        made, self._ended.spans = self._ended.spans, []
        return made


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e6) * 1000


def otlp(tracing: Tracing) -> SpanExporter:
    """The exporter that ``[tracing]`` asks for."""
    headers = {name: value.reveal() for name, value in tracing.headers.items()}
    return OTLPSpanExporter(endpoint=tracing.endpoint, headers=headers, timeout=PATIENCE)


class Traces:
    """Of one page process. ``exporter`` is made by :func:`otlp` but in tests."""

    def __init__(
        self,
        tracing: Tracing,
        stories: Stories,
        exporter: SpanExporter,
        now: Callable[[], float] = time.monotonic,
        settled: float = SETTLED,
        together: float = TOGETHER,
    ) -> None:
        self._tracing, self._stories, self._exporter, self._now = tracing, stories, exporter, now
        self._settled, self._together = settled, together
        self._spans = Spans(tracing.service_name)
        self._waiting: queue.Queue[tuple[str, float]] = queue.Queue(MOST_WAITING)
        self._stopped = threading.Event()
        self._failing = False

    def over(self, call_id: str) -> None:
        """A call is over. Never waits; for any thread."""
        if not is_sampled(call_id, self._tracing.share):
            return
        try:
            self._waiting.put_nowait((call_id, self._now()))
        except queue.Full:
            metrics.TRACES.labels("dropped").inc()

    def stop(self) -> None:
        """End :meth:`run`; what waits is lost."""
        self._stopped.set()

    def run(self) -> None:
        """Send spans until :meth:`stop`."""
        while not self._stopped.is_set():
            batch = self._batch()
            spans = [span for call_id in batch for span in self._of(call_id)]
            if spans:
                self._send(spans)

    def _batch(self) -> list[str]:
        """Calls that are to be sent together: what has come within :data:`TOGETHER`; none where none has."""
        found: list[str] = []
        deadline = self._now() + self._together
        while len(found) < BATCH and not self._stopped.is_set():
            try:
                call_id, ended = self._waiting.get(timeout=max(0.01, min(0.5, deadline - self._now())))
            except queue.Empty:
                if self._now() >= deadline:
                    break
                continue
            self._stopped.wait(max(0.0, ended + self._settled - self._now()))
            found.append(call_id)
        return found

    def _of(self, call_id: str) -> Sequence[ReadableSpan]:
        deadline = self._now() + LEDGER_DUE
        while not self._stopped.is_set():
            try:
                story = self._stories.call(call_id, None)
                return [] if story is None else self._spans.of(story)
            except (LedgerDown, LedgerBusy) as error:
                if self._now() >= deadline:
                    log.warning("trace_without_ledger", call_id=call_id, error=str(error))
                    break
                self._stopped.wait(AGAIN)
        metrics.TRACES.labels("unread").inc()
        return []

    def _send(self, spans: Sequence[ReadableSpan]) -> None:
        calls = sum(span.parent is None for span in spans)
        why = "the collector did not take them"
        try:
            sent = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001  # the exporter's own, whatever they are; told and counted
            sent, why = False, type(error).__name__
        metrics.TRACES.labels("exported" if sent else "refused").inc(calls)
        metrics.SPANS.labels("exported" if sent else "lost").inc(len(spans))
        if not sent and not self._failing:
            remedy = "see tracing.endpoint and tracing.headers, and whether the collector runs"
            log.error("spans_lost", spans=len(spans), calls=calls, reason=why, remedy=remedy)
        elif sent and self._failing:
            log.info("spans_taken_again")
        self._failing = not sent
