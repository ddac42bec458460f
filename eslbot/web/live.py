"""Live calls as server-sent events (WHATWG HTML, 9.2): what the keeper tells, for many pages.

Viewers with the same rights share one `watch` of the keeper's. Each stream holds what its browser has not
been sent yet, merged to the last state of each call: a slow browser gets fewer events, and costs no more
memory. One that reads nothing at all is cut off. A worker that leaves ends its streams at once, and the pages
come again, to another worker.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

import gevent
import structlog
from gevent import socket
from gevent.event import Event

from eslbot.web.http import Answer, Refusal
from eslbot.web.keeper_client import KeeperClient, LedgerDown
from eslbot.web.showing import in_list, may_see, rights
from eslbot.web.tokens import Viewer

log = structlog.get_logger()

#: Pages that one worker keeps up to date.
MAX_STREAMS = 50
#: Calls that changed since a stream's browser took something; beyond them it gets all live calls anew.
MAX_PENDING = 5000
#: Seconds between two signs of life, by which a worker and a page notice that the other is gone.
HEARTBEAT = 5.0
#: Seconds in which a browser has to take a piece, and its bytes.
STALL = 20.0
PIECE = 32 * 1024
#: Seconds until a keeper that went away is asked again, at first and at most.
RETRY, RETRY_CAP = 0.5, 5.0
#: Seconds between two looks whether the worker leaves.
LOOK = 0.1
#: Milliseconds until a browser comes again.
RECONNECT = 1000


class Feeds:
    """The streams of one worker. ``leaving`` tells whether it is about to go."""

    def __init__(self, keeper: KeeperClient, leaving: Callable[[], bool]) -> None:
        self._keeper = keeper
        self._leaving = leaving
        self._feeds: dict[Any, Feed] = {}
        self._streams: set[Stream] = set()
        self._watcher: gevent.Greenlet[..., None] | None = None

    def open(self, viewer: Viewer, sock: Any) -> Answer:
        """A stream for ``viewer`` on the connection ``sock``, until it is closed. Raises Refusal."""
        if self._leaving():
            raise _come_again("this worker is leaving", 1)
        if len(self._streams) >= MAX_STREAMS:
            raise _come_again(f"{MAX_STREAMS} pages are open in this worker already", 10)
        key = (viewer.workspaces, viewer.numbers)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(self._keeper, viewer)
        stream = Stream(feed, viewer.until, sock, self._closed)
        self._streams.add(stream)
        feed.add(stream)
        if self._watcher is None:
            self._watcher = gevent.spawn(self._watch_leaving)
        return Answer(HTTPStatus.OK, "text/event-stream", stream, (("X-Accel-Buffering", "no"),))

    def _closed(self, stream: Stream) -> None:
        self._streams.discard(stream)
        if stream.feed.remove(stream):
            self._feeds = {key: feed for key, feed in self._feeds.items() if feed is not stream.feed}

    def _watch_leaving(self) -> None:
        while self._streams and not self._leaving():
            gevent.sleep(LOOK)
        self._watcher = None
        for stream in list(self._streams):
            stream.end()


class Feed:
    """The live calls that viewers of one right set may see, as they are sent."""

    def __init__(self, keeper: KeeperClient, viewer: Viewer) -> None:
        self._keeper = keeper
        self._viewer = viewer
        self._streams: set[Stream] = set()
        self._greenlet: gevent.Greenlet[..., None] | None = None
        #: Each live call's row as JSON; None as long as the keeper does not tell.
        self.rows: dict[str, str] | None = None
        #: How the ledger is, as JSON.
        self.ledger = _compact({"up": False, "error": "asking"})

    def add(self, stream: Stream) -> None:
        """A stream that gets all from now on."""
        self._streams.add(stream)
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._run)

    def remove(self, stream: Stream) -> bool:
        """Whether that was the last one; the keeper is then asked no more."""
        self._streams.discard(stream)
        if not self._streams and self._greenlet is not None:
            self._greenlet.kill(block=False)
        return not self._streams

    def _run(self) -> None:
        question = {"ask": "watch", **rights(self._viewer)}
        pause = RETRY
        while True:
            try:
                for told in self._keeper.watch(question):
                    if "error" in told:
                        raise LedgerDown(str(told["error"])[:64], "The call ledger does not tell.", "")
                    self._hear(told)
                    pause = RETRY
            except LedgerDown as down:
                self.rows = None
                problem = {"up": False, "error": down.error, "problem": down.problem, "remedy": down.remedy}
                self._say_ledger(problem)
            gevent.sleep(pause)
            pause = min(2 * pause, RETRY_CAP)

    def _hear(self, told: Mapping[str, Any]) -> None:
        ledger = told.get("ledger")
        if "live" in told:
            self.rows = self._rows(told["live"])
            self._say_ledger(ledger)
            for stream in self._streams:
                stream.begin_anew()
            return
        if self.rows is None:
            raise LedgerDown("ledger_not_understood", "The call ledger began in the middle.", "")
        changed, ended = self._rows(told.get("changed")), self._rows(told.get("ended"))
        self.rows.update(changed)
        for call in ended:
            self.rows.pop(call, None)
        for stream in self._streams:
            stream.take(changed, ended)
        self._say_ledger(ledger)

    def _rows(self, rows: Any) -> dict[str, str]:
        return {
            row["call_id"]: _compact(in_list(self._viewer, row))
            for row in (rows if isinstance(rows, list) else ())
            if may_see(self._viewer, row) and isinstance(row.get("call_id"), str)
        }

    def _say_ledger(self, ledger: Any) -> None:
        text = _compact(ledger if isinstance(ledger, dict) else {"up": True})
        if text != self.ledger:
            self.ledger = text
            for stream in self._streams:
                stream.wake()


class Stream:
    """One page's events: the body of its answer (PEP 3333), which gunicorn closes whatever happens."""

    def __init__(self, feed: Feed, until: float, sock: Any, closed: Callable[[Stream], None]) -> None:
        self.feed = feed
        self._until = until
        self._sock = sock
        self._closed = closed
        self._ended = False
        self._news = Event()
        self._news.set()
        self._anew = True
        self._changed: dict[str, str] = {}
        self._gone: dict[str, str] = {}
        self._pieces: deque[bytes] = deque([f"retry: {RECONNECT}\n\n".encode()])
        self._stall: gevent.Greenlet[..., None] | None = None

    # -- what the feed does -------------------------------------------------------------------------------

    def take(self, changed: Mapping[str, str], ended: Mapping[str, str]) -> None:
        """What is not sent yet, and has changed again, is sent once."""
        if not (changed or ended):
            return
        if not self._anew:
            for call, row in changed.items():
                self._gone.pop(call, None)
                self._changed[call] = row
            for call, row in ended.items():
                self._changed.pop(call, None)
                self._gone[call] = row
            if len(self._changed) + len(self._gone) > MAX_PENDING:
                self.begin_anew()
        self._news.set()

    def begin_anew(self) -> None:
        """All live calls next, and nothing of before."""
        self._anew = True
        self._changed, self._gone = {}, {}
        self._news.set()

    def wake(self) -> None:
        """There is something to tell, if only of the ledger."""
        self._news.set()

    def end(self) -> None:
        """No more; the browser comes again."""
        self._ended = True
        self._news.set()

    @property
    def pending(self) -> int:
        """Calls whose change the browser has not been sent."""
        return len(self._changed) + len(self._gone)

    # -- what gunicorn does -------------------------------------------------------------------------------

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> bytes:
        """The next piece, when there is one."""
        self._taken()
        while not self._pieces:
            left = self._until - time.time()
            if self._ended or left <= 0:
                raise StopIteration
            if self._news.wait(min(HEARTBEAT, left)):
                if self._ended:
                    raise StopIteration
                self._news.clear()
                text = self._message()
            else:
                text = ": here\n\n"
            data = text.encode()
            self._pieces.extend(data[at : at + PIECE] for at in range(0, len(data), PIECE))
        if self._ended:
            raise StopIteration
        if self._sock is not None:
            self._stall = gevent.spawn_later(STALL, self._cut)
        return self._pieces.popleft()

    def close(self) -> None:
        """The browser is gone, or the stream is over."""
        self._taken()
        self._ended = True
        self._closed(self)

    # -----------------------------------------------------------------------------------------------------

    def _message(self) -> str:
        head = f'"ledger":{self.feed.ledger},"now":{time.time():.3f}'
        if self._anew and self.feed.rows is not None:
            self._anew = False
            return f'event: live\ndata: {{{head},"live":[{",".join(self.feed.rows.values())}]}}\n\n'
        changed, gone = self._changed, self._gone
        self._changed, self._gone = {}, {}
        rows = f'"changed":[{",".join(changed.values())}],"ended":[{",".join(gone.values())}]'
        return f"event: change\ndata: {{{head},{rows}}}\n\n"

    def _taken(self) -> None:
        if self._stall is not None:
            self._stall.kill(block=False)
            self._stall = None

    def _cut(self) -> None:
        """The browser takes nothing: let gunicorn, which waits for it, find the connection's end."""
        log.info("page_stalled", seconds=STALL)
        try:
            with self._sock.dup() as same:  # gevent would fail the wait with EBADF on its own socket
                same.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("page_was_gone", error=str(error))


def _compact(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"))  # ASCII, and so on one line


def _come_again(problem: str, seconds: int) -> Refusal:
    return Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "no_stream",
        problem,
        "The page comes again by itself.",
        (("Retry-After", str(seconds)),),
    )
