"""Ameyo's REST server: takes the hand-off of a call, strictly, and can be told to misbehave."""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from eslbot.sim.events import Emit, silent
from eslbot.sim.pbx.certificates import LoopbackAuthority
from eslbot.sim.pbx.notification import Notification
from eslbot.sim.pbx.rest import HandshakeFailed, Server
from eslbot.sim.pbx.steps import Step

#: Tenant host and token where a test does not care.
TENANTS = {"acme.ameyo.app": "acme-token"}

REQUESTS_KEPT = 20_000


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
        self._server: Server | None = None
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
        self._server = Server((self.host, self.port), self, self._context)
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
                case HandshakeFailed():
                    self.handshake_failures += 1
                case ConnectionError() | ssl.SSLError() | TimeoutError():
                    self.broken += 1
                case OSError() if self._server is None or self._stopping.is_set():
                    self.broken += 1  # closed by down(), under the handler
                case BaseException():
                    self.errors.append(error)
            self._changed.notify_all()
