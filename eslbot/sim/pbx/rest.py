"""HTTP of Ameyo's REST server: its connections and requests."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from eslbot.sim.pbx.notification import Fault, Notification, fault_of
from eslbot.sim.pbx.steps import TAKEN, Answer, Drop, Raw, Stall

if TYPE_CHECKING:
    from eslbot.sim.pbx.ameyo import AmeyoServer

#: Bytes of a body up to which a too large one is read, so that its sender sees the answer.
MAX_READ = 8 << 20
#: Seconds a connection may be idle or silent in the middle of a request.
IDLE_LIMIT = 60.0


class HandshakeFailed(Exception):
    """The client left, or did not like our certificate."""


class Server(ThreadingHTTPServer):
    """A thread a connection, TLS or not."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self, address: tuple[str, int], ameyo: AmeyoServer, context: ssl.SSLContext | None) -> None:
        self.ameyo = ameyo
        self._context = context
        self._connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection, before its handshake."""
        connection, address = super().get_request()
        connection.settimeout(IDLE_LIMIT)
        if self._context is not None:
            # The handshake is done in the connection's own thread: a client that says nothing must not
            # keep the others out.
            connection = self._context.wrap_socket(
                connection, server_side=True, do_handshake_on_connect=False
            )
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Handshake, then one request after the other."""
        if isinstance(request, ssl.SSLSocket):
            try:
                request.do_handshake()
            except OSError as error:
                raise HandshakeFailed from error
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """The connection is over."""
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """It has ended in an exception, which the server counts."""
        self.ameyo.note_failure(sys.exception())

    def drop_connections(self) -> None:
        """Close all that are open."""
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):  # it closed by itself
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "Ameyo-sim"
    disable_nagle_algorithm = True
    server: Server

    def handle_request(self) -> None:
        ameyo = self.server.ameyo
        length = self._content_length()
        if length is None or length > MAX_READ:
            self.close_connection = True  # where the next request begins is unknown, or too far
            body = b""
        else:
            body = self.rfile.read(length)
        request = Notification(
            at=time.time(),
            peer=self.client_address[:2],
            method=self.command,
            path=self.path,
            headers=self.headers.items(),
            body=body,
            json=_parsed(body),
            problem=None,
        )
        fault = fault_of(request, length, ameyo.tenants)
        request.problem = fault.problem if fault else None
        ameyo.record(request)
        step = ameyo.next_step(request.crt_object_id)
        if isinstance(step, Stall):
            ameyo.stall(step.seconds)
            step = Drop() if step.then is None else step.then
        self._do(step, request, fault)

    do_POST = do_GET = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = handle_request

    def _do(self, step: int | Answer | Drop | Raw | None, request: Notification, fault: Fault | None) -> None:
        ameyo = self.server.ameyo
        if isinstance(step, Drop):
            self.close_connection = True
            ameyo.settle(request, None, accepted=step.accepted and fault is None)
            return
        if isinstance(step, Raw) and fault is None:
            self._give(step, request)
            return
        answer = Answer(step) if isinstance(step, int) else step if isinstance(step, Answer) else Answer(200)
        if 200 <= answer.status < 300 and fault is not None:
            answer = Answer(fault.status)
        accepted = 200 <= answer.status < 300
        self._send(answer, request.problem)
        ameyo.settle(request, int(answer.status), accepted=accepted)

    def _give(self, raw: Raw, request: Notification) -> None:
        ameyo = self.server.ameyo
        self.close_connection = True
        taken = False
        try:
            for piece in raw.pieces():
                if piece is TAKEN:
                    taken = True
                    ameyo.settle(request, 200, accepted=True)
                elif isinstance(piece, float):
                    ameyo.stall(piece)
                elif isinstance(piece, bytes):
                    self.wfile.write(piece)
                if ameyo.stopping:
                    return
        finally:
            if not taken:
                ameyo.settle(request, None, accepted=False)

    def _send(self, answer: Answer, problem: str | None) -> None:
        ok = 200 <= answer.status < 300
        document = {"status": "success"} if ok else {"status": "error", "message": problem or "try again"}
        body = json.dumps(document).encode() if answer.body is None else answer.body
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _content_length(self) -> int | None:
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 12 else None

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing goes to standard error; :class:`AmeyoServer` records."""


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
