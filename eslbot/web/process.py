"""The page process: all that is told of a service, in one process that carries no calls.

Its threads: the writer of the ledger, FreeSWITCH's copies of SIP messages, the HTTP server's. No call needs
any of them; whichever fails ends the process, and the arbiter starts it again. gevent has not patched it.
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
from eslbot.health.assemble import rounds_of
from eslbot.health.probes import Writing
from eslbot.ledger.projection import Projection
from eslbot.ledger.reader import Reader
from eslbot.ledger.writer import Writer
from eslbot.runtime.children import lifeline
from eslbot.runtime.hardening import keep_to_ourselves
from eslbot.telemetry import exposition, logs
from eslbot.web.app import create_app
from eslbot.web.server import PageServer
from eslbot.web.site import Site

if TYPE_CHECKING:
    from eslbot.tracing.export import Traces

log = structlog.get_logger()

#: Seconds until a port that another process has is tried again: at a release the one before leaves it.
AGAIN = 0.2
#: Seconds for the writer's last facts.
LAST_FACTS = 4.5
#: By how much calls go before it where there is not enough of the machine.
NICE = 5


class PageProcess:
    """Of one configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._projection = Projection()
        self._writer: Writer | None = None
        self._traces: Traces | None = None
        reader: Reader | None = None
        if config.ledger is not None:
            writer = self._writer = Writer(
                config.ledger, self._projection, lambda: self.site.attended, over=self._call_is_over
            )
            reader = Reader(lambda: writer.engine)
            if config.tracing is not None:
                self._traces = _traces(config.tracing, Reader(lambda: writer.engine))
        self._rounds = rounds_of(config, self._projection, self._writing)
        self.site = Site(
            config,
            reader,
            self._projection,
            exposition.registry(Path(config.freeswitch.recovery_file)),
            lambda: self._rounds.health,
        )
        self._lifeline = lifeline()
        self._wake, self._woken = os.pipe()
        for descriptor in (self._wake, self._woken):
            os.set_blocking(descriptor, False)
        self._failed: str | None = None
        self._threads: list[threading.Thread] = []

    def run(self) -> int:
        """Until told to end, or until the arbiter is gone; an exit code."""
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: None)
        if self._writer is not None:
            self._begin("ledger-writer", self._writer.run)
        if self._traces is not None:
            self._begin("traces", self._traces.run)
        self._begin("capture", lambda: capture.watch(self._config.freeswitch.capture))
        server = None
        listener = self._listen(self._config.web.listen)
        if listener is not None:
            server = PageServer(create_app(self.site), listener)
            self._begin("http", server.serve)
            self._begin("health", self._rounds.run)
            log.info("page_begins", listen=str(self._config.web.listen), pid=os.getpid())
            while not self._is_over(None):
                pass
        self._rounds.stop()
        self._projection.close()
        if self._traces is not None:
            self._traces.stop()
        if self._writer is not None:
            self._writer.stop()
        if server is not None:
            server.stop()
        if self._writer is not None:
            self._threads[0].join(timeout=LAST_FACTS)
        log.info("page_ends")
        return 1 if self._failed else 0

    def _writing(self) -> Writing:
        """How the ledger's writer is."""
        assert self._writer is not None
        told = self._projection.health
        return Writing(
            told.up,
            told.problem or "",
            told.backlog,
            self._writer.beat,
            self._writer.waiting_since,
        )

    def _call_is_over(self, call_id: str) -> None:
        if self._traces is not None:
            self._traces.over(call_id)

    def _begin(self, name: str, work: Callable[[], None]) -> None:
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
        """A listening socket, once the port is free; None when told to end before."""
        told = False
        while True:
            try:
                return _listener(address)
            except OSError as error:
                if not told:
                    remedy = (
                        "it is tried again; is it web.listen of another program's, or no address of ours?"
                    )
                    log.error(
                        "page_does_not_listen", address=str(address), error=error.strerror, remedy=remedy
                    )
                    told = True
            if self._is_over(AGAIN):
                return None

    def _is_over(self, seconds: float | None) -> bool:
        """Whether we are to end, once something has been told, or after ``seconds``."""
        waiting = [self._wake] if self._lifeline is None else [self._wake, self._lifeline]
        ready, _, _ = select.select(waiting, [], [], seconds)
        if self._failed:
            return True
        if self._lifeline in ready:
            return True
        if self._wake not in ready:
            return False
        told = os.read(self._wake, 64)
        # From a terminal SIGINT reaches us, too; then it is the arbiter who ends us, behind its workers.
        return signal.SIGTERM in told or (self._lifeline is None and signal.SIGINT in told)


def _traces(tracing: Tracing, reader: Reader) -> Traces:
    """With OpenTelemetry, which is not there everywhere."""
    from eslbot.tracing.export import Traces, otlp

    return Traces(tracing, reader, otlp(tracing))


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
    """Run until told to end; an exit code. Raises ConfigError."""
    keep_to_ourselves()
    os.nice(NICE)
    logs.configure(json_logs=json_logs, for_good=True)
    loaded = config.load(path)
    logs.guard(loaded)
    return PageProcess(loaded).run()
