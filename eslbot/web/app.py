"""The HTTP side of a worker: whether it is well and takes calls, what it has counted; the call page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent
import structlog
from prometheus_client import CONTENT_TYPE_LATEST

from eslbot import recovery
from eslbot.exposition import exposition
from eslbot.figures import FigureFiles, FiguresBusy
from eslbot.recovery import Recoveries, RecoveryFileError
from eslbot.web.api import Api
from eslbot.web.files import Files
from eslbot.web.http import Answer, Refusal, Request, json_answer, see_other, text_answer
from eslbot.web.keeper_client import KeeperClient
from eslbot.web.live import Feeds
from eslbot.web.tokens import Access

if TYPE_CHECKING:
    from eslbot.controller import Controller

log = structlog.get_logger()

#: Seconds for calls between two strokes of a long work; a sleep of 0 would not let a socket be read.
CALLS_TURN = 0.0005

_READ = ("GET", "HEAD")
_CHANGE = ("POST",)


class WebApp:
    """A WSGI application (PEP 3333); gunicorn's workers also find the controller here."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        config = controller.config
        keeper = KeeperClient(config.ledger.journal) if config.ledger is not None else None
        feeds = Feeds(keeper, lambda: self.controller.draining) if keeper is not None else None
        self._access = Access(config)
        self._api = Api(config, keeper, feeds)
        self._files = Files()
        self._places: dict[str, tuple[tuple[str, ...], Callable[[Request], Answer]]] = {
            "/healthz": (_READ, self._healthz),
            "/readyz": (_READ, self._readyz),
            "/metrics": (_READ, self._metrics),
            "/": (_READ, self._page),
            "/sign-in": (_CHANGE, self._sign_in),
            "/sign-out": (_CHANGE, self._sign_out),
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        request = Request(environ)
        try:
            answer = self._answer(request)
        except Refusal as refusal:
            answer = _refused(request, refusal)
        return answer.start(start_response, head=request.method == "HEAD")

    def _answer(self, request: Request) -> Answer:
        methods, place = self._place(request.path)
        if request.method not in methods:
            allowed = (("Allow", ", ".join(methods)),)
            raise Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED, "method", f"expected {' or '.join(methods)}", headers=allowed
            )
        return place(request)

    def _place(self, path: str) -> tuple[tuple[str, ...], Callable[[Request], Answer]]:
        if path in self._places:
            return self._places[path]
        if path.startswith("/api/"):
            return _READ, self._ask
        if path.startswith("/static/"):
            return _READ, self._files.static
        raise Refusal(HTTPStatus.NOT_FOUND, "not_here", "not here; see / /healthz /readyz /metrics")

    # -- for machines -------------------------------------------------------------------------------------

    def _healthz(self, _: Request) -> Answer:
        """200 as long as the worker answers at all."""
        return json_answer({"status": "ok"})

    def _readyz(self, _: Request) -> Answer:
        """200 while new calls are taken, 503 while the worker drains."""
        draining = self.controller.draining
        status = HTTPStatus.SERVICE_UNAVAILABLE if draining else HTTPStatus.OK
        return json_answer({"status": "draining" if draining else "ready"}, status)

    def _metrics(self, _: Request) -> Answer:
        """Every process's figures, added up (Prometheus text format)."""
        try:
            files = FigureFiles(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"]))
            text = exposition(files, lambda: gevent.sleep(CALLS_TURN), self._of_the_switch())
        except FiguresBusy as error:
            return text_answer(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        return Answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, text)

    def _of_the_switch(self) -> dict[str, float | None]:
        """What FreeSWITCH's host has counted before each of its starts; a small file on a tmpfs."""
        file = Path(self.controller.config.freeswitch.recovery_file)
        known: Recoveries | None = None
        try:
            known = recovery.read(file)
        except RecoveryFileError as error:
            log.warning("recovery_file_unreadable", error=str(error), remedy=recovery.REMEDY)
        return {
            "eslbot_switch_restarts": known.restarts if known else None,
            "eslbot_switch_flushes": known.flushes if known else None,
            "eslbot_switch_calls_dropped": known.dropped if known else None,
        }

    # -- the call page ------------------------------------------------------------------------------------

    def _page(self, request: Request) -> Answer:
        """The page, or the form that leads to it."""
        try:
            self._access.viewer(request)
        except Refusal as refusal:
            if refusal.status is not HTTPStatus.UNAUTHORIZED or request.header("Authorization"):
                raise
            return self._files.sign_in()
        return self._files.page()

    def _sign_in(self, request: Request) -> Answer:
        self._access.require_tokens()
        _ours_only(request)
        try:
            headers = self._access.sign_in(request.form().get("token", "").strip(), request)
        except Refusal as refusal:
            if refusal.status is HTTPStatus.UNAUTHORIZED:
                message = "This is none of the tokens. Look at [web.tokens] in the configuration."
            elif refusal.status is HTTPStatus.TOO_MANY_REQUESTS:
                message = f"{refusal.problem} {refusal.remedy}"
            else:
                raise
            return self._files.sign_in(message, refusal.status, refusal.headers)
        return see_other("/", headers)

    def _sign_out(self, request: Request) -> Answer:
        _ours_only(request)
        return see_other("/", self._access.sign_out(request))

    def _ask(self, request: Request) -> Answer:
        return self._api.answer(request, self._access.viewer(request))


def _ours_only(request: Request) -> None:
    """Raises Refusal for what another site's page made the browser send."""
    if not request.is_ours():
        raise Refusal(
            HTTPStatus.FORBIDDEN,
            "foreign_page",
            "another site's page sent this",
            "Behind a proxy, let it pass the Host header on.",
        )


def _refused(request: Request, refusal: Refusal) -> Answer:
    if str(request.environ.get("PATH_INFO", "")).startswith("/api/"):
        return json_answer(refusal.document, refusal.status, refusal.headers)
    text = "\n".join(part for part in (refusal.problem, refusal.remedy) if part)
    return text_answer(refusal.status, text, refusal.headers)
