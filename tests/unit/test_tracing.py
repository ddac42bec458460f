"""Which trace a call is, its spans, and a collector that takes them, hangs, refuses, or is not there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.testing import capture_logs

from eslbot.config.model import Secret, Tracing
from eslbot.ledger.database import LedgerDown
from eslbot.ledger.parsing import read_fact
from eslbot.ledger.queries import CallDetails
from eslbot.ledger.record import CallRecord
from eslbot.telemetry import metrics
from eslbot.telemetry.trace_context import BOT, is_sampled, span_id, trace_id, traceparent
from eslbot.tracing import export
from eslbot.tracing.export import MAX_QUEUED, SpanBuilder, TraceExporter
from eslbot.tracing.spans import spans_of
from tests.support.ledger import NOON, fact, identity, whole_call
from tests.support.otlp import OtlpServer

CALL_ID = "0b1a4ad5-6e7c-4d1a-8a2c-1d1b3b3b3b3b"


def story(*lines: dict[str, Any]) -> CallDetails:
    """A call as the ledger has it."""
    folded = CallRecord.new(lines[0]["call"])
    folded.apply(one for line in lines if (one := read_fact(json.dumps(line).encode())) is not None)
    return CallDetails(folded.row, folded.timeline, folded.notifications, folded.turns)


def talked(call_id: str = CALL_ID) -> CallDetails:
    """A whole call with two turns."""
    turns = [
        fact(call_id, "turn", 4.5, number=1, kind="answer", seconds=0.5, bot=0.4),
        fact(call_id, "turn", 5.5, number=2, kind="barge_in", seconds=0.3, bot=0.2),
    ]
    return story(*whole_call(call_id), *turns)


# -- the context ------------------------------------------------------------------------------------------


@given(st.text(min_size=1, max_size=64), st.floats(0, 1))
def test_what_a_bot_is_told_is_a_trace_context(call_id: str, share: float) -> None:
    told = traceparent(call_id, share)
    assert told == traceparent(call_id, share)
    context = TraceContextTextMapPropagator().extract({"traceparent": told})
    (span,) = context.values()
    found = span.get_span_context()  # type: ignore[attr-defined]
    assert found.trace_id == trace_id(call_id)
    assert found.span_id == span_id(call_id, BOT)
    assert found.trace_flags.sampled == is_sampled(call_id, share)


@given(st.uuids(), st.floats(0, 1))
def test_a_share_is_that_of_everybody_who_samples_by_the_trace_id(call_id: object, share: float) -> None:
    theirs = TraceIdRatioBased(share).should_sample(None, trace_id(str(call_id)), "call")
    assert is_sampled(str(call_id), share) == (theirs.decision is Decision.RECORD_AND_SAMPLE)


def test_a_share_is_about_that_many() -> None:
    sampled = sum(is_sampled(f"call-{number}", 0.1) for number in range(5000))
    assert 400 < sampled < 600
    assert not is_sampled(CALL_ID, 0.0) and is_sampled(CALL_ID, 1.0)


def test_the_ids_are_those_that_are_published() -> None:
    """`docs/tracing.md` says how they are made: others may have made them already."""
    assert traceparent(CALL_ID, 1.0) == f"00-{trace_id(CALL_ID):032x}-{span_id(CALL_ID, 'bot'):016x}-01"
    assert f"{trace_id('a'):032x}" == "ffb276d33a60ca3ccc03271d8777c5df"
    assert f"{span_id('a', 'bot'):016x}" == "14f330a89ed961d3"


# -- the spans --------------------------------------------------------------------------------------------


def test_the_spans_of_a_whole_call() -> None:
    plans = {plan.key: plan for plan in spans_of(talked())}
    times = {key: (round(plan.begin - NOON, 3), round(plan.end - NOON, 3)) for key, plan in plans.items()}
    assert times == {
        "call": (0, 9.3),
        "admit": (0, 0.05),
        "connect": (0.06, 0.2),
        "bot": (0.2, 6.1),
        "turn 1": (4.0, 4.5),
        "turn 2": (5.2, 5.5),
        "hand_off": (6.2, 6.3),
        "attempt 1": (6.2, 6.3),
        "hold": (6.3, 9.3),
    }
    assert all(plan.error is None for plan in plans.values())
    assert plans["turn 1"].name == "answer" and plans["turn 1"].attributes == {"eslbot.bot_seconds": 0.4}
    assert plans["attempt 1"].attributes["http.response.status_code"] == 200
    known = json.dumps([plan.attributes for plan in plans.values()])
    assert "919800001234" not in known and "00919990152080" not in known


def test_what_has_failed_says_so() -> None:
    lines = [line for line in whole_call("c") if line["what"] in ("admitted", "answered", "bot_connecting")]
    lines += [
        fact("c", "bot_ended", 3, outcome="bot_unreachable", reason="HTTP status 500"),
        fact("c", "attempt_began", 3.1, number=1),
        fact("c", "attempt", 3.2, number=1, verdict="rejected", status=401, seconds=0.1),
        fact(
            "c",
            "ended",
            9,
            disposition="recv_bye",
            outcome="bot_unreachable",
            handed_off=False,
            stage="handing_off",
        ),
    ]
    errors = {plan.key: plan.error for plan in spans_of(story(*lines))}
    assert errors == {
        "call": "bot_unreachable",
        "admit": None,
        "connect": "bot_unreachable",
        "hand_off": "not accepted",
        "attempt 1": "rejected",
    }


def test_a_refused_call_has_no_more_than_that() -> None:
    refused = fact("c", "refused", 0.02, status=403, why="unknown_workspace", **identity())
    plans = list(spans_of(story(refused)))
    assert [(plan.key, plan.error) for plan in plans] == [
        ("call", "unknown_workspace"),
        ("admit", "unknown_workspace"),
    ]


@given(st.sets(st.integers(0, 14), min_size=1))
def test_whatever_is_known_of_a_call_makes_spans(which: set[int]) -> None:
    lines = [line for number, line in enumerate(whole_call("c")) if number in which]
    plans = list(spans_of(story(*lines)))
    keys = [plan.key for plan in plans]
    assert len(set(keys)) == len(keys) and keys[0] == "call"
    assert all(plan.parent is None or plan.parent in keys[: keys.index(plan.key)] for plan in plans)
    assert all(plan.begin <= plan.end for plan in plans)


def test_opentelemetry_has_them_with_our_ids() -> None:
    spans = SpanBuilder("eslbot-test").of(talked())
    by_name = {span.name: span for span in spans}
    assert all(span.context.trace_id == trace_id(CALL_ID) for span in spans)
    root, bot, answer = by_name["call"], by_name["bot"], by_name["answer"]
    assert root.parent is None and root.context.span_id == span_id(CALL_ID, "call")
    assert bot.parent is not None and bot.parent.span_id == root.context.span_id
    assert bot.context.span_id == span_id(CALL_ID, BOT)  # under which a bot's own hang
    assert answer.parent is not None and answer.parent.span_id == bot.context.span_id
    assert root.start_time == NOON * 1_000_000_000
    assert answer.end_time is not None and answer.start_time is not None
    assert answer.end_time - answer.start_time == pytest.approx(0.5e9, abs=2e3)
    assert root.resource.attributes["service.name"] == "eslbot-test"
    assert root.status.status_code is StatusCode.UNSET


# -- on their way -----------------------------------------------------------------------------------------


class Ledger:
    """Knows every call, when it is there."""

    def __init__(self) -> None:
        self.down = False
        self.asked: list[str] = []

    def call(self, call_id: str, workspaces: frozenset[str] | None) -> CallDetails | None:
        self.asked.append(call_id)
        if self.down:
            raise LedgerDown("away")
        return None if call_id.startswith("unknown") else talked(call_id)


class Collector(SpanExporter):
    """Takes spans, or does what a test wants."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.here = threading.Event()
        self.does: Callable[[], SpanExportResult] = lambda: SpanExportResult.SUCCESS

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.here.set()
        result = self.does()
        if result is SpanExportResult.SUCCESS:
            self.got += [span.name for span in spans if span.parent is None]
        return result


