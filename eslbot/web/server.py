"""The page process's HTTP server: waitress, with bounds on all that a peer can send, keep or leave unread."""

from __future__ import annotations

import logging
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import structlog
from flask import Flask
from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher, WSGITask

from eslbot.web.export import MAX_EXPORTS
from eslbot.web.live import MAX_STREAMS
from eslbot.web.recordings import MAX_DOWNLOADS, MAX_READERS
from eslbot.web.schemas import MAX_FORM
from eslbot.web.sessions import MAX_WRONG_TOKENS

log = structlog.get_logger()

#: Threads: one for each answer that may take long, and 16 for everything else.
THREADS = MAX_STREAMS + MAX_EXPORTS + MAX_DOWNLOADS + MAX_READERS + MAX_WRONG_TOKENS + 16
#: Connections at one time. One more closes the one that has been silent for longest.
MAX_CONNECTIONS = 256
#: Bytes of a request's head.
MAX_HEAD = 8192
#: Requests that a connection may send before the first is answered.
MAX_PIPELINED = 8
#: Seconds in which a request must be complete, and for which a connection without one is kept.
REQUEST_TIMEOUT, IDLE_TIMEOUT = 5.0, 15.0
#: Seconds that an answer may take to its last byte; a stream of live events has no bound.
ANSWER_TIMEOUT = 180.0
#: Seconds in which a browser must take some of what waits for it, and bytes that may wait.
STALL_TIMEOUT, MAX_UNSENT = 20.0, 256 * 1024
#: Bytes of earlier answers that may still wait when another request is answered.
MAX_UNSENT_BEFORE_NEXT = 32 * 1024


class BoundedTask(WSGITask):  # type: ignore[misc]  # waitress has no types
    """One answer. A client that asks again and does not take the answers before gets no more."""

    def service(self) -> None:
        """Make the answer."""
        if self.channel.total_outbufs_len > MAX_UNSENT_BEFORE_NEXT:
            # This thread would wait for as long as the peer likes, and the peer may have many connections.
            self.close_on_finish = True
        else:
            super().service()


class BoundedChannel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """One connection."""

    task_class = BoundedTask

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        #: Since when its next request is awaited, or arriving.
        self.awaited_since = time.monotonic()
        super().__init__(*args, **kwargs)

    def received(self, data: bytes) -> bool:
        """Bytes of requests."""
        began = self.request is None
        more: bool = super().received(data)
        if self.request is None or began:
            self.awaited_since = time.monotonic()
        if len(self.requests) > MAX_PIPELINED:
            self.will_close = True
        return more

    def overdue(self, now: float) -> str | None:
        """Why it must be closed, at the monotonic ``now``; None where it need not."""
        if self.total_outbufs_len and time.time() - self.last_activity > STALL_TIMEOUT:
            return "it takes nothing of its answer"
        if self.requests:
            is_stream = self.requests[0].path == "/api/live"
            late = not is_stream and now - self.awaited_since > ANSWER_TIMEOUT
            return "its answer takes too long" if late else None
        if self.request is not None or self.last_activity == self.creation_time:
            return "its request is not whole" if now - self.awaited_since > REQUEST_TIMEOUT else None
        return "it is idle" if time.time() - self.last_activity > IDLE_TIMEOUT else None


class PageServer(TcpWSGIServer):  # type: ignore[misc]
    """Serves ``app`` on ``listener``, in the thread of :meth:`serve`, until :meth:`stop`."""

    channel_class = BoundedChannel

    def __init__(self, app: Flask, listener: socket.socket) -> None:
        logging.getLogger("waitress").setLevel(logging.ERROR)  # what peers do wrong is not worth a line
        settings = Adjustments(
            sockets=[listener],
            threads=THREADS,
            connection_limit=2 * MAX_CONNECTIONS,  # our own limit comes first
            cleanup_interval=1,
            asyncore_use_poll=True,
            max_request_header_size=MAX_HEAD,
            max_request_body_size=MAX_FORM + 1,
            outbuf_high_watermark=MAX_UNSENT,
            channel_request_lookahead=1,  # so that a browser that goes ends its stream
            log_socket_errors=False,
            clear_untrusted_proxy_headers=False,
            ident=None,
        )
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(THREADS)
        super().__init__(
            app,
            {},
            _sock=listener,
            dispatcher=dispatcher,
            adj=settings,
            bind_socket=False,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
        )
        self._stopping = False
        self._ended = threading.Event()

    def serve(self) -> None:
        """Until :meth:`stop`."""
        try:
            while not self._stopping:
                wasyncore.loop(timeout=1, use_poll=True, map=self._map, count=1)
        finally:
            self.task_dispatcher.shutdown(timeout=0)
            wasyncore.close_all(self._map, ignore_all=True)
            self._ended.set()

    def stop(self) -> None:
        """End, from another thread: accept nothing more, and break off what is under way."""
        self._stopping = True
        with suppress(OSError):  # it may have ended by itself
            self.pull_trigger()
        self._ended.wait(timeout=2)

    def handle_accept(self) -> None:
        """Take a connection; where there are too many, close the one that has been silent for longest."""
        if len(self.active_channels) >= MAX_CONNECTIONS:
            silent = [channel for channel in self.active_channels.values() if not channel.requests]
            if silent:
                min(silent, key=lambda channel: channel.last_activity).handle_close()
        super().handle_accept()

    def maintenance(self, now: float) -> None:
        """Once a second: close the connections that keep us waiting."""
        monotonic = time.monotonic()
        for channel in list(self.active_channels.values()):
            if why := channel.overdue(monotonic):
                log.debug("page_connection_closed", peer=channel.addr[0], why=why)
                # Not by `will_close`: waitress looks at that when the socket can be written, which is never.
                channel.handle_close()
