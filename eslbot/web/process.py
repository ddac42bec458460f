"""The page process: ledger writer, call page, API and metrics, in one process that carries no calls.

Its threads: the ledger writer, the trace exporter, the reader of FreeSWITCH's copies of SIP messages, the
HTTP server's, and the health monitor. No call needs any of them. One that fails ends the process, and the
arbiter starts it again. gevent has not patched it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from eslbot import config
from eslbot.config.model import Address, Config, Tracing
from eslbot.freeswitch import capture
from eslbot.health.probes import WriterStatus
from eslbot.health.setup import create_monitor
from eslbot.ledger.projection import Projection
from eslbot.ledger.query_service import QueryService
from eslbot.ledger.writer import LedgerWriter
from eslbot.runtime.children import lifeline
from eslbot.runtime.hardening import keep_to_ourselves
from eslbot.telemetry import exposition, logs
from eslbot.web.app import create_app
from eslbot.web.server import PageServer
from eslbot.web.services import PageServices

if TYPE_CHECKING:
    from eslbot.tracing.export import TraceExporter

log = structlog.get_logger()

#: Seconds until a port that is in use is tried again: at a release, by the process before.
LISTEN_RETRY = 0.2
#: Seconds that the ledger writer has for its last facts.
WRITER_STOP_TIMEOUT = 4.5
#: Calls go first where the machine is at its limit.
NICENESS = 5


class PageProcess:
    """The page process of one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._projection = Projection()
        self._writer: LedgerWriter | None = None
        self._traces: TraceExporter | None = None
        queries: QueryService | None = None
        if config.ledger is not None:
            writer = self._writer = LedgerWriter(
                config.ledger,
                self._projection,
                lambda: self.services.in_use,
                on_call_ended=self._on_call_ended,
            )
            queries = QueryService(lambda: writer.engine)
            if config.tracing is not None:
                self._traces = _traces(config.tracing, QueryService(lambda: writer.engine))
        self._health = create_monitor(config, self._projection, self._writer_status)
        self.services = PageServices(
            config,
            queries,
            self._projection,
            exposition.registry(Path(config.freeswitch.recovery_file)),
            lambda: self._health.health,
        )
        self._lifeline = lifeline()
        self._wake, self._woken = os.pipe()
        for descriptor in (self._wake, self._woken):
            os.set_blocking(descriptor, False)
        self._failed: str | None = None
        self._threads: list[threading.Thread] = []

    def run(self) -> int:
        """Run until told to end, or until the arbiter is gone; returns the exit code."""
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: None)
        if self._writer is not None:
            self._start("ledger-writer", self._writer.run)
        if self._traces is not None:
            self._start("traces", self._traces.run)
        self._start("capture", lambda: capture.watch(self._config.freeswitch.capture))
        server = None
        listener = self._listen(self._config.web.listen)
        if listener is not None:
            server = PageServer(create_app(self.services), listener)
            self._start("http", server.serve)
            self._start("health", self._health.run)
            log.info("page_begins", listen=str(self._config.web.listen), pid=os.getpid())
            while not self._must_end(None):
                pass
        self._health.stop()
        self._projection.close()
        if self._traces is not None:
            self._traces.stop()
        if self._writer is not None:
            self._writer.stop()
        if server is not None:
            server.stop()
        if self._writer is not None:
            self._threads[0].join(timeout=WRITER_STOP_TIMEOUT)
        log.info("page_ends")
        return 1 if self._failed else 0

    def _writer_status(self) -> WriterStatus:
        assert self._writer is not None
        health, writer = self._projection.health, self._writer
        return WriterStatus(
            health.up, health.problem or "", health.backlog, writer.beat, writer.waiting_since
        )

    def _on_call_ended(self, call_id: str) -> None:
        if self._traces is not None:
            self._traces.call_ended(call_id)

    def _start(self, name: str, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Exception:
                log.exception("page_thread_failed", thread=name, remedy="the process is started again")
                self._failed = name
                os.write(self._woken, b"\0")

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self, address: Address) -> socket.socket | None:
        """A listening socket, once the port is free; None when told to end first."""
        logged = False
        while True:
            try:
                return _listener(address)
            except OSError as error:
                if not logged:
                    logged = True
                    remedy = (
                        "it is tried again; is it web.listen of another program's, or no address of ours?"
                    )
                    why = error.strerror
                    log.error("page_does_not_listen", address=str(address), error=why, remedy=remedy)
            if self._must_end(LISTEN_RETRY):
                return None

    def _must_end(self, seconds: float | None) -> bool:
        """Wait for a signal for ``seconds`` at most; whether the process must end."""
        waiting = [self._wake] if self._lifeline is None else [self._wake, self._lifeline]
        ready, _, _ = select.select(waiting, [], [], seconds)
        if self._failed or self._lifeline in ready:
            return True
        signals = os.read(self._wake, 64) if self._wake in ready else b""
        # A terminal's SIGINT reaches us, too, but then the arbiter ends us, after its workers.
        return signal.SIGTERM in signals or (self._lifeline is None and signal.SIGINT in signals)


def _traces(tracing: Tracing, reader: QueryService) -> TraceExporter:
    """Imports OpenTelemetry, which is not installed everywhere."""
    from eslbot.tracing.export import TraceExporter, otlp

    return TraceExporter(tracing, reader, otlp(tracing))


def _listener(address: Address) -> socket.socket:
    family = socket.AF_INET6 if address.ip.version == 6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address.pair)
        listener.listen(128)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def run(path: Path, *, json_logs: bool) -> int:
    """Run until told to end; returns the exit code. Raises ConfigError."""
    keep_to_ourselves()
    os.nice(NICENESS)
    logs.configure(json_logs=json_logs, for_good=True)
    loaded = config.load(path)
    logs.guard(loaded)
    return PageProcess(loaded).run()
