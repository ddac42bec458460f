"""The page process's Flask application: the call page, its questions, `/metrics`, `/healthz`, `/readyz`."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import unquote

import structlog
from flask import Flask, Response, jsonify, request
from prometheus_client import CONTENT_TYPE_LATEST
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from eslbot.telemetry.exposition import exposition
from eslbot.web.api import Api
from eslbot.web.charts import Charts
from eslbot.web.files import Files
from eslbot.web.recordings import Recordings
from eslbot.web.refusal import SECURITY, Refusal
from eslbot.web.schemas import SignInForm, form
from eslbot.web.search import Search
from eslbot.web.sessions import Access, ours_only
from eslbot.web.site import Site

log = structlog.get_logger()


def create_app(site: Site, access: Access | None = None) -> Flask:
    """The application of ``site``; ``access`` is by default that of its configuration."""
    app = Flask("eslbot.web", static_folder=None, template_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    access = access or Access(site.config)
    for room in (Api(site, access), Search(site, access), Charts(site, access), Recordings(site, access)):
        app.register_blueprint(room.blueprint(), url_prefix="/api")
    _Places(site, access).add_to(app)
    app.before_request(_only_one_spelling)
    app.register_error_handler(Refusal, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _failed)
    app.after_request(_secured)
    return app


class _Places:
    """What is not a question of the page's."""

    def __init__(self, site: Site, access: Access) -> None:
        self._site = site
        self._access = access
        self._files = Files()

    def add_to(self, app: Flask) -> None:
        for method, rule, view in (
            ("GET", "/healthz", self._healthz),
            ("GET", "/readyz", self._readyz),
            ("GET", "/metrics", self._metrics),
            ("GET", "/", self._page),
            ("GET", "/static/<path:name>", self._static),
            ("POST", "/sign-in", self._sign_in),
            ("POST", "/sign-out", self._sign_out),
        ):
            app.add_url_rule(rule, rule, view, methods=[method], provide_automatic_options=False)

    # -- for machines -------------------------------------------------------------------------------------

    def _healthz(self) -> Response:
        """200 as long as this process answers at all."""
        return jsonify(status="ok")

    def _readyz(self) -> tuple[Response, HTTPStatus]:
        """200 while calls are carried as they should be; 503 before the first look, too."""
        health = self._site.health()
        if health is None:
            told = {"status": "not known", "why": "no look at the service's parts is over yet, or lately"}
            return jsonify(told), HTTPStatus.SERVICE_UNAVAILABLE
        if health.in_the_way:
            parts = [state.told for state in health.in_the_way]
            return jsonify(status="not ready", parts=parts), HTTPStatus.SERVICE_UNAVAILABLE
        return jsonify(status="ready"), HTTPStatus.OK

    def _metrics(self) -> Response:
        """Every process's figures, added up (Prometheus text format)."""
        return Response(exposition(self._site.registry), content_type=CONTENT_TYPE_LATEST)

    # -- the call page ------------------------------------------------------------------------------------

    def _page(self) -> Response:
        """The page, or the form that leads to it."""
        try:
            self._access.viewer(request)
        except Refusal as refusal:
            if refusal.status is not HTTPStatus.UNAUTHORIZED or request.headers.get("Authorization"):
                raise
            return self._files.sign_in()
        return self._files.page()

    def _static(self, name: str) -> Response:
        return self._files.static(name, request)

    def _sign_in(self) -> Response:
        self._access.require_tokens()
        ours_only(request)
        response = _to_the_page()
        try:
            self._access.sign_in(form(request, SignInForm())["token"].strip(), request, response)
        except Refusal as refusal:
            if refusal.status is HTTPStatus.UNAUTHORIZED:
                message = "This is none of the tokens. Look at [web.tokens] in the configuration."
            elif refusal.status is HTTPStatus.TOO_MANY_REQUESTS:
                message = f"{refusal.problem} {refusal.remedy}"
            else:
                raise
            response = self._files.sign_in(message, refusal.status)
            response.headers.extend(refusal.headers)
        return response

    def _sign_out(self) -> Response:
        ours_only(request)
        response = _to_the_page()
        self._access.sign_out(request, response)
        return response


def _to_the_page() -> Response:
    return Response(b"", HTTPStatus.SEE_OTHER, {"Location": "/"}, content_type="text/plain; charset=utf-8")


def _only_one_spelling() -> None:
    """Flask takes `//metrics` for `/metrics`; a proxy that keeps the one away may let the other pass."""
    path = unquote(request.environ.get("REQUEST_URI") or request.environ["PATH_INFO"])
    if path.startswith("//") or not path.startswith("/"):
        raise NotFound


# -- what leaves ------------------------------------------------------------------------------------------


def _secured(response: Response) -> Response:
    response.headers.extend(SECURITY)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _refused(refusal: Refusal) -> Response:
    if request.path.startswith("/api/"):
        response = jsonify(refusal.document)
    else:
        response = Response(f"{refusal.text}\n", content_type="text/plain; charset=utf-8")
    response.status_code = refusal.status
    response.headers.extend(refusal.headers)
    return response


def _http_error(error: HTTPException) -> Response:
    """Of Flask's own: no such place, another method."""
    status = HTTPStatus(error.code or 500)
    if isinstance(error, MethodNotAllowed):
        methods = sorted(error.valid_methods or ())
        problem = f"expected {' or '.join(methods)}"
        return _refused(Refusal(status, "method", problem, headers=(("Allow", ", ".join(methods)),)))
    if status is HTTPStatus.NOT_FOUND:
        return _refused(
            Refusal(status, "not_here", "not here; see / /healthz /readyz /metrics and docs/page.md")
        )
    return _refused(Refusal(status, "bad_request", status.phrase))


def _failed(error: Exception) -> Response:
    """A fault of ours: told in the log."""
    log.error("page_failed", path=request.path[:200], exc_info=error)
    return _refused(
        Refusal(
            HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The page has failed.", "See the service's log."
        )
    )
