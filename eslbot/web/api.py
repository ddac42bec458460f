"""The call page's questions, answered within the viewer's rights: ``/api/…``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
from flask import Blueprint, Response, request

import eslbot
from eslbot.ledger.database import LedgerDown
from eslbot.ledger.reader import LedgerBusy
from eslbot.ledger.sentences import ending, quality
from eslbot.outcome import Fault, Outcome
from eslbot.recovery import state as recovery
from eslbot.web.asking import answering, ledger_of
from eslbot.web.refusal import Refusal, bad_request
from eslbot.web.schemas import Fields, query
from eslbot.web.sessions import Access, Viewer
from eslbot.web.showing import may_see, shown
from eslbot.web.site import Site

log = structlog.get_logger()

_CALL_ID = re.compile(r"[0-9A-Za-z-]{1,64}")


class Api:
    """The questions of one site, of viewers that ``access`` knows."""

    def __init__(self, site: Site, access: Access) -> None:
        self._site = site
        self._access = access
        self._names = {workspace.id: workspace.name for workspace in site.config.workspaces.values()}

    def blueprint(self) -> Blueprint:
        """The places, to be registered at ``/api``."""
        blueprint = Blueprint("api", __name__)
        places: Mapping[str, Callable[..., Response | dict[str, Any]]] = {
            "/session": self._session,
            "/health": self._health,
            "/switch": self._switch,
            "/live": self._live,
            "/calls/": self._call,
            "/calls/<path:call_id>": self._call,
            "/tenants": self._tenants,
        }
        for rule, view in places.items():
            blueprint.add_url_rule(rule, rule, view, methods=["GET"], provide_automatic_options=False)
        return blueprint

    def _session(self) -> dict[str, Any]:
        viewer = self._access.viewer(request)
        query(request, Fields())
        ids = self._names if viewer.workspaces is None else viewer.workspaces
        return {
            "name": viewer.name,
            "numbers": viewer.numbers,
            "recordings": viewer.recordings,
            "workspaces": sorted(self._names[id] for id in ids if id in self._names),
            "until": viewer.until,
            "version": eslbot.__version__,
            "ledger": self._site.reader is not None,
            "outcomes": list(Outcome),
            "faults": list(Fault),
        }

    def _health(self) -> dict[str, Any]:
        """How the service is, and which calls need somebody: what of it this viewer may know."""
        viewer = self._access.viewer(request)
        query(request, Fields())
        health = self._site.health()
        if health is None:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "health_not_known",
                "How the service is is not known yet.",
                "It is looked at every two seconds; where this stays, see health_round_failed in the log.",
            )
        told: dict[str, Any] = shown(viewer.numbers, health.told(viewer.workspaces))
        return {**told, "now": time.time()}

    def _live(self) -> Response:
        viewer = self._access.viewer(request)
        ledger_of(self._site)
        query(request, Fields())
        if request.method != "GET":
            raise Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED, "method", "expected GET", headers=(("Allow", "GET"),)
            )
        gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
        stream = self._site.streams.begin(viewer, gone)
        return Response(stream, content_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    def _call(self, call_id: str = "") -> dict[str, Any]:
        viewer, reader = self._access.viewer(request), ledger_of(self._site)
        query(request, Fields())
        if not _CALL_ID.fullmatch(call_id):
            raise bad_request("a call's id is 1 to 64 letters, digits and hyphens")
        with answering():
            story = reader.call(call_id, viewer.workspaces)
        if story is None or not may_see(viewer, story.call):
            # The same for a call of another tenant's as for one that never was.
            raise Refusal(HTTPStatus.NOT_FOUND, "unknown_call", "There is no such call, or not any more.")
        heard = quality(story.call["media"])
        return {
            **{
                part: shown(viewer.numbers, getattr(story, part))
                for part in ("call", "timeline", "notifications", "turns")
            },
            "ended_because": shown(viewer.numbers, ending(story.call)),
            "quality": heard.told if heard is not None else None,
        }

    def _tenants(self) -> dict[str, Any]:
        viewer, reader = self._access.viewer(request), ledger_of(self._site)
        query(request, Fields())
        with answering():
            rows = reader.tenants(viewer.workspaces)
        return {"tenants": [shown(viewer.numbers, row) for row in rows if may_see(viewer, row)]}

    def _switch(self) -> dict[str, Any]:
        """What FreeSWITCH has been through; what cannot be said is None."""
        viewer = self._access.viewer(request)
        query(request, Fields())
        return {
            "restarts": self._restarts(viewer),
            "now": time.time(),
            "flushed": self._flushed() if viewer.workspaces is None else None,  # of all tenants' calls
        }

    def _restarts(self, viewer: Viewer) -> dict[str, Any] | None:
        if self._site.reader is None:
            return None
        try:
            return self._site.reader.restarts(viewer.workspaces)
        except (LedgerDown, LedgerBusy) as error:
            log.debug("restarts_not_known", error=str(error))
            return None

    def _flushed(self) -> dict[str, Any] | None:
        """When FreeSWITCH last started without its calls, and how many that cost since the host's boot."""
        try:
            known = recovery.read(Path(self._site.config.freeswitch.recovery_file))
        except recovery.RecoveryFileError as error:
            log.debug("recovery_file_unreadable", error=str(error))
            return None
        if known.last_flush is None:
            return None
        return {"at": known.last_flush, "calls": known.dropped}
