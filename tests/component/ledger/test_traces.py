"""The page process sends the spans of calls that are over; the ledger is written whatever becomes of them."""

from __future__ import annotations

import json

import tomli_w

from eslbot.ledger.schema import calls, turns
from eslbot.telemetry.trace_context import BOT, span_id, trace_id
from tests.component.ledger.conftest import WriterHouse
from tests.support.ledger import Worker, fact, whole_call
from tests.support.otlp import OtlpServer
from tests.support.processes import until


def tracing(house: WriterHouse, endpoint: str) -> None:
    house.tree["tracing"] = {
        "endpoint": endpoint,
        "headers": {"Authorization": "Bearer secret-of-the-collector"},
        "insecure": True,
    }
    house.config.write_text(tomli_w.dumps(house.tree))


def test_a_call_that_is_over_is_a_trace(house: WriterHouse) -> None:
    with OtlpServer() as collector, Worker(house.journal) as worker:
        tracing(house, collector.endpoint)
        house.writer()
        lines = whole_call("c1")
        turn = fact("c1", "turn", 4.5, number=1, kind="answer", seconds=0.5, bot=0.4)
        worker.write([*lines[:-1], turn])
        house.drained()
        assert collector.requests == []  # it lives
        worker.write(lines[-1:])
        until(lambda: bool(collector.spans), what="the spans")
        assert collector.headers[0]["authorization"] == "Bearer secret-of-the-collector"
        spans = {span.name: span for span in collector.spans}
        assert {span.trace_id for span in collector.spans} == {trace_id("c1").to_bytes(16)}
        assert spans["answer"].parent_span_id == spans["bot"].span_id == span_id("c1", BOT).to_bytes(8)
        (row,) = house.rows(turns)
        assert (row["call_id"], row["seconds"], row["bot"]) == ("c1", 0.5, 0.4)


def test_a_collector_that_hangs_holds_up_no_record(house: WriterHouse) -> None:
    with OtlpServer() as collector, Worker(house.journal) as worker:
        collector.answers.clear()
        tracing(house, collector.endpoint)
        house.writer()
        worker.write(whole_call("c0"))
        assert collector.asked.wait(30)
        for number in range(1, 20):
            worker.write(whole_call(f"c{number}"))
        house.drained()
        assert len(house.rows(calls)) == 20
        process = house.processes[-1]
        process.terminate()  # which waits for no collector, either
        assert process.wait(15) == 0


def test_a_collector_that_refuses_is_told_without_the_token(house: WriterHouse) -> None:
    with OtlpServer() as collector, Worker(house.journal) as worker:
        collector.status = 401
        tracing(house, collector.endpoint)
        house.writer()
        worker.write(whole_call("c0"))
        log = house.folder / "page.log"
        until(lambda: b"spans_lost" in log.read_bytes(), what="the log line")
        (line,) = (json.loads(one) for one in log.read_text().splitlines() if "spans_lost" in one)
        assert (line["calls"], line["spans"]) == (1, 7)
        assert "secret-of-the-collector" not in log.read_text()
