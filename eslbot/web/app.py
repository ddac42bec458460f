"""The HTTP side of a worker: whether it is well, whether it takes calls, what it has counted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest, multiprocess
from prometheus_client.registry import Collector

from eslbot.figures import FigureFiles, FiguresBusy

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
        """Every process's figures, added up (Prometheus text format)."""
        try:
            text = exposition(FigureFiles(Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])))
        except FiguresBusy as error:
            return "503 Service Unavailable", "text/plain", f"{error}\n".encode()
        return "200 OK", CONTENT_TYPE_LATEST, text


def exposition(files: FigureFiles) -> bytes:
    """All figures in Prometheus' text format. Raises FiguresBusy."""
    registry = CollectorRegistry()
    with files.reading() as names:
        found = multiprocess.MultiProcessCollector.merge(names)  # type: ignore[no-untyped-call]
    registry.register(_Found(list(found)))
    return generate_latest(registry)


class _Found(Collector):
    """What was read, as a registry takes it."""

    def __init__(self, found: list[Metric]) -> None:
        self._found = found

    def collect(self) -> Iterable[Metric]:
        """All of it."""
        return self._found


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"
