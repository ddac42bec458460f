"""The HTTP side of a worker: whether it is well, whether it takes calls, what it has counted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess

if TYPE_CHECKING:
    from eslbot.controller import Controller


class WebApp:
    """A WSGI application (PEP 3333); gunicorn's workers also find the controller here."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request."""
        pages = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": self._metrics}
        page = pages.get(environ.get("PATH_INFO", ""))
        if page is None:
            status, content_type, body = (
                "404 Not Found",
                "text/plain",
                b"not here; see /healthz /readyz /metrics\n",
            )
        elif environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            status, content_type, body = "405 Method Not Allowed", "text/plain", b"GET or HEAD\n"
        else:
            status, content_type, body = page()
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(len(body))),
            ("Cache-Control", "no-store"),
        ]
        start_response(status, headers)
        return [] if environ.get("REQUEST_METHOD") == "HEAD" else [body]

    def _healthz(self) -> tuple[str, str, bytes]:
        """200 as long as the worker answers at all."""
        return "200 OK", "application/json", _json({"status": "ok"})

    def _readyz(self) -> tuple[str, str, bytes]:
        """200 while new calls are taken, 503 while the worker drains."""
        draining = self.controller.draining
        status = "503 Service Unavailable" if draining else "200 OK"
        return status, "application/json", _json({"status": "draining" if draining else "ready"})

    def _metrics(self) -> tuple[str, str, bytes]:
        """Every worker's figures, added up (Prometheus text format)."""
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return "200 OK", CONTENT_TYPE_LATEST, generate_latest(registry)


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"
