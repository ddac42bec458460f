"""The stand-in bot's server, and ``eslbot sim bot``."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from eslbot.sim.bot.behaviours import KIND, finish_again
from eslbot.sim.bot.call import BotCall
from eslbot.sim.bot.sockets import Frozen, LeftOpen
from eslbot.sim.bot.unkind import UNKIND
from eslbot.sim.bot.wavfiles import Recorder, WavFile
from eslbot.sim.events import Emit, silent

#: How many calls are kept.
CALLS_KEPT = 5000

#: What a bot does in a call, by the URL's path.
BEHAVIOURS = KIND | UNKIND


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A WebSocket upgrade that was refused."""

    at: float
    path: str
    headers: Headers


class Bot:
    """The server; a context manager, or :meth:`start` and :meth:`stop`.

    Args:
        host, port: where to listen; 0 takes a free port.
        ssl_context: of a server, for ``wss://``.
        keep_audio: seconds of caller audio kept for each call.
        wav: what ``/wav`` speaks.
        recorder: writes what the callers say.
        emit: told ``call``, ``audio`` (first heard), ``said``, ``resumed``, ``end``, ``closed``, with fields.

    It can be stopped and started again: on the same port, and with the calls so far still known.
    ``refused`` holds the upgrades answered with 403 or 404.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl_context: ssl.SSLContext | None = None,
        keep_audio: float = 30.0,
        wav: WavFile | None = None,
        recorder: Recorder | None = None,
        emit: Emit = silent,
    ) -> None:
        self.host, self.port = host, port
        self.refused: deque[Upgrade] = deque(maxlen=CALLS_KEPT)
        self._ssl = ssl_context
        self._keep_audio = keep_audio
        self._wav, self._recorder = wav, recorder
        self._emit = emit
        self._calls: deque[BotCall] = deque(maxlen=CALLS_KEPT)
        self._kept: list[socket.socket] = []
        self._changed = threading.Condition()
        self._server: Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Listen; again on the same port where it was stopped. Raises OSError where the port is taken."""
        self._server = serve(
            self._handle,
            self.host,
            self.port,
            ssl=self._ssl,
            process_request=self._admit,
            compression=None,  # eslbot never offers it
            ping_interval=None,  # a slow test machine is no reason to drop a call
            open_timeout=5,
            close_timeout=2,
            server_header="eslbot-sim",
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="bot", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Drop every call and stop listening; bounded by the opening and closing time-outs."""
        if self._server is None or self._thread is None:
            return
        self.let_go()
        living = [call for call in self.calls if not call.closed]
        for call in living:
            call.abort()
        deadline = time.monotonic() + 2
        for call in living:  # or the server's own closing, with 1001, overtakes the drop
            call.part(max(0.0, deadline - time.monotonic()))
        self._server.shutdown()
        self._thread.join(10)
        self._server = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def url(self, behaviour: str = "talk") -> str:
        """The WebSocket URL of ``behaviour``, which may carry a query: ``talk?listen_ms=300``."""
        return f"{'wss' if self._ssl else 'ws'}://{self.host}:{self.port}/{behaviour}"

    @property
    def behaviours(self) -> list[str]:
        """The paths that are served."""
        return [name for name in BEHAVIOURS if name != "wav" or self._wav is not None]

    @property
    def calls(self) -> list[BotCall]:
        """The calls so far, oldest first."""
        with self._changed:
            return list(self._calls)

    def wait_for_call(
        self, predicate: Callable[[BotCall], bool] | None = None, timeout: float = 10.0
    ) -> BotCall:
        """The first call for which ``predicate`` holds when it connects, already there or still to come.

        Raises:
            TimeoutError: none within ``timeout`` seconds.
        """
        found: list[BotCall] = []

        def look() -> bool:
            found[:] = [call for call in self._calls if predicate is None or predicate(call)][:1]
            return bool(found)

        with self._changed:
            if not self._changed.wait_for(look, timeout):
                raise TimeoutError(f"no such call within {timeout} s; had {list(self._calls)}")
        return found[0]

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        target = urlsplit(request.path)
        behaviour, parameters = target.path.strip("/"), dict(parse_qsl(target.query))
        if parameters.get("keep_tcp"):
            self._keep(connection)
        elif behaviour == "frozen" or parameters.get("unread"):
            connection.socket = Frozen(connection.socket)
        if behaviour in self.behaviours:
            return None
        with self._changed:
            self.refused.append(Upgrade(time.time(), request.path, request.headers))
            self._changed.notify_all()
        self._emit("refused", {"path": request.path})
        if behaviour == "reject":
            return connection.respond(HTTPStatus(int(parameters.get("status", 403))), "not you\n")
        return connection.respond(HTTPStatus.NOT_FOUND, f"paths: {', '.join(self.behaviours)}, reject\n")

    def _keep(self, connection: ServerConnection) -> None:
        """Have the library work on a copy, whose end is not the connection's."""
        with self._changed:
            self._kept.append(connection.socket)
        connection.socket = LeftOpen(fileno=os.dup(connection.socket.fileno()))

    def let_go(self) -> None:
        """End the connections that ``keep_tcp`` has left open."""
        with self._changed:
            kept, self._kept = self._kept, []
        for sock in kept:
            with contextlib.suppress(OSError):  # the peer was faster
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _handle(self, connection: ServerConnection) -> None:
        call = BotCall(
            connection,
            keep_audio=self._keep_audio,
            emit=self._emit,
            wav=self._wav,
            recorder=self._recorder,
        )
        with self._changed:
            # Without an id, calls are strangers to each other.
            earlier = [before for before in self._calls if call.call_id and before.call_id == call.call_id]
            call.resumed = bool(earlier)
            self._calls.append(call)
            self._changed.notify_all()
        finished = next((before for before in reversed(earlier) if before.finished), None)
        self._emit("call", {"call_id": call.call_id, "path": call.path})
        reader = threading.Thread(target=call.read, name=f"bot reads {call.path}", daemon=True)
        reader.start()
        try:
            once = call.resumed and call.number("once", 0)
            behaviour = BEHAVIOURS["talk" if once else call.behaviour]
            if call.wire.opening:  # nothing can be said before the stream's name is known
                call.until(lambda: call.closed or bool(call.messages_of("start")))
            if finished is not None and not call.wire.opening:
                finish_again(call, finished, behaviour)
            elif not call.closed:
                behaviour(call)
        except ConnectionClosed:
            pass  # the caller hung up, or the test closed; the reader has noted how
        except BaseException as error:
            call.error = call.error or error  # for the test to see, and the library logs it
            raise
        finally:
            connection.close()
            reader.join(5)


def run(
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    emit: Emit = silent,
    ssl_context: ssl.SSLContext | None = None,
    wav: WavFile | None = None,
    recorder: Recorder | None = None,
) -> None:
    """The stand-in by itself, until SIGINT or SIGTERM; for ``eslbot sim bot``, in the main thread."""
    # A pipe, and no Event: its lock is not free where the signal comes while the main thread waits for it.
    done, signalled = os.pipe()
    before = {
        number: signal.signal(number, lambda *_: os.write(signalled, b"."))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        with Bot(
            host, port, keep_audio=1, ssl_context=ssl_context, emit=emit, wav=wav, recorder=recorder
        ) as bot:
            emit("ready", {"url": bot.url(""), "behaviours": [*bot.behaviours, "reject"]})
            os.read(done, 1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(done)
        os.close(signalled)
