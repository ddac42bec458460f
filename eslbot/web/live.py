"""Live calls as server-sent events (WHATWG HTML, 9.2), from the projection in this process.

A stream asks the projection what has changed since it asked last. So a slow browser gets fewer events, each
with a call's last state only, and costs no memory of its own; the server closes one that reads nothing at
all. Each stream has a thread of the server's, so their number is bounded.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

from werkzeug.wsgi import ClosingIterator

from eslbot.ledger.projection import LiveCall, Projection, Update
from eslbot.web.errors import ApiError, unavailable
from eslbot.web.sessions import Viewer
from eslbot.web.visibility import list_row, may_see

#: EventStreams at one time.
MAX_STREAMS = 32
#: Seconds of silence before a comment is sent: by it page and process notice that the other is gone.
HEARTBEAT_INTERVAL = 5.0
#: Seconds between two events of a stream, at least; and between two checks whether its browser is still
#: there.
EVENT_INTERVAL, POLL_INTERVAL = 0.4, 1.0
#: Bytes that are handed to the server at one time.
CHUNK_SIZE = 32 * 1024
#: Milliseconds until a browser reconnects.
RECONNECT_DELAY_MS = 1000


class EventStreams:
    """All streams of this process."""

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._free = threading.BoundedSemaphore(MAX_STREAMS)
        self._lock = threading.Lock()
        #: How many are open.
        self.count = 0

    def open(self, viewer: Viewer, gone: Callable[[], bool]) -> ClosingIterator:
        """A stream, until the browser is ``gone`` or the session ends; it must be closed. Raises ApiError."""
        if self._projection.closed:
            raise _try_later("the page's process is about to end", 1)
        if not self._free.acquire(blocking=False):
            raise _try_later(f"{MAX_STREAMS} pages are open already", 10)
        with self._lock:
            self.count += 1
        held = ExitStack()  # which closes once, however often a server closes the answer
        held.callback(self._release)
        return ClosingIterator(self._chunks(viewer, gone), held.close)

    def _release(self) -> None:
        with self._lock:
            self.count -= 1
        self._free.release()

    def _chunks(self, viewer: Viewer, gone: Callable[[], bool]) -> Iterator[bytes]:
        yield f"retry: {RECONNECT_DELAY_MS}\n\n".encode()
        version: int | None = None
        sent_at = time.monotonic()
        while not (gone() or self._projection.closed or time.time() >= viewer.until):
            if version is None or self._projection.wait(version, POLL_INTERVAL):
                update = self._projection.since(version)
                version = update.version
                data = _message(viewer, update).encode()
            elif time.monotonic() - sent_at >= HEARTBEAT_INTERVAL:
                data = b": here\n\n"
            else:
                continue
            sent_at = time.monotonic()
            yield from (data[at : at + CHUNK_SIZE] for at in range(0, len(data), CHUNK_SIZE))
            time.sleep(EVENT_INTERVAL)


def _message(viewer: Viewer, update: Update) -> str:
    health = _compact({"up": update.health.up, "backlog": update.health.backlog})
    head = f'"ledger":{health},"now":{time.time():.3f}'
    changed = _rows(viewer, update.changed)
    if update.anew:
        return f'event: live\ndata: {{{head},"live":[{changed}]}}\n\n'
    ended = _rows(viewer, update.ended)
    return f'event: change\ndata: {{{head},"changed":[{changed}],"ended":[{ended}]}}\n\n'


def _rows(viewer: Viewer, calls: Iterable[LiveCall]) -> str:
    return ",".join(_row(call, viewer.numbers) for call in calls if may_see(viewer, call.row))


def _row(call: LiveCall, numbers: bool) -> str:
    if numbers not in call.texts:
        call.texts[numbers] = _compact(list_row(numbers, call.row))
    return call.texts[numbers]


def _compact(document: object) -> str:
    return json.dumps(document, separators=(",", ":"))  # ASCII, and so on one line


def _try_later(problem: str, seconds: int) -> ApiError:
    headers = (("Retry-After", str(seconds)),)
    return unavailable("no_stream", problem, "The page comes again by itself.", headers)
