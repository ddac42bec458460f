"""Searching for calls: ``/api/calls``; and what is found as a file, ``/api/calls.csv`` and ``….jsonl``."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from eslbot.ledger.queries import Filter, Place
from eslbot.web.asking import answering, ledger_of
from eslbot.web.export import Exports, Kind
from eslbot.web.schemas import CallsQuery, ExportQuery, query
from eslbot.web.sessions import Access, Viewer
from eslbot.web.showing import in_list, may_see
from eslbot.web.site import Site


class Search:
    """Of one site, for viewers that ``access`` knows."""

    def __init__(self, site: Site, access: Access) -> None:
        self._site = site
        self._access = access
        self._ids = {workspace.name: workspace.id for workspace in site.config.workspaces.values()}
        self._exports = Exports()

    def blueprint(self) -> Blueprint:
        """The places, to be registered at ``/api``."""
        blueprint = Blueprint("search", __name__)
        blueprint.add_url_rule("/calls", "calls", self._calls, provide_automatic_options=False)
        for kind in Kind:
            blueprint.add_url_rule(
                f"/calls.{kind}", kind, self._export, defaults={"kind": kind}, provide_automatic_options=False
            )
        return blueprint

    def _calls(self) -> dict[str, Any]:
        viewer, reader = self._access.viewer(request), ledger_of(self._site)
        values = query(request, CallsQuery())
        limit, before = values.pop("limit"), values.pop("before")
        with answering():
            rows = reader.calls(self._wanted(viewer, values), limit, before)
        mine = [row for row in rows if may_see(viewer, row)]
        return {
            "calls": [in_list(viewer.numbers, row) for row in mine],
            "next": Place.of(mine[-1]).text if mine and len(rows) == limit else None,
        }

    def _export(self, kind: Kind) -> Response:
        viewer, reader = self._access.viewer(request), ledger_of(self._site)
        values = query(request, ExportQuery())
        before = values.pop("before")
        return self._exports.begin(kind, viewer, request, reader, self._wanted(viewer, values), before)

    def _wanted(self, viewer: Viewer, values: dict[str, Any]) -> Filter:
        """By a tenant's id where its name is one of the configuration's: that has an index."""
        workspace = values.get("workspace")
        if workspace is not None:
            values = {**values, "workspace": self._ids.get(workspace, workspace)}
        return Filter(**values, workspaces=viewer.workspaces, numbers=viewer.numbers)
