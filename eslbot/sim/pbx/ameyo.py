"""Ameyo's REST server: takes the hand-off of a call, strictly, and can be told to misbehave.

The contract is in the Ringg/Ameyo integration document, section 2: one route, four headers, a body of five
keys of which three are constants. Everything that differs from it is an error here, since the real server's
tolerance is unknown.

===========================================  ======
what is wrong with a request                 status
===========================================  ======
path                                         404
method                                       405
``Host`` is no tenant's                      404
``policy-name`` is not ``token``             403
``Authorization`` is not the tenant's token  401
no ``Content-Length``                        411
``Content-Type`` is not ``application/json`` 415
body over 1 MB                               413
body is not exactly the schema               400
===========================================  ======
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from eslbot.sim.events import Emit, silent
from eslbot.sim.pbx.certificates import LoopbackAuthority
from eslbot.sim.pbx.unkind import TAKEN, UNKIND

#: The route of the integration document.
ROUTE = "/ameyorestapi/voice/sendAgentResponseForCallNotification"

#: Tenant host and token where a test does not care.
TENANTS = {"acme.ameyo.app": "acme-token"}

CONSTANTS = {"notificationId": "95", "callResponse": True, "sessionId": "na"}

#: Bytes of a body that are taken, and up to which a larger one is read, so that its sender sees the answer.
MAX_BODY, MAX_READ = 1 << 20, 8 << 20
REQUESTS_KEPT = 20_000

#: Seconds a connection may be idle or silent in the middle of a request.
IDLE_LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Give this answer; one of 2xx is given only to a request without a fault, and accepts the call."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


@dataclass(frozen=True, slots=True)
class Stall:
    """Say nothing for ``seconds``, then do ``then``; by default drop the connection, nothing accepted."""

    seconds: float
    then: int | Answer | Drop | Unkind | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """Close the connection without an answer; ``accepted``: the call was taken and the answer got lost."""

    accepted: bool = False


@dataclass(frozen=True, slots=True)
class Unkind:
    """Answer in this way, one of :data:`eslbot.sim.pbx.unkind.UNKIND`, and close the connection.

    A request with a fault is answered as always.
    """

    how: str


Step = int | Answer | Stall | Drop | Unkind


@dataclass(slots=True)
class Notification:
    """A request as it came, ``at`` epoch seconds, and what became of it.

    ``headers`` keep order and spelling, ``json`` is None where the body is none. ``problem`` names the
    first fault of the request, None for a correct one. ``status`` is None while there is no answer and
    where the connection was dropped.
    """

    at: float
    peer: tuple[str, int]
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    json: Any
    problem: str | None
    status: int | None = None
    answered_at: float | None = None
    accepted: bool = False

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its spelling."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def crt_object_id(self) -> str | None:
        """``uniqueId`` of the body."""
        value = self.json.get("uniqueId") if isinstance(self.json, dict) else None
        return value if isinstance(value, str) else None

    @property
    def properties(self) -> dict[str, Any]:
        """``properties`` of the body; empty where it has none."""
        value = self.json.get("properties") if isinstance(self.json, dict) else None
        return value if isinstance(value, dict) else {}


class _Fault(Exception):
    """What is wrong with a request."""

    def __init__(self, status: HTTPStatus, problem: str) -> None:
        super().__init__(problem)
        self.status, self.problem = status, problem


class AmeyoServer:
    """The server; a context manager, or :meth:`start` and :meth:`stop`.

    Args:
        tenants: tenant host to its token.
        host, port: where to listen; 0 takes a free port, which :meth:`down` and :meth:`up` keep.
        on_accept: called with the CRT Object ID of every accepted notification, after the answer was
            sent, in the request's thread; :meth:`subscribe` adds more.
        tls: False for plain HTTP.
        certificate: a PEM file with certificate and key to show instead of one of loopback's, which is new at
            each start and of which ``ca_file`` tells.
        emit: told ``notification`` with CRT Object ID, status and problem; never a token.

    ``requests`` holds all requests in order of arrival. ``handshake_failures`` counts TLS handshakes that
    came to nothing, as with a client that does not trust ``ca_file``; ``broken`` connections the client
    gave up; ``errors`` what went wrong in the stand-in itself.
    """

    def __init__(
        self,
        tenants: Mapping[str, str] = TENANTS,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        on_accept: Callable[[str], None] | None = None,
        tls: bool = True,
        certificate: Path | None = None,
        emit: Emit = silent,
    ) -> None:
        self.tenants = dict(tenants)
        self.host, self.port = host, port
        self.requests: deque[Notification] = deque(maxlen=REQUESTS_KEPT)
        self.handshake_failures = 0
        self.broken = 0
        self.errors: list[BaseException] = []
        self._listeners = [on_accept] if on_accept else []
        self._tls = tls
        self._certificate = certificate
        self._emit = emit
        self._changed = threading.Condition()
        self._scripts: dict[str | None, deque[Step]] = {}
        self._repeating: set[str | None] = set()
        self._stopping = threading.Event()
        self._authority: LoopbackAuthority | None = None
        self._context: ssl.SSLContext | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    # life

    def start(self) -> Self:
        """Make or read the certificate and listen. Raises OSError (ssl.SSLError too) where it cannot."""
        if self._tls and self._certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(self._certificate)
        elif self._tls:
            self._authority = LoopbackAuthority()
            self._context = self._authority.server_context()
        self._stopping.clear()
        self.up()
        return self

    def stop(self) -> None:
        """Close everything, stalled requests too, and remove the certificate."""
        self._stopping.set()
        self.down()
        if self._authority is not None:
            self._authority.close()
            self._authority = None

    def down(self) -> None:
        """Refuse connections from now on and drop those that are open."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server.drop_connections()
        self._thread.join(5)
        self._server = self._thread = None

    def up(self) -> None:
        """Listen again, on the same port."""
        if self._server is not None:
            return
        self._server = _Server((self.host, self.port), self, self._context)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="ameyo", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # for whoever configures eslbot

    @property
    def url(self) -> str:
        """``ameyo.url`` of the configuration."""
        return f"{'https' if self._tls else 'http'}://{self.host}:{self.port}"

    @property
    def ca_file(self) -> Path:
        """``ameyo.ca_file`` of the configuration; only while the server is started, and only with TLS."""
        if self._authority is None:
            raise RuntimeError("no certificate: the server is not started, or has no TLS")
        return self._authority.ca_file

    # for the test

    def subscribe(self, on_accept: Callable[[str], None]) -> None:
        """Call ``on_accept`` too with the CRT Object ID of every accepted notification."""
        self._listeners.append(on_accept)

    def unsubscribe(self, on_accept: Callable[[str], None]) -> None:
        """Undo :meth:`subscribe`."""
        self._listeners.remove(on_accept)

    def script(self, crt_object_id: str | None, steps: Iterable[Step], *, repeat_last: bool = False) -> None:
        """What to do with the next notifications of a call, or, with None, of calls without a script.

        ``500`` is short for ``Answer(500)``. When the steps are used up requests are judged as always,
        or, with ``repeat_last``, the last step goes on.
        """
        with self._changed:
            self._scripts[crt_object_id] = deque(steps)
            if repeat_last:
                self._repeating.add(crt_object_id)
            else:
                self._repeating.discard(crt_object_id)

    def requests_for(self, crt_object_id: str) -> list[Notification]:
        """The requests that name this call, in order."""
        with self._changed:
            return [request for request in self.requests if request.crt_object_id == crt_object_id]

    def take(self, crt_object_ids: Collection[str]) -> list[Notification]:
        """The requests that name these calls, in order; they are forgotten, and so are the calls' scripts."""
        with self._changed:
            taken = [request for request in self.requests if request.crt_object_id in crt_object_ids]
            kept = [request for request in self.requests if request.crt_object_id not in crt_object_ids]
            self.requests.clear()
            self.requests.extend(kept)
            for crt in crt_object_ids:
                self._scripts.pop(crt, None)
                self._repeating.discard(crt)
        return taken

    def wait_for(
        self, predicate: Callable[[Notification], bool], timeout: float = 10.0, *, count: int = 1
    ) -> list[Notification]:
        """The requests for which ``predicate`` holds, once there are ``count`` that have been dealt with.

        Raises:
            TimeoutError: not within ``timeout`` seconds.
        """
        found: list[Notification] = []

        def look() -> bool:
            found[:] = [r for r in self.requests if r.answered_at is not None and predicate(r)]
            return len(found) >= count

        with self._changed:
            if not self._changed.wait_for(look, timeout):
                had = [(r.crt_object_id, r.status, r.problem) for r in self.requests]
                raise TimeoutError(f"{len(found)} of {count} such requests within {timeout} s; had {had}")
        return found

    def wait_accepted(self, crt_object_id: str, timeout: float = 10.0) -> Notification:
        """The accepted notification of a call; raises TimeoutError where there is none."""
        return self.wait_for(lambda r: r.accepted and r.crt_object_id == crt_object_id, timeout)[0]

    # for the handler

    def judge(self, request: Notification, length: int | None) -> _Fault | None:
        """What is wrong with ``request`` by the contract; ``length`` is its ``Content-Length``."""
        try:
            self._check(request, length)
        except _Fault as fault:
            return fault
        return None

    def _check(self, request: Notification, length: int | None) -> None:
        if request.path != ROUTE:
            raise _Fault(HTTPStatus.NOT_FOUND, f"no such resource: {request.path}")
        if request.method != "POST":
            raise _Fault(HTTPStatus.METHOD_NOT_ALLOWED, f"{request.method} is not POST")
        token = self.tenants.get(_only(request, "Host"))
        if token is None:
            raise _Fault(HTTPStatus.NOT_FOUND, f"no tenant {request.header('Host')!r}")
        if _only(request, "policy-name") != "token":
            raise _Fault(HTTPStatus.FORBIDDEN, "policy-name is not 'token'")
        if _only(request, "Authorization") != token:
            raise _Fault(HTTPStatus.UNAUTHORIZED, "Authorization is not this tenant's token")
        if length is None:
            raise _Fault(HTTPStatus.LENGTH_REQUIRED, "no Content-Length")
        if length > MAX_BODY:
            raise _Fault(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"body of {length} bytes")
        media_type, _, parameters = _only(request, "Content-Type").partition(";")
        if media_type.strip().lower() != "application/json" or parameters.strip().lower() not in (
            "",
            "charset=utf-8",
        ):
            raise _Fault(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type is not application/json")
        problem = schema_problem(request.body)
        if problem is not None:
            raise _Fault(HTTPStatus.BAD_REQUEST, problem)

    def next_step(self, crt_object_id: str | None) -> Step | None:
        """The script's next step for this call."""
        with self._changed:
            for key in (crt_object_id, None):
                steps = self._scripts.get(key)
                if steps:
                    last = len(steps) == 1 and key in self._repeating
                    return steps[0] if last else steps.popleft()
        return None

    def record(self, request: Notification) -> None:
        """A request has come."""
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()

    def settle(self, request: Notification, status: int | None, *, accepted: bool) -> None:
        """A request has been dealt with; an accepted one ends its call."""
        with self._changed:
            request.status, request.accepted, request.answered_at = status, accepted, time.time()
            self._changed.notify_all()
        self._emit(
            "notification",
            {"crt_object_id": request.crt_object_id, "status": status, "problem": request.problem},
        )
        if accepted and request.crt_object_id is not None:
            for listener in list(self._listeners):
                listener(request.crt_object_id)

    def stall(self, seconds: float) -> None:
        """Wait, but not beyond :meth:`stop`."""
        self._stopping.wait(seconds)

    @property
    def stopping(self) -> bool:
        """Whether :meth:`stop` was called: nothing goes on for ever any more."""
        return self._stopping.is_set()

    def note_failure(self, error: BaseException | None) -> None:
        """A connection ended in an exception."""
        with self._changed:
            match error:
                case _HandshakeFailed():
                    self.handshake_failures += 1
                case ConnectionError() | ssl.SSLError() | TimeoutError():
                    self.broken += 1
                case OSError() if self._server is None or self._stopping.is_set():
                    self.broken += 1  # closed by down(), under the handler
                case BaseException():
                    self.errors.append(error)
            self._changed.notify_all()


def schema_problem(body: bytes) -> str | None:
    """What is wrong with a notification's body; None where it is exactly the schema."""
    try:
        document = json.loads(body.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except ValueError as error:
        return f"not JSON: {error}"
    if not isinstance(document, dict):
        return "not an object"
    expected = {*CONSTANTS, "uniqueId", "properties"}
    if document.keys() != expected:
        missing, strange = expected - document.keys(), document.keys() - expected
        return f"missing keys {sorted(missing)}, unknown keys {sorted(strange)}"
    for key, value in CONSTANTS.items():
        if document[key] != value or type(document[key]) is not type(value):
            return f"{key} is {document[key]!r}, not {value!r}"
    if not isinstance(document["uniqueId"], str) or not document["uniqueId"]:
        return "uniqueId is no text"
    properties = document["properties"]
    if not isinstance(properties, dict):
        return "properties is no object"
    for key, value in properties.items():
        if not isinstance(value, str):
            return f"properties[{key!r}] is no text"
    return None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a key stands twice")
    return document


def _only(request: Notification, name: str) -> str:
    """The value of a header that may stand once; empty where it is missing."""
    values = [value for key, value in request.headers if key.lower() == name.lower()]
    if len(values) > 1:
        raise _Fault(HTTPStatus.BAD_REQUEST, f"{name} stands {len(values)} times")
    return values[0] if values else ""


class _HandshakeFailed(Exception):
    """The client left, or did not like our certificate."""


class _Server(ThreadingHTTPServer):
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
        if isinstance(request, ssl.SSLSocket):
            try:
                request.do_handshake()
            except OSError as error:
                raise _HandshakeFailed from error
        super().finish_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.ameyo.note_failure(sys.exception())

    def drop_connections(self) -> None:
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):  # it closed by itself
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "Ameyo-sim"
    disable_nagle_algorithm = True
    server: _Server

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
        fault = ameyo.judge(request, length)
        request.problem = fault.problem if fault else None
        ameyo.record(request)
        step = ameyo.next_step(request.crt_object_id)
        if isinstance(step, Stall):
            ameyo.stall(step.seconds)
            step = Drop() if step.then is None else step.then
        self._do(step, request, fault)

    do_POST = do_GET = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = handle_request

    def _do(
        self, step: int | Answer | Drop | Unkind | None, request: Notification, fault: _Fault | None
    ) -> None:
        ameyo = self.server.ameyo
        if isinstance(step, Drop):
            self.close_connection = True
            ameyo.settle(request, None, accepted=step.accepted and fault is None)
            return
        if isinstance(step, Unkind) and fault is None:
            self._be_unkind(step.how, request)
            return
        answer = Answer(step) if isinstance(step, int) else step if isinstance(step, Answer) else Answer(200)
        if 200 <= answer.status < 300 and fault is not None:
            answer = Answer(fault.status)
        accepted = 200 <= answer.status < 300
        self._send(answer, request.problem)
        ameyo.settle(request, int(answer.status), accepted=accepted)

    def _be_unkind(self, how: str, request: Notification) -> None:
        ameyo = self.server.ameyo
        self.close_connection = True
        taken = False
        try:
            for piece in UNKIND[how]():
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
