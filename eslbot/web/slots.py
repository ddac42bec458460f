"""How many long answers there may be at a time: each holds a thread of the server's until it was taken.

What bounds their time is the server's (eslbot.web.server.ANSWER and STALL).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http import HTTPStatus

from flask import Request

from eslbot.web.refusal import Refusal
from eslbot.web.sessions import Viewer


class Slots:
    """Those of one kind (``what``, like "export"): so many in all, and so many of one session."""

    def __init__(self, what: str, most: int, of_session: int) -> None:
        self._what, self._most, self._of_session = what, most, of_session
        self._lock = threading.Lock()
        self._taken: list[str] = []

    def take(self, viewer: Viewer, request: Request) -> Callable[[], None]:
        """One of them; what is returned gives it back, once. Raises Refusal."""
        session = _session(viewer, request)
        with self._lock:
            if self._taken.count(session) >= self._of_session:
                raise self._come_again(f"Another {self._what} of this session is under way.")
            if len(self._taken) >= self._most:
                raise self._come_again(f"{self._most} {self._what}s are under way.")
            self._taken.append(session)

        def give_back() -> None:
            with self._lock:
                self._taken.remove(session)

        return give_back

    def _come_again(self, problem: str) -> Refusal:
        return Refusal(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"too_many_{self._what}s",
            problem,
            "Try again when it is over.",
            (("Retry-After", "10"),),
        )


def _session(viewer: Viewer, request: Request) -> str:
    """A program with the bare token is one session, whatever it does."""
    return viewer.name if request.headers.get("Authorization") else f"{viewer.name} {viewer.until}"
