"""Recordings, for viewers who may hear them: ``/api/calls/ID/recording``, and ``…/NUMBER``, a part's audio.

A browser takes audio as slowly as it plays it, and that must not hold the server's threads:

* A request for a range, as players send it, gets at most :data:`RANGE_SIZE` bytes, as RFC 9110 (15.3.7)
  allows: the answer says which bytes it has, and the player asks for more. They are read before the first
  byte is sent, and fit into what the server lets wait for a browser, so the thread is free when the disk has
  been read.
* A request for a whole file holds a thread until it is taken, so there are few of them
  (:class:`AnswerSlots`).
* A disk that hangs holds :data:`MAX_READERS` threads, and those of whole files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from flask import Response, jsonify, request
from werkzeug.wsgi import ClosingIterator

from eslbot.recording.sealed import BadSeal
from eslbot.web.answer_slots import AnswerSlots
from eslbot.web.endpoints import Endpoints, View
from eslbot.web.errors import ApiError, unavailable
from eslbot.web.schemas import EmptyQuery, query
from eslbot.web.services import PageServices
from eslbot.web.sessions import Access, Viewer

if TYPE_CHECKING:
    from eslbot.recording.store import PartReader
    from eslbot.web.recording_access import RecordingAccess

log = structlog.get_logger()

#: Bytes of an answer to a range, some 16 s of audio: less than server.MAX_UNSENT, whatever else waits there.
RANGE_SIZE = 192 * 1024
#: Bytes that are read at a time of a whole file; such answers at one time, and of one session.
READ_SIZE = 64 * 1024
MAX_DOWNLOADS, MAX_DOWNLOADS_PER_SESSION = 3, 1
#: Answers that may read the disk at one time, and seconds that another one waits for its turn.
MAX_READERS, READER_TIMEOUT = 4, 1.0
#: Seconds in which it is logged once that a viewer plays a part, and how many of those are remembered.
PLAYED_LOG_INTERVAL, MAX_PLAYED = 600.0, 1000


class Recordings(Endpoints):
    """``/api/calls/ID/recording``."""

    def __init__(self, services: PageServices, access: Access) -> None:
        super().__init__(services, access)
        self._recordings: RecordingAccess | None = None
        if any(token.recordings for token in services.config.web.tokens):
            # It needs numpy and libsndfile, 20 MB: only where somebody may hear recordings.
            from eslbot.web.recording_access import RecordingAccess

            self._recordings = RecordingAccess(services.config)
        self._readers = threading.BoundedSemaphore(MAX_READERS)
        self._downloads = AnswerSlots("download", MAX_DOWNLOADS, MAX_DOWNLOADS_PER_SESSION)
        self._played = _PlayedLog()

    def views(self) -> Mapping[str, View]:
        """What answers GET."""
        return {
            "/calls/<call_id>/recording": self._describe,
            "/calls/<call_id>/recording/<number>": self._audio,
        }

    def _describe(self, call_id: str) -> Response:
        viewer, recordings = self._hearer()
        with self._reading():
            return _private(jsonify(recordings.describe(viewer, call_id, time.time())))

    def _audio(self, call_id: str, number: str) -> Response:
        viewer, recordings = self._hearer()
        with ExitStack() as stack:
            with self._reading():
                file = stack.enter_context(recordings.open_part(viewer, call_id, number, time.time()))
                wanted = _range(file.size)
                if request.method == "HEAD":
                    return _flac(Response(), file.size)
                self._played.note(viewer.name, call_id, int(number))
                if wanted is not None:
                    return _partial(file, *wanted)
            # The file stays open, and is closed with the answer.
            stack.callback(self._downloads.take(viewer, request))
            body = ClosingIterator(_blocks(file, call_id), stack.pop_all().close)
            return _flac(Response(body), file.size)

    def _hearer(self) -> tuple[Viewer, RecordingAccess]:
        """A viewer who may hear recordings. Raises ApiError, whatever call they ask about."""
        viewer = self._access.viewer(request)
        if not viewer.recordings or self._recordings is None:
            raise ApiError(
                HTTPStatus.FORBIDDEN,
                "no_recordings",
                "This token may not hear recordings.",
                "Its table of [web.tokens] needs recordings = true; then reload (HUP).",
            )
        query(request, EmptyQuery())
        return viewer, self._recordings

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """A turn to read the disk. Raises ApiError where too many do."""
        if not self._readers.acquire(timeout=READER_TIMEOUT):
            raise unavailable(
                "busy",
                f"{MAX_READERS} answers are reading recordings already.",
                "Try again; where this stays, see what the disk of recording.directory does.",
                (("Retry-After", "2"),),
            )
        try:
            yield
        finally:
            self._readers.release()


class _PlayedLog:
    """Logs who plays what: once for a while, not for each range."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._logged_at: dict[tuple[str, str, int], float] = {}

    def note(self, token_name: str, call_id: str, part: int) -> None:
        key, now = (token_name, call_id, part), time.monotonic()
        with self._lock:
            if now - self._logged_at.get(key, float("-inf")) < PLAYED_LOG_INTERVAL:
                return
            self._logged_at.pop(key, None)
            while len(self._logged_at) >= MAX_PLAYED:
                del self._logged_at[next(iter(self._logged_at))]
            self._logged_at[key] = now
        log.info("page_recording_played", token_name=token_name, call_id=call_id, part=part)


def _range(size: int) -> tuple[int, int] | None:
    """The first byte that the request wants, and the one behind the last; None for all. Raises ApiError.

    Several ranges, and ranges of a certain version (If-Range), are ignored.
    """
    wanted = request.range
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1 or "If-Range" in request.headers:
        return None
    begin, end = wanted.ranges[0]
    if begin < 0:  # the last so many bytes
        begin = max(0, size + begin)
    if begin >= size:
        raise ApiError(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "range",
            f"there are {size} bytes",
            headers=(("Content-Range", f"bytes */{size}"),),
        )
    return begin, min(size, begin + RANGE_SIZE, size if end is None else end)


def _partial(file: PartReader, begin: int, end: int) -> Response:
    data = file.read(end - begin, begin)
    if len(data) < end - begin:
        raise OSError("it has become shorter")
    response = _flac(Response(data, HTTPStatus.PARTIAL_CONTENT), len(data))
    response.headers["Content-Range"] = f"bytes {begin}-{begin + len(data) - 1}/{file.size}"
    return response


def _blocks(file: PartReader, call_id: str) -> Iterator[bytes]:
    """The whole file. If reading fails, the browser knows by Content-Length that something is missing."""
    for begin in range(0, file.size, READ_SIZE):
        try:
            yield file.read(READ_SIZE, begin)
        except (BadSeal, OSError) as error:
            log.warning("recording_broken_off", call_id=call_id, error=str(error))
            return


def _flac(response: Response, size: int) -> Response:
    response.headers["Content-Type"] = "audio/flac"
    response.headers["Content-Length"] = str(size)
    response.headers["Accept-Ranges"] = "bytes"
    return _private(response)


def _private(response: Response) -> Response:
    response.headers["Cache-Control"] = "private, no-store"
    return response
