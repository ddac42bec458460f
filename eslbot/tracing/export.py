"""Sends the spans of calls that have ended to a collector (OTLP over HTTP).

A thread of the page process gets the ids of ended calls in a bounded queue, asks the ledger for them, makes
their spans, and sends those of several calls together. A collector that hangs, refuses, or is away costs the
spans that were on their way to it. They are counted, and nothing else waits for it: no call, fact or page.
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
from eslbot.ledger.queries import CallDetails
from eslbot.ledger.query_service import LedgerBusy
from eslbot.telemetry import metrics
from eslbot.telemetry.trace_context import is_sampled, span_id, trace_id
from eslbot.tracing.spans import CALL, spans_of

log = structlog.get_logger()

#: Calls whose spans may wait to be sent: those of a minute at 16 calls a second.
MAX_QUEUED = 1000
#: Seconds from a call's end until it is read: facts of other workers may be on their way.
SETTLE_DELAY = 2.0
#: Calls whose spans are sent together, and seconds for which the first one waits for others.
BATCH_SIZE, BATCH_WINDOW = 50, 2.0
#: Seconds that the collector has for one batch, all tries together.
EXPORT_TIMEOUT = 10.0
#: Seconds to wait for the ledger before a call's spans are given up, and between two tries.
LEDGER_TIMEOUT, LEDGER_RETRY = 60.0, 2.0

#: The SDK logs each failure again and again; we log it once, below.
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL + 1)


class CallSource(Protocol):
    """Where calls are read: :class:`eslbot.ledger.query_service.QueryService`."""

    def call(self, call_id: str, workspaces: frozenset[str] | None) -> CallDetails | None:
        """One call. Raises LedgerDown, LedgerBusy."""


class _Ids(IdGenerator):
    """The ids of the span that is started next."""

    trace = span = 0

    def generate_trace_id(self) -> int:
        """The call's."""
        return self.trace

    def generate_span_id(self) -> int:
        """The span's."""
        return self.span


class _Ended(SpanProcessor):
    """Keeps the spans that have ended."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        """One more."""
        self.spans.append(span)


class SpanBuilder:
    """Makes spans, with ids that are derived from the call's id."""

    def __init__(self, service_name: str) -> None:
        self._ids, self._ended = _Ids(), _Ended()
        provider = TracerProvider(
            sampler=ALWAYS_ON,  # which calls are sampled is decided before
            resource=Resource({SERVICE_NAME: service_name, SERVICE_VERSION: eslbot.__version__}),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer("eslbot", eslbot.__version__)

    def of(self, details: CallDetails) -> list[ReadableSpan]:
        """A call's."""
        call_id = details.call["call_id"]
        self._ids.trace = trace_id(call_id)
        contexts: dict[str | None, Context] = {None: Context()}
        for spec in spans_of(details):
            self._ids.span = span_id(call_id, spec.key)
            span = self._tracer.start_span(
                spec.name,
                contexts[spec.parent],
                SpanKind.SERVER if spec.key == CALL else SpanKind.INTERNAL,
                spec.attributes,
                start_time=_nanoseconds(spec.begin),
            )
            if spec.error is not None:
                span.set_status(Status(StatusCode.ERROR, spec.error))
            contexts[spec.key] = trace.set_span_in_context(span, contexts[None])
            span.end(_nanoseconds(spec.end))
        made, self._ended.spans = self._ended.spans, []
        return made


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e6) * 1000


def otlp(tracing: Tracing) -> SpanExporter:
    """The exporter that ``[tracing]`` configures."""
    headers = {name: value.reveal() for name, value in tracing.headers.items()}
    return OTLPSpanExporter(endpoint=tracing.endpoint, headers=headers, timeout=EXPORT_TIMEOUT)


class TraceExporter:
    """The thread. ``exporter`` is made by :func:`otlp`, except in tests."""

    def __init__(
        self,
        tracing: Tracing,
        calls: CallSource,
        exporter: SpanExporter,
        now: Callable[[], float] = time.monotonic,
        settle_delay: float = SETTLE_DELAY,
        batch_window: float = BATCH_WINDOW,
    ) -> None:
        self._tracing, self._calls, self._exporter, self._now = tracing, calls, exporter, now
        self._settle_delay, self._batch_window = settle_delay, batch_window
        self._spans = SpanBuilder(tracing.service_name)
        self._waiting: queue.Queue[tuple[str, float]] = queue.Queue(MAX_QUEUED)
        self._stopped = threading.Event()
        self._failing = False

    def call_ended(self, call_id: str) -> None:
        """A call has ended. Never waits; for any thread."""
        if not is_sampled(call_id, self._tracing.share):
            return
        try:
            self._waiting.put_nowait((call_id, self._now()))
        except queue.Full:
            metrics.TRACES.labels("dropped").inc()

    def stop(self) -> None:
        """End :meth:`run`; spans that wait are lost."""
        self._stopped.set()

    def run(self) -> None:
        """Send spans until :meth:`stop`."""
        while not self._stopped.is_set():
            batch = self._batch()
            spans = [span for call_id in batch for span in self._read(call_id)]
            if spans:
                self._send(spans)

    def _batch(self) -> list[str]:
        """The calls whose spans are sent together: those that end within :data:`BATCH_WINDOW`."""
        found: list[str] = []
        deadline = self._now() + self._batch_window
        while len(found) < BATCH_SIZE and not self._stopped.is_set():
            try:
                call_id, ended = self._waiting.get(timeout=max(0.01, min(0.5, deadline - self._now())))
            except queue.Empty:
                if self._now() >= deadline:
                    break
                continue
            self._stopped.wait(max(0.0, ended + self._settle_delay - self._now()))
            found.append(call_id)
        return found

    def _read(self, call_id: str) -> Sequence[ReadableSpan]:
        deadline = self._now() + LEDGER_TIMEOUT
        while not self._stopped.is_set():
            try:
                details = self._calls.call(call_id, None)
                return [] if details is None else self._spans.of(details)
            except (LedgerDown, LedgerBusy) as error:
                if self._now() >= deadline:
                    log.warning("trace_without_ledger", call_id=call_id, error=str(error))
                    break
                self._stopped.wait(LEDGER_RETRY)
        metrics.TRACES.labels("unread").inc()
        return []

    def _send(self, spans: Sequence[ReadableSpan]) -> None:
        calls = sum(span.parent is None for span in spans)
        why = "the collector did not take them"
        try:
            sent = self._exporter.export(spans) is SpanExportResult.SUCCESS
        except Exception as error:  # noqa: BLE001  # any of the exporter's; logged and counted
            sent, why = False, type(error).__name__
        metrics.TRACES.labels("exported" if sent else "refused").inc(calls)
        metrics.SPANS.labels("exported" if sent else "lost").inc(len(spans))
        if not sent and not self._failing:
            remedy = "see tracing.endpoint and tracing.headers, and whether the collector runs"
            log.error("spans_lost", spans=len(spans), calls=calls, reason=why, remedy=remedy)
        elif sent and self._failing:
            log.info("spans_taken_again")
        self._failing = not sent
