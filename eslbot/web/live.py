"""Live calls as server-sent events (WHATWG HTML, 9.2), from the projection of the same process.

A stream asks the projection what has changed since it asked last. So a slow browser gets fewer events, each
call's last state once, and costs no memory of its own; the server cuts off one that reads nothing at all.
Each stream keeps a thread of the server's, so there are only so many.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus

from eslbot.ledger.projection import Entry, Health, News, Projection
from eslbot.web.refusal import Refusal
from eslbot.web.sessions import Viewer
from eslbot.web.showing import in_list, may_see

#: Streams at one time.
MAX_STREAMS = 32
#: Seconds between two signs of life, by which page and process notice that the other is gone.
HEARTBEAT = 5.0
#: Seconds between two events of a stream, at least; and between two looks whether its browser is still there.
PACE, LOOK = 0.4, 1.0
#: Bytes that are given to the server at one time.
PIECE = 32 * 1024
#: Milliseconds until a browser comes again.
RECONNECT = 1000


class Streams:
    """The streams of this process."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._free = threading.BoundedSemaphore(MAX_STREAMS)
        self._lock = threading.Lock()
        self._open = 0

    @property
    def open(self) -> int:
        """How many there are."""
        return self._open

    def begin(self, viewer: Viewer, gone: Callable[[], bool]) -> Iterator[bytes]:
        """A stream's pieces, until ``gone`` or the session's end; it must be closed. Raises Refusal."""
        if self._projection.closed:
            raise _come_again("the page's process is about to end", 1)
        if not self._free.acquire(blocking=False):
            raise _come_again(f"{MAX_STREAMS} pages are open already", 10)
        with self._lock:
            self._open += 1
        return Body(self._pieces(viewer, gone), self._closed)

    def _closed(self) -> None:
        with self._lock:
            self._open -= 1
        self._free.release()

    def _pieces(self, viewer: Viewer, gone: Callable[[], bool]) -> Iterator[bytes]:
        yield f"retry: {RECONNECT}\n\n".encode()
        version: int | None = None
        said = time.monotonic()
        while not (gone() or self._projection.closed or time.time() >= viewer.until):
            if version is None or self._projection.wait(version, LOOK):
                news = self._projection.since(version)
                version = news.version
                data = _message(viewer, news).encode()
            elif time.monotonic() - said >= HEARTBEAT:
                data = b": here\n\n"
            else:
                continue
            said = time.monotonic()
            yield from (data[at : at + PIECE] for at in range(0, len(data), PIECE))
            time.sleep(PACE)


class Body:
    """An answer's body (PEP 3333): the server closes it whatever happens, also where it has not begun."""

    def __init__(self, pieces: Iterator[bytes], closed: Callable[[], None]) -> None:
        self._pieces = pieces
        self._closed: Callable[[], None] | None = closed

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._pieces)

    def close(self) -> None:
        """It is over."""
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()


def _message(viewer: Viewer, news: News) -> str:
    head = f'"ledger":{_compact(_told(news.health))},"now":{time.time():.3f}'
    changed = _rows(viewer, news.changed)
    if news.anew:
        return f'event: live\ndata: {{{head},"live":[{changed}]}}\n\n'
    ended = _rows(viewer, news.ended)
    return f'event: change\ndata: {{{head},"changed":[{changed}],"ended":[{ended}]}}\n\n'


def _told(health: Health) -> dict[str, object]:
    return {"up": health.up, "backlog": health.backlog}


def _rows(viewer: Viewer, entries: Iterable[Entry]) -> str:
    return ",".join(_row(entry, viewer.numbers) for entry in entries if may_see(viewer, entry.row))


def _row(entry: Entry, numbers: bool) -> str:
    text = entry.texts.get(numbers)
    if text is None:
        text = entry.texts[numbers] = _compact(in_list(numbers, entry.row))
    return text


def _compact(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))  # ASCII, and so on one line


def _come_again(problem: str, seconds: int) -> Refusal:
    return Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "no_stream",
        problem,
        "The page comes again by itself.",
        (("Retry-After", str(seconds)),),
    )
