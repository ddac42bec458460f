"""The call page's questions, answered within the viewer's rights: ``/api/…``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog
from flask import Blueprint, Response, request

import eslbot
from eslbot import recovery
from eslbot.ledger.database import LedgerDown
from eslbot.ledger.queries import Filter
from eslbot.ledger.reader import LedgerBusy, Reader
from eslbot.ledger.sentences import ending, quality
from eslbot.outcome import Fault, Outcome
from eslbot.web.refusal import Refusal, bad_request
from eslbot.web.schemas import CallsQuery, Fields, query
from eslbot.web.sessions import Access, Viewer
from eslbot.web.showing import in_list, may_see, shown
from eslbot.web.site import Site

log = structlog.get_logger()

_CALL_ID = re.compile(r"[0-9A-Za-z-]{1,64}")

NO_LEDGER = """[ledger]
# url = "sqlite:////var/lib/eslbot/calls.db"
# journal = "/var/lib/eslbot/journal"    # the service's user writes there"""


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
            "/calls": self._calls,
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
        self._reader()
        query(request, Fields())
        if request.method != "GET":
            raise Refusal(
                HTTPStatus.METHOD_NOT_ALLOWED, "method", "expected GET", headers=(("Allow", "GET"),)
            )
        gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
        stream = self._site.streams.begin(viewer, gone)
        return Response(stream, content_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    def _calls(self) -> dict[str, Any]:
        viewer, reader = self._access.viewer(request), self._reader()
        values = query(request, CallsQuery())
        limit, before = values.pop("limit"), values.pop("before")
        with _told():
            rows = reader.calls(Filter(**values, workspaces=viewer.workspaces), limit, before)
        return {"calls": [in_list(viewer.numbers, row) for row in rows if may_see(viewer, row)]}

    def _call(self, call_id: str = "") -> dict[str, Any]:
        viewer, reader = self._access.viewer(request), self._reader()
        query(request, Fields())
        if not _CALL_ID.fullmatch(call_id):
            raise bad_request("a call's id is 1 to 64 letters, digits and hyphens")
        with _told():
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
        viewer, reader = self._access.viewer(request), self._reader()
        query(request, Fields())
        with _told():
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

    def _reader(self) -> Reader:
        if self._site.reader is None:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "no_ledger",
                "Calls are not recorded: the configuration has no [ledger].",
                f"Add it, and reload (HUP):\n\n{NO_LEDGER}",
            )
        return self._site.reader


@contextmanager
def _told() -> Iterator[None]:
    """A ledger that gives no answer is told."""
    try:
        yield
    except LedgerDown as error:
        log.warning("page_without_ledger", error=str(error))
        raise Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "database_down",
            "The call ledger's database does not answer.",
            "Calls go on, and are recorded later. Look at the database of [ledger] url.",
        ) from None
    except LedgerBusy:
        raise Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE, "busy", "The call ledger is asked too much.", "Try again."
        ) from None
