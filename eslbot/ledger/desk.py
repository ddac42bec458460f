"""The keeper's desk: answers questions on a Unix socket, one JSON object a line each way.

It has a thread of its own, so that a database that hangs does not keep it from telling of live calls. Who
asks is a process of this host and this user; still nothing it sends can cost more than a bound.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Connection, Engine

from eslbot.ledger import queries
from eslbot.ledger.database import LedgerDown, reading
from eslbot.ledger.fold import Row
from eslbot.ledger.live import Health, Live
from eslbot.ledger.queries import BadFilter, Filter

log = structlog.get_logger()

#: Bytes of a question, and of an answer's line.
MAX_QUESTION, MAX_ANSWER = 64 * 1024, 1_000_000
#: Clients at one time; questions to the database at one time.
MAX_CLIENTS, MAX_QUERIES = 64, 2
#: Seconds: that a client may be silent, that it may take to read an answer, that a question may take.
IDLE, SLOW, PATIENCE = 600.0, 10.0, 20.0
#: Seconds between two messages to who watches, and until an empty one says that all is well.
WATCH, SIGN_OF_LIFE = 1.0, 10.0
#: Seconds for which what every page asks again and again is not asked of the database.
FRESH = 2.0
#: Seconds behind a question in which another one may come.
ATTENDED = 10.0
#: Workspaces that a question may be restricted to.
MAX_WORKSPACES = 10_000


class Desk:
    """Answers at ``path`` from :meth:`open` to :meth:`close`; ``engine`` gives None without a database."""

    def __init__(self, path: Path, live: Live, engine: Callable[[], Engine | None]) -> None:
        self._path = path
        self._live = live
        self._engine = engine
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="desk", daemon=True)
        self._queries = ThreadPoolExecutor(MAX_QUERIES, thread_name_prefix="desk")
        self._clients: set[asyncio.Task[None]] = set()
        self._asked_at = float("-inf")
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._known: dict[tuple[Callable[..., Any], frozenset[str] | None], tuple[float, Any]] = {}

    def open(self) -> None:
        """Begin. Raises OSError where the socket cannot be made."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Under another name until it is ours alone: nobody may connect before its mode is right.
            new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            new.unlink(missing_ok=True)
            sock.bind(str(new))
            new.chmod(stat.S_IRUSR | stat.S_IWUSR)
            sock.listen(MAX_CLIENTS)
            self._inode = new.stat().st_ino
            new.rename(self._path)
        except OSError:
            sock.close()
            raise
        self._sock = sock
        self._thread.start()

    @property
    def attended(self) -> bool:
        """Whether somebody asks, or has asked a moment ago."""
        return bool(self._clients) or time.monotonic() - self._asked_at < ATTENDED

    def close(self) -> None:
        """End; the socket's file goes, if it is still ours."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=2)
        self._queries.shutdown(wait=False, cancel_futures=True)
        try:
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            log.info("desk_socket_was_gone", path=str(self._path))

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(
            asyncio.start_unix_server(self._client, sock=self._sock, limit=MAX_QUESTION)
        )
        self._loop.run_forever()
        self._server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    # -- clients ------------------------------------------------------------------------------------------

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._clients) >= MAX_CLIENTS:
                await _send(writer, {"error": "busy"})
                return
            self._clients.add(task)
            self._asked_at = time.monotonic()
            await self._serve(reader, writer)
        except (OSError, TimeoutError, asyncio.CancelledError) as error:
            log.debug("desk_client_gone", error=type(error).__name__)
        except Exception:  # one client's question must not end the desk
            log.exception("desk_failed")
        finally:
            self._clients.discard(task)
            writer.transport.abort() if writer.transport.get_write_buffer_size() else writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await asyncio.wait_for(reader.readline(), IDLE)
            except ValueError:  # longer than any question
                await _send(writer, {"error": "bad_question"})
                return
            if not line.endswith(b"\n"):
                return
            question = _question(line)
            if question is not None and question[0].get("ask") == "watch":
                await self._watch(reader, writer, question[1])
                return
            await _send(writer, await self._answer(question))

    async def _answer(self, question: tuple[dict[str, Any], frozenset[str] | None] | None) -> Row:
        if question is None:
            return {"error": "bad_question"}
        asked, workspaces = question
        kinds: dict[Any, Callable[..., Row]] = {
            "calls": self._calls,
            "call": self._call,
            "tenants": self._health_of_tenants,
            "restarts": self._restarts,
        }
        kind = kinds.get(asked.get("ask")) if isinstance(asked.get("ask"), str) else None
        if kind is None:
            return {"error": "bad_question"}
        try:
            work = self._loop.run_in_executor(self._queries, kind, asked, workspaces)
            return await asyncio.wait_for(work, PATIENCE)
        except BadFilter as error:
            return {"error": "bad_question", "detail": str(error)}
        except (LedgerDown, TimeoutError):
            return {"error": "database_down"}

    # -- what can be asked, each in a thread for queries ---------------------------------------------------

    def _calls(self, asked: dict[str, Any], workspaces: frozenset[str] | None) -> Row:
        wanted = asked.get("filter") or {}
        limit, before = asked.get("limit", 50), asked.get("before")
        if not isinstance(wanted, dict) or isinstance(limit, bool) or not isinstance(limit, int):
            raise BadFilter("filter must be an object, and limit a number")
        if before is not None and (isinstance(before, bool) or not isinstance(before, int | float)):
            raise BadFilter("before must be a time")
        rows = self._ask(queries.find, Filter.of(wanted, workspaces), limit, before)
        return {"calls": fit(rows)}

    def _call(self, asked: dict[str, Any], workspaces: frozenset[str] | None) -> Row:
        call_id = asked.get("id")
        if not isinstance(call_id, str) or "\x00" in call_id or len(call_id) > 128:
            raise BadFilter("id must be a call's")
        story = self._ask(queries.one, call_id, workspaces)
        if story is None:
            return {"error": "unknown_call"}
        return {
            "call": story.call,
            "timeline": fit(story.timeline),
            "notifications": fit(story.notifications, MAX_ANSWER // 8),
        }

    def _health_of_tenants(self, asked: dict[str, Any], workspaces: frozenset[str] | None) -> Row:
        return {"tenants": fit(self._lately(queries.tenants, workspaces))}

    def _restarts(self, asked: dict[str, Any], workspaces: frozenset[str] | None) -> Row:
        return {"restarts": self._lately(queries.restarts, workspaces)}

    def _lately(self, question: Callable[..., Any], workspaces: frozenset[str] | None) -> Any:
        """The answer now, or that of a moment ago."""
        now = time.monotonic()
        known = self._known.get((question, workspaces))
        if known is None or now - known[0] > FRESH:
            known = (now, self._ask(question, time.time(), workspaces))
            lately = {key: told for key, told in self._known.items() if now - told[0] <= FRESH}
            self._known = {**lately, (question, workspaces): known}  # another thread may read the one before
        return known[1]

    def _ask(self, question: Callable[..., Any], *arguments: Any) -> Any:
        engine = self._engine()
        if engine is None:
            raise LedgerDown("the database is down")

        def ask(connection: Connection) -> Any:
            return question(connection, *arguments)

        with reading(engine) as connection:
            return ask(connection)

    # -- watching -----------------------------------------------------------------------------------------

    async def _watch(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, workspaces: frozenset[str] | None
    ) -> None:
        """Tell of live calls until the client goes."""
        version, rows = self._live.all()
        health, told_at = self._live.health, time.monotonic()
        pieces = list(pages(_mine(rows, workspaces)))
        await _send(writer, {"live": pieces[0], "ledger": _told(health)})
        for piece in pieces[1:]:
            await _send(writer, {"changed": piece, "ended": [], "ledger": _told(health)})
        gone = asyncio.ensure_future(reader.read(1))  # it has nothing more to ask
        try:
            while True:
                await asyncio.wait([gone], timeout=WATCH)
                if gone.done():
                    return
                version, changed, ended = self._live.since(version)
                changed, ended = _mine(changed, workspaces), _mine(ended, workspaces)
                news = changed or ended or self._live.health != health
                if not news and time.monotonic() - told_at < SIGN_OF_LIFE:
                    continue
                health, told_at = self._live.health, time.monotonic()
                for kind, some in (("changed", changed), ("ended", ended)):
                    for piece in list(pages(some))[:-1]:
                        await _send(
                            writer, {"changed": [], "ended": [], kind: piece, "ledger": _told(health)}
                        )
                await _send(
                    writer,
                    {
                        "changed": list(pages(changed))[-1],
                        "ended": list(pages(ended))[-1],
                        "ledger": _told(health),
                    },
                )
        finally:
            gone.cancel()


def _question(line: bytes) -> tuple[dict[str, Any], frozenset[str] | None] | None:
    """The question, and the tenants that exist for who asks; None where it is none."""
    try:
        asked = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(asked, dict):
        return None
    if "workspaces" not in asked or asked["workspaces"] is None:
        return asked, None
    named = asked["workspaces"]
    if not isinstance(named, list) or len(named) > MAX_WORKSPACES:
        return None
    if not all(isinstance(name, str) for name in named):
        return None
    return asked, frozenset(named)


def _mine(rows: list[Row], workspaces: frozenset[str] | None) -> list[Row]:
    return rows if workspaces is None else [row for row in rows if row["workspace_id"] in workspaces]


def _told(health: Health) -> Row:
    return {"up": health.up, "backlog": health.backlog}


def pages(rows: Iterable[Row], most: int = MAX_ANSWER // 2) -> Iterable[list[Row]]:
    """``rows`` in lists of at most ``most`` bytes of JSON each; one, perhaps empty, at least."""
    page: list[Row] = []
    size = 0
    for row in rows:
        length = len(json.dumps(row)) + 2
        if page and size + length > most:
            yield page
            page, size = [], 0
        page.append(row)
        size += length
    yield page


def fit(rows: list[Row], most: int = MAX_ANSWER * 3 // 4) -> list[Row]:
    """The first of ``rows``, as many as one line can hold."""
    return next(iter(pages(rows, most)))


async def _send(writer: asyncio.StreamWriter, answer: Row) -> None:
    writer.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
    await asyncio.wait_for(writer.drain(), SLOW)