def count(became: str) -> float:
    return float(metrics.TRACES.labels(became)._value.get())


def spans_lost() -> float:
    return float(metrics.SPANS.labels("lost")._value.get())


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def running(
    collector: SpanExporter, ledger: Ledger, share: float = 1.0, name: str = "eslbot"
) -> Iterator[TraceExporter]:
    tracing = Tracing("http://x/", name, share)
    traces = TraceExporter(tracing, ledger, collector, settle_delay=0.0, batch_window=0.05)
    thread = threading.Thread(target=traces.run, daemon=True)
    thread.start()
    try:
        yield traces
    finally:
        traces.stop()
        thread.join(5)
    assert not thread.is_alive()


def test_calls_that_are_over_are_sent() -> None:
    collector, before = Collector(), count("exported")
    with running(collector, Ledger()) as traces:
        for number in range(3):
            traces.call_ended(f"call-{number}")
        traces.call_ended("unknown")
        until(lambda: len(collector.got) == 3)
    assert count("exported") == before + 3


def test_who_is_not_in_the_share_is_not_even_read() -> None:
    ledger = Ledger()
    with running(Collector(), ledger, share=0.5) as traces:
        for number in range(40):
            traces.call_ended(f"call-{number}")
        wanted = [f"call-{number}" for number in range(40) if is_sampled(f"call-{number}", 0.5)]
        until(lambda: len(ledger.asked) == len(wanted))
    assert ledger.asked == wanted


