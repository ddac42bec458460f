"""The page process's Flask application: the call page, its endpoints, `/metrics`, `/healthz`, `/readyz`."""

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
from eslbot.web.errors import SECURITY, ApiError, method_not_allowed
from eslbot.web.recordings import Recordings
from eslbot.web.schemas import SignInForm, form
from eslbot.web.search import Search
from eslbot.web.services import PageServices
from eslbot.web.sessions import Access, require_same_site
from eslbot.web.static_files import StaticFiles

log = structlog.get_logger()


def create_app(services: PageServices, access: Access | None = None) -> Flask:
    """The application; ``access`` is by default that of the configuration."""
    app = Flask("eslbot.web", static_folder=None, template_folder=None)
    app.url_map.merge_slashes = False
    app.url_map.redirect_defaults = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    access = access or Access(services.config)
    for group in (Api, Search, Charts, Recordings):
        app.register_blueprint(group(services, access).blueprint(), url_prefix="/api")
    _Pages(services, access).add_to(app)
    app.before_request(_require_plain_path)
    app.register_error_handler(ApiError, _error_answer)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _internal_error)
    app.after_request(_secured)
    return app


class _Pages:
    """All that is not below ``/api``."""

    def __init__(self, services: PageServices, access: Access) -> None:
        self._services = services
        self._access = access
        self._files = StaticFiles()

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
        """200 while calls are carried as they should be; 503 also before the first round of probes."""
        health = self._services.health()
        if health is None:
            why = "no look at the service's parts is over yet, or lately"
            return jsonify(status="not known", why=why), HTTPStatus.SERVICE_UNAVAILABLE
        if health.blocking:
            parts = [state.as_json() for state in health.blocking]
            return jsonify(status="not ready", parts=parts), HTTPStatus.SERVICE_UNAVAILABLE
        return jsonify(status="ready"), HTTPStatus.OK

    def _metrics(self) -> Response:
        """The metrics of all processes together (Prometheus text format)."""
        return Response(exposition(self._services.registry), content_type=CONTENT_TYPE_LATEST)

    # -- the call page ------------------------------------------------------------------------------------

    def _page(self) -> Response:
        """The page, or the form that leads to it."""
        try:
            self._access.viewer(request)
        except ApiError as error:
            if error.status is not HTTPStatus.UNAUTHORIZED or request.headers.get("Authorization"):
                raise
            return self._files.sign_in()
        return self._files.page()

    def _static(self, name: str) -> Response:
        return self._files.static(name, request)

    def _sign_in(self) -> Response:
        self._access.require_tokens()
        require_same_site(request)
        response = _to_the_page()
        try:
            self._access.sign_in(form(request, SignInForm())["token"].strip(), request, response)
        except ApiError as error:
            if error.status is HTTPStatus.UNAUTHORIZED:
                message = "This is none of the tokens. Look at [web.tokens] in the configuration."
            elif error.status is HTTPStatus.TOO_MANY_REQUESTS:
                message = f"{error.problem} {error.remedy}"
            else:
                raise
            response = self._files.sign_in(message, error.status)
            response.headers.extend(error.headers)
        return response

    def _sign_out(self) -> Response:
        require_same_site(request)
        response = _to_the_page()
        self._access.sign_out(request, response)
        return response


def _to_the_page() -> Response:
    return Response(b"", HTTPStatus.SEE_OTHER, {"Location": "/"}, content_type="text/plain; charset=utf-8")


def _require_plain_path() -> None:
    """Flask takes `//metrics` for `/metrics`: a proxy that blocks the one may let the other pass."""
    path = unquote(request.environ.get("REQUEST_URI") or request.environ["PATH_INFO"])
    if path.startswith("//") or not path.startswith("/"):
        raise NotFound


# -- answers ------------------------------------------------------------------------------------------


def _secured(response: Response) -> Response:
    response.headers.extend(SECURITY)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _error_answer(error: ApiError) -> Response:
    if request.path.startswith("/api/"):
        response = jsonify(error.document)
    else:
        response = Response(f"{error.text}\n", content_type="text/plain; charset=utf-8")
    response.status_code = error.status
    response.headers.extend(error.headers)
    return response


def _http_error(error: HTTPException) -> Response:
    """Flask's own errors: no such path, another method."""
    status = HTTPStatus(error.code or 500)
    if isinstance(error, MethodNotAllowed):
        return _error_answer(method_not_allowed(*sorted(error.valid_methods or ())))
    if status is HTTPStatus.NOT_FOUND:
        return _error_answer(
            ApiError(status, "not_here", "not here; see / /healthz /readyz /metrics and docs/page.md")
        )
    return _error_answer(ApiError(status, "bad_request", status.phrase))


def _internal_error(error: Exception) -> Response:
    """A fault of ours, which the log has."""
    log.error("page_failed", path=request.path[:200], exc_info=error)
    return _error_answer(
        ApiError(
            HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "The page has failed.", "See the service's log."
        )
    )
