"""The call page's endpoints, answered within the viewer's rights: ``/api/…``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
from flask import Response, request

import eslbot
from eslbot.ledger.database import LedgerDown
from eslbot.ledger.explanations import audio_quality, why_it_ended
from eslbot.ledger.query_service import LedgerBusy
from eslbot.outcome import Fault, Outcome
from eslbot.recovery import state as recovery
from eslbot.web.endpoints import Endpoints, View
from eslbot.web.errors import ApiError, bad_request, method_not_allowed, unavailable
from eslbot.web.ledger_access import ledger_errors, require_ledger
from eslbot.web.schemas import EmptyQuery, query
from eslbot.web.sessions import Viewer
from eslbot.web.visibility import masked_for, may_see

log = structlog.get_logger()

_CALL_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class Api(Endpoints):
    """All endpoints that take no query."""

    def views(self) -> Mapping[str, View]:
        """What answers GET."""
        return {
            "/session": self._session,
            "/health": self._health,
            "/switch": self._switch,
            "/live": self._live,
            "/calls/": self._call,
            "/calls/<path:call_id>": self._call,
            "/tenants": self._tenants,
        }

    def _session(self) -> dict[str, Any]:
        viewer = self._viewer()
        workspaces = self._services.workspace_ids.items()
        may = viewer.workspaces
        return {
            "name": viewer.name,
            "numbers": viewer.numbers,
            "recordings": viewer.recordings,
            "workspaces": sorted(name for name, id_ in workspaces if may is None or id_ in may),
            "until": viewer.until,
            "version": eslbot.__version__,
            "ledger": self._services.ledger is not None,
            "outcomes": list(Outcome),
            "faults": list(Fault),
        }

    def _health(self) -> dict[str, Any]:
        """The service's health and the calls that need somebody, as far as the viewer may know them."""
        viewer, health = self._viewer(), self._services.health()
        if health is None:
            raise unavailable(
                "health_not_known",
                "How the service is is not known yet.",
                "It is looked at every two seconds; where this stays, see health_round_failed in the log.",
            )
        return {**masked_for(viewer.numbers, health.as_json(viewer.workspaces)), "now": time.time()}

    def _live(self) -> Response:
        viewer = self._access.viewer(request)
        require_ledger(self._services)
        query(request, EmptyQuery())
        if request.method != "GET":
            raise method_not_allowed("GET")
        gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
        stream = self._services.streams.open(viewer, gone)
        return Response(stream, content_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    def _call(self, call_id: str = "") -> dict[str, Any]:
        viewer, ledger = self._access.viewer(request), require_ledger(self._services)
        query(request, EmptyQuery())
        if not _CALL_ID.fullmatch(call_id):
            raise bad_request("a call's id is 1 to 64 letters, digits and hyphens")
        with ledger_errors():
            details = ledger.call(call_id, viewer.workspaces)
        if details is None or not may_see(viewer, details.call):
            # The same for a call of another tenant as for one that never was.
            raise ApiError(HTTPStatus.NOT_FOUND, "unknown_call", "There is no such call, or not any more.")
        quality = audio_quality(details.call["media"])
        return {
            **{
                part: masked_for(viewer.numbers, getattr(details, part))
                for part in ("call", "timeline", "notifications", "turns")
            },
            "ended_because": masked_for(viewer.numbers, why_it_ended(details.call)),
            "quality": None if quality is None else asdict(quality),
        }

    def _tenants(self) -> dict[str, Any]:
        viewer, ledger = self._access.viewer(request), require_ledger(self._services)
        query(request, EmptyQuery())
        with ledger_errors():
            rows = ledger.tenants(viewer.workspaces)
        return {"tenants": [masked_for(viewer.numbers, row) for row in rows if may_see(viewer, row)]}

    def _switch(self) -> dict[str, Any]:
        """FreeSWITCH's restarts, and the calls that it lost; what cannot be said is None."""
        viewer = self._viewer()
        return {
            "restarts": self._restarts(viewer),
            "now": time.time(),
            "flushed": self._flushed() if viewer.workspaces is None else None,  # of all tenants' calls
        }

    def _viewer(self) -> Viewer:
        viewer = self._access.viewer(request)
        query(request, EmptyQuery())
        return viewer

    def _restarts(self, viewer: Viewer) -> dict[str, Any] | None:
        if self._services.ledger is None:
            return None
        try:
            return self._services.ledger.restarts(viewer.workspaces)
        except (LedgerDown, LedgerBusy) as error:
            log.debug("restarts_not_known", error=str(error))
            return None

    def _flushed(self) -> dict[str, Any] | None:
        """When FreeSWITCH last started without its calls, and how many it has lost since the host's boot."""
        try:
            known = recovery.read(Path(self._services.config.freeswitch.recovery_file))
        except recovery.RecoveryFileError as error:
            log.debug("recovery_file_unreadable", error=str(error))
            return None
        return None if known.last_flush is None else {"at": known.last_flush, "calls": known.dropped}
