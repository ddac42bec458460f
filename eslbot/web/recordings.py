"""Recordings for viewers who may hear them: ``/api/calls/ID/recording``, and ``…/NUMBER``, a part's sound.

A browser takes sound as slowly as it plays it, and none of that may hold a thread of the server's:

* Who asks for a range, as players do, gets at most :data:`PIECE` of it, which RFC 9110 (15.3.7) allows: the
  answer says which bytes it has, and the player asks on. A piece is read before its first byte is sent, and
  fits into what the server lets wait for a browser, so its thread is free as soon as the disk has been read.
* Who asks for a whole file holds a thread while they take it, so there are few of those (:class:`Slots`).
* A disk that hangs holds :data:`MOST_READING` threads, and those of whole files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import structlog
from flask import Blueprint, Response, jsonify, request

from eslbot.recording.sealed import BadSeal
from eslbot.web.live import Body
from eslbot.web.refusal import Refusal
from eslbot.web.schemas import Fields, query
from eslbot.web.sessions import Access, Viewer
from eslbot.web.site import Site
from eslbot.web.slots import Slots

if TYPE_CHECKING:
    from eslbot.recording.store import Opened
    from eslbot.web.sound import Sounds

log = structlog.get_logger()

#: Bytes of an answer to a range, some 16 s of sound: less than server.WAITING, whatever else waits there.
PIECE = 192 * 1024
#: Bytes that are read at a time where the whole file is wanted; such answers at one time, and of one session.
BLOCK = 64 * 1024
MOST_WHOLE, MOST_OF_SESSION = 3, 1
#: Answers that may be reading the disk at one time, and seconds that another one waits for its turn.
MOST_READING, TURN = 4, 1.0
#: Seconds in which it is told once that somebody hears a part, and how many of those are remembered.
TELL, MOST_TOLD = 600.0, 1000


class Recordings:
    """Of one site, for viewers that ``access`` knows."""

    def __init__(self, site: Site, access: Access) -> None:
        self._access = access
        self._sounds: Sounds | None = None
        if any(token.recordings for token in site.config.web.tokens):
            # With it come numpy and libsndfile: 20 MB, where somebody may hear anything.
            from eslbot.web.sound import Sounds

            self._sounds = Sounds(site.config)
        self._reading = threading.BoundedSemaphore(MOST_READING)
        self._whole = Slots("download", MOST_WHOLE, MOST_OF_SESSION)
        self._heard = _Heard()

    def blueprint(self) -> Blueprint:
        """The places, to be registered at ``/api``."""
        blueprint = Blueprint("recordings", __name__)
        for rule, view in (
            ("/calls/<call_id>/recording", self._told),
            ("/calls/<call_id>/recording/<number>", self._sound),
        ):
            blueprint.add_url_rule(rule, rule, view, methods=["GET"], provide_automatic_options=False)
        return blueprint

    def _told(self, call_id: str) -> Response:
        viewer, sounds = self._hearer()
        query(request, Fields())
        with self._turn():
            return _private(jsonify(sounds.told(viewer, call_id, time.time())))

    def _sound(self, call_id: str, number: str) -> Response:
        viewer, sounds = self._hearer()
        query(request, Fields())
        with ExitStack() as stack:
            with self._turn():
                file = stack.enter_context(sounds.opened(viewer, call_id, number, time.time()))
                wanted = _range(file.size)
                if request.method == "HEAD":
                    return _flac(Response(), file.size)
                self._heard.tell(viewer.name, call_id, int(number))
                if wanted is not None:
                    return _piece(file, *wanted)
            # The file stays open, and is closed with the answer.
            stack.callback(self._whole.take(viewer, request))
            body = Body(_blocks(file, call_id), stack.pop_all().close)
            return _flac(Response(body), file.size)

    def _hearer(self) -> tuple[Viewer, Sounds]:
        """Who may hear recordings. Raises Refusal, whatever call they ask about."""
        viewer = self._access.viewer(request)
        if not viewer.recordings or self._sounds is None:
            raise Refusal(
                HTTPStatus.FORBIDDEN,
                "no_recordings",
                "This token may not hear recordings.",
                "Its table of [web.tokens] needs recordings = true; then reload (HUP).",
            )
        return viewer, self._sounds

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """To read the disk. Raises Refusal where too many do."""
        if not self._reading.acquire(timeout=TURN):
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "busy",
                f"{MOST_READING} answers are reading recordings already.",
                "Try again; where this stays, see what the disk of recording.directory does.",
                (("Retry-After", "2"),),
            )
        try:
            yield
        finally:
            self._reading.release()


class _Heard:
    """Who hears what, told in the log: once for a while, not for each piece."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[tuple[str, str, int], float] = {}

    def tell(self, token_name: str, call_id: str, part: int) -> None:
        key, now = (token_name, call_id, part), time.monotonic()
        with self._lock:
            if now - self._told.get(key, float("-inf")) < TELL:
                return
            self._told.pop(key, None)
            while len(self._told) >= MOST_TOLD:
                del self._told[next(iter(self._told))]
            self._told[key] = now
        log.info("page_recording_played", token_name=token_name, call_id=call_id, part=part)


def _range(size: int) -> tuple[int, int] | None:
    """Which bytes the request wants, from and to; None for all of them. Raises Refusal.

    Several ranges, and those of a version that they name (there are no versions), are not looked at.
    """
    wanted = request.range
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1 or "If-Range" in request.headers:
        return None
    begin, end = wanted.ranges[0]
    if begin < 0:  # so many at the end
        begin = max(0, size + begin)
    if begin >= size:
        raise Refusal(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            "range",
            f"there are {size} bytes",
            headers=(("Content-Range", f"bytes */{size}"),),
        )
    return begin, min(size, begin + PIECE, size if end is None else end)


def _piece(file: Opened, begin: int, end: int) -> Response:
    data = file.read(end - begin, begin)
    if len(data) < end - begin:
        raise OSError("it has become shorter")
    response = _flac(Response(data, HTTPStatus.PARTIAL_CONTENT), len(data))
    response.headers["Content-Range"] = f"bytes {begin}-{begin + len(data) - 1}/{file.size}"
    return response


def _blocks(file: Opened, call_id: str) -> Iterator[bytes]:
    """All of it. Where it breaks off, its length tells the browser that something is missing."""
    for begin in range(0, file.size, BLOCK):
        try:
            yield file.read(BLOCK, begin)
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
