"""The search: ``/api/calls``, and the calls found as a file, ``/api/calls.csv`` and ``/api/calls.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import Response, request

from eslbot.ledger.filters import Filter
from eslbot.ledger.queries import Place
from eslbot.web.endpoints import Endpoints, View
from eslbot.web.export import Exports, Format
from eslbot.web.ledger_access import ledger_errors, require_ledger
from eslbot.web.schemas import CallsQuery, ExportQuery, query
from eslbot.web.services import PageServices
from eslbot.web.sessions import Access, Viewer
from eslbot.web.visibility import list_row, may_see


class Search(Endpoints):
    """``/api/calls``, and its files."""

    def __init__(self, services: PageServices, access: Access) -> None:
        super().__init__(services, access)
        self._exports = Exports()

    def views(self) -> Mapping[str, View]:
        """What answers GET."""
        files: dict[str, View] = {f"/calls.{kind}": partial(self._export, kind) for kind in Format}
        return {"/calls": self._calls, **files}

    def _calls(self) -> dict[str, Any]:
        viewer, ledger = self._access.viewer(request), require_ledger(self._services)
        values = query(request, CallsQuery())
        limit, before = values.pop("limit"), values.pop("before")
        with ledger_errors():
            rows = ledger.calls(self._filter(viewer, values), limit, before)
        mine = [row for row in rows if may_see(viewer, row)]
        return {
            "calls": [list_row(viewer.numbers, row) for row in mine],
            "next": Place.of(mine[-1]).text if mine and len(rows) == limit else None,
        }

    def _export(self, kind: Format) -> Response:
        viewer, ledger = self._access.viewer(request), require_ledger(self._services)
        values = query(request, ExportQuery())
        before = values.pop("before")
        return self._exports.answer(kind, viewer, request, ledger, self._filter(viewer, values), before)

    def _filter(self, viewer: Viewer, values: dict[str, Any]) -> Filter:
        """A tenant is looked for by id where its name is configured: the id has an index."""
        workspace = values.get("workspace")
        if workspace is not None:
            values = {**values, "workspace": self._services.workspace_ids.get(workspace, workspace)}
        return Filter(**values, workspaces=viewer.workspaces, numbers=viewer.numbers)
