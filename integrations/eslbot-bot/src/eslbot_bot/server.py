"""Who calls a bot's coroutine: :class:`Bot` is the handler of a ``websockets`` server, :func:`serve` has one.

A coroutine that returns is a bot that is finished, as if it had said ``end``. One that raises is a bot that
has failed: its connection is closed with 1011, and eslbot gives the caller to a human at once. What was
``end``ed before stays so.

All connections of a call have to come to the same process, by their ``X-Call-ID``: a second one continues the
coroutine of the first. One that is resumed and not known here, because it was another process's call, gets a
coroutine of its own with ``call.resumed``.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.asyncio.server import serve as websockets_serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from eslbot_bot import messages
from eslbot_bot.call import FAILED, LOST, MAX_AUDIO, Call
from eslbot_bot.events import Start

log = logging.getLogger("eslbot_bot")

#: A bot: called once for each call.
Handler = Callable[[Call], Awaitable[None]]

#: Bytes of one of eslbot's messages; none has a tenth of it.
MAX_MESSAGE = 256 * 1024
#: Seconds within which ``start`` comes; and another connection behind one that broke. eslbot has one within
#: a second, or gives the caller to a human within five.
START_WITHIN, RESUME_WITHIN = 10.0, 10.0
#: Seconds within which eslbot closes behind ``end``: the last words have 60.
END_WITHIN = 75.0
#: Close codes: no start; not wanted here; too many calls; the server ends; the bot has raised.
NO_START, NOT_ALLOWED, TRY_LATER, RESTARTS, RAISED = 1002, 1008, 1013, 1012, 1011


class Bot:
    """The handler of a ``websockets.asyncio.server``, which should get :meth:`process_request`, too.

    Args:
        handler: the bot.
        authorization: what ``Authorization`` of the upgrade must be, as ``bot.headers`` of the workspace has
            it; None for no matter what.
        max_calls: others are refused with 503, and eslbot tries the next URL; None for no limit.
        resume_within: seconds that a call whose connection broke waits for another.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        authorization: str | None = None,
        max_calls: int | None = None,
        resume_within: float = RESUME_WITHIN,
    ) -> None:
        self._handler = handler
        self._authorization = authorization
        self._max_calls = max_calls
        self._resume_within = resume_within
        self._calls: dict[str, Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._draining = False

    @property
    def calls(self) -> int:
        """How many calls there are, with those whose coroutine has something to do yet."""
        return len(self._tasks)

    # -- connections --------------------------------------------------------------------------------------

    def process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        """Refuse an upgrade before it is one: 401 without authorization, 503 where there is no place."""
        refused = self._refused(request.headers)
        if refused is None:
            return None
        status, why = refused
        return connection.respond(status, f"{why}\n")

    def _refused(self, headers: Headers) -> tuple[HTTPStatus, str] | None:
        if self._authorization is not None:
            given = headers.get("Authorization", "")
            if not hmac.compare_digest(given.encode(), self._authorization.encode()):
                return HTTPStatus.UNAUTHORIZED, "Authorization is not what this bot wants"
        if headers.get("X-Call-ID") in self._calls:
            return None
        if self._draining:
            return HTTPStatus.SERVICE_UNAVAILABLE, "this bot takes no more calls"
        if self._max_calls is not None and self.calls >= self._max_calls:
            return HTTPStatus.SERVICE_UNAVAILABLE, f"this bot has {self.calls} calls"
        return None

    async def __call__(self, connection: ServerConnection) -> None:
        """One connection, until it ends."""
        assert connection.request is not None  # there was one
        refused = self._refused(connection.request.headers)
        if refused is not None:  # nobody has asked `process_request`
            status, why = refused
            await connection.close(NOT_ALLOWED if status is HTTPStatus.UNAUTHORIZED else TRY_LATER, why)
            return
        early: list[bytes] = []
        try:
            start = await asyncio.wait_for(_begin(connection, early), START_WITHIN)
        except ConnectionClosed:
            return
        except asyncio.TimeoutError:
            await connection.close(NO_START, f"no start within {START_WITHIN:g} s")
            return
        call = self._calls.get(start.call_id)
        resumed = call is not None and start.resumed
        if call is None or not start.resumed:
            # A call that begins anew: nobody has heard what was said to it before.
            if call is not None:
                call.abandon()
            call = self._open(Call(start, connection.request.headers))
        if await call.converse(connection, early, resumed=resumed):
            call.finish()
        elif not call.connected:
            asyncio.get_running_loop().call_later(self._resume_within, _give_up, call, call.connections)

    def _open(self, call: Call) -> Call:
        self._calls[call.id] = call
        task = asyncio.create_task(self._run(call))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return call

    # -- the bot ------------------------------------------------------------------------------------------

    async def _run(self, call: Call) -> None:
        try:
            await self._say(call)
            await asyncio.wait_for(call.wait_over(), END_WITHIN)
        except asyncio.TimeoutError:
            log.warning("call %s: not closed within %g s behind its end", call.id, END_WITHIN)
            call.abandon()
        except asyncio.CancelledError:
            await call.fail(RESTARTS, "the bot's server ends")
            call.finish(LOST)
            raise
        finally:
            if self._calls.get(call.id) is call:
                del self._calls[call.id]

    async def _say(self, call: Call) -> None:
        try:
            await self._handler(call)
        except Exception:
            log.exception("call %s: the bot has failed", call.id)
            if not call.ended:
                await call.fail(RAISED, FAILED)
        else:
            call.end()

    # -- the end ------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> int:
        """Take no more calls, and wait for those there are; then cut them. How many were cut.

        Connections of calls that are known are taken meanwhile, so the server has to go on listening.
        """
        self._draining = True
        deadline = asyncio.get_running_loop().time() + seconds
        while self._tasks and (left := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._tasks, timeout=left)
        cut = list(self._tasks)
        for task in cut:
            task.cancel()
        await asyncio.gather(*cut, return_exceptions=True)
        return len(cut)


async def _begin(connection: ServerConnection, early: list[bytes]) -> Start:
    """Wait for ``start``; what the caller says before goes to ``early``, the last ten seconds of it."""
    while True:
        message = await connection.recv()
        if isinstance(message, bytes):
            early.append(message)
            del early[:-MAX_AUDIO]
            continue
        document = messages.read(message)
        if document is not None and document.get("type") == "start":
            start = messages.start(document)
            if start is not None:
                return start


def _give_up(call: Call, connections: int) -> None:
    """No other connection has come in time."""
    if not call.connected and call.connections == connections:
        call.finish(LOST)


async def serve(
    handler: Handler,
    host: str = "127.0.0.1",
    port: int = 9000,
    *,
    authorization: str | None = None,
    max_calls: int | None = None,
    drain: float = 600.0,
    listening: Callable[[str, int], None] | None = None,
    **options: Any,
) -> None:
    """Serve a bot until SIGTERM or SIGINT; then take no more calls, and let those there are end.

    Args:
        handler, authorization, max_calls: see :class:`Bot`.
        host, port: where; port 0 is any.
        drain: seconds that calls have to end behind the signal. What is left then, or at a second signal, is
            cut: its caller goes to a human.
        listening: is told where, once.
        options: of ``websockets.asyncio.server.serve`` (``ssl``, …).

    Raises OSError where it cannot listen.
    """
    bot = Bot(handler, authorization=authorization, max_calls=max_calls)
    signalled = [asyncio.Event(), asyncio.Event()]

    def signal_came() -> None:
        signalled[signalled[0].is_set()].set()

    loop = asyncio.get_running_loop()
    if sys.platform != "win32":  # which has no such handlers
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, signal_came)
    settings = {"compression": None, "max_size": MAX_MESSAGE, "process_request": bot.process_request}
    async with websockets_serve(bot, host, port, **{**settings, **options}) as server:
        at = server.sockets[0].getsockname()
        log.info("listening on %s:%d", at[0], at[1])
        if listening is not None:
            listening(at[0], at[1])
        await signalled[0].wait()
        log.info("taking no more calls; %d to go", bot.calls)
        draining = asyncio.create_task(bot.drain(drain))
        twice = asyncio.create_task(signalled[1].wait())
        await asyncio.wait((draining, twice), return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            draining.cancel()
            await bot.drain(0)
        twice.cancel()