def test_a_collector_that_refuses_costs_its_spans_and_is_told_once() -> None:
    def fails() -> SpanExportResult:
        raise ConnectionResetError

    collector, refused, lost = Collector(), count("refused"), spans_lost()
    with capture_logs() as lines, running(collector, Ledger()) as traces:
        for does in (lambda: SpanExportResult.FAILURE, fails):
            collector.does = does
            traces.call_ended("call-1")
            refused += 1
            until(lambda wanted=refused: count("refused") == wanted)  # type: ignore[misc]
        collector.does = lambda: SpanExportResult.SUCCESS
        traces.call_ended("call-2")
        until(lambda: len(collector.got) == 1)
    assert spans_lost() == lost + 18
    assert [line["event"] for line in lines] == ["spans_lost", "spans_taken_again"]


@pytest.mark.timed
def test_a_collector_that_hangs_makes_nobody_wait() -> None:
    release, collector, dropped = threading.Event(), Collector(), count("dropped")

    def hangs() -> SpanExportResult:
        release.wait(20)
        return SpanExportResult.SUCCESS

    collector.does = hangs
    with running(collector, Ledger()) as traces:
        traces.call_ended("call-0")
        assert collector.here.wait(10)
        began = time.thread_time()
        for number in range(MAX_QUEUED + 7):
            traces.call_ended(f"call-{number}")
        assert time.thread_time() - began < 1
        assert count("dropped") == dropped + 7
        release.set()


def test_a_ledger_that_is_away_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "LEDGER_RETRY", 0.01)
    ledger, collector = Ledger(), Collector()
    ledger.down = True
    with running(collector, ledger) as traces:
        traces.call_ended("call-1")
        until(lambda: len(ledger.asked) > 2)
        ledger.down = False
        until(lambda: len(collector.got) == 1)
    monkeypatch.setattr(export, "LEDGER_TIMEOUT", 0.05)
    unread, ledger.down = count("unread"), True
    with running(collector, ledger) as traces:
        traces.call_ended("call-2")
        until(lambda: count("unread") == unread + 1)


# -- over HTTP --------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[OtlpServer]:
    with OtlpServer() as server:
        yield server


def test_they_leave_by_otlp(server: OtlpServer) -> None:
    tracing = Tracing(
        f"http://127.0.0.1:{server.server_port}/v1/traces",
        service_name="acme-eslbot",
        headers={"Authorization": Secret("Bearer 123456789")},
        insecure=True,
    )
    with running(export.otlp(tracing), Ledger(), name=tracing.service_name) as traces:
        traces.call_ended(CALL_ID)
        until(lambda: bool(server.requests))
    assert server.headers[0]["authorization"] == "Bearer 123456789"
    (resource,) = server.requests[0].resource_spans
    assert any(
        one.key == "service.name" and one.value.string_value == "acme-eslbot"
        for one in resource.resource.attributes
    )
    spans = [span for scope in resource.scope_spans for span in scope.spans]
    assert {span.trace_id for span in spans} == {trace_id(CALL_ID).to_bytes(16)}
    assert len(spans) == 9


def test_a_collector_that_says_no_is_counted(server: OtlpServer) -> None:
    server.status, refused = 401, count("refused")
    tracing = Tracing(f"http://127.0.0.1:{server.server_port}/v1/traces", insecure=True)
    with running(export.otlp(tracing), Ledger()) as traces:
        traces.call_ended(CALL_ID)
        until(lambda: count("refused") == refused + 1)
