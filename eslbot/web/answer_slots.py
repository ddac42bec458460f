"""Bounds the number of long answers: each has a thread of the server's until the client has taken it.

Their time is bounded by the server (eslbot.web.server.ANSWER_TIMEOUT and STALL_TIMEOUT).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from http import HTTPStatus

from flask import Request

from eslbot.web.errors import ApiError
from eslbot.web.sessions import Viewer


class AnswerSlots:
    """For answers of one kind, like "export": so many in all, and so many of one session."""

    def __init__(self, kind: str, max_answers: int, max_per_session: int) -> None:
        self._kind, self._max, self._max_per_session = kind, max_answers, max_per_session
        self._lock = threading.Lock()
        self._taken: list[str] = []

    def take(self, viewer: Viewer, request: Request) -> Callable[[], None]:
        """Take a slot; the function that is returned gives it back, once. Raises ApiError."""
        session = _session(viewer, request)
        with self._lock:
            if self._taken.count(session) >= self._max_per_session:
                raise self._try_later(f"Another {self._kind} of this session is under way.")
            if len(self._taken) >= self._max:
                raise self._try_later(f"{self._max} {self._kind}s are under way.")
            self._taken.append(session)

        def give_back() -> None:
            with self._lock:
                self._taken.remove(session)

        held = ExitStack()
        held.callback(give_back)
        return held.close

    def _try_later(self, problem: str) -> ApiError:
        headers = (("Retry-After", "10"),)
        remedy = "Try again when it is over."
        return ApiError(HTTPStatus.TOO_MANY_REQUESTS, f"too_many_{self._kind}s", problem, remedy, headers)


def _session(viewer: Viewer, request: Request) -> str:
    """A program that sends the bare token is one session, whatever it does."""
    return viewer.name if request.headers.get("Authorization") else f"{viewer.name} {viewer.until}"
