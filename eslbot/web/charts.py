"""What the charts show: ``/api/charts``, the calls of a day or of a week in figures."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, request

from eslbot.ledger.summary import QUARTER
from eslbot.web.asking import answering, ledger_of
from eslbot.web.schemas import ChartsQuery, query
from eslbot.web.sessions import Access
from eslbot.web.site import Site

#: Seconds that a chart is about, and those of one point of it.
SPANS = {"24h": (86400, QUARTER), "7d": (7 * 86400, 4 * QUARTER)}


class Charts:
    """Of one site, for viewers that ``access`` knows."""

    def __init__(self, site: Site, access: Access) -> None:
        self._site = site
        self._access = access
        self._ids = {workspace.name: workspace.id for workspace in site.config.workspaces.values()}

    def blueprint(self) -> Blueprint:
        """The place, to be registered at ``/api``."""
        blueprint = Blueprint("charts", __name__)
        blueprint.add_url_rule("/charts", "charts", self._charts, provide_automatic_options=False)
        return blueprint

    def _charts(self) -> dict[str, Any]:
        viewer, reader = self._access.viewer(request), ledger_of(self._site)
        values = query(request, ChartsQuery())
        workspaces, workspace = viewer.workspaces, values["workspace"]
        if workspace is not None:
            named = self._ids.get(workspace, workspace.lower())
            # Another tenant's has nothing to show, as one that never was.
            workspaces = frozenset([named]) & (frozenset([named]) if workspaces is None else workspaces)
        seconds, step = SPANS[values["span"]]
        now = time.time()
        end = (int(now // step) + 1) * step
        with answering():
            told = reader.chart(end - seconds, end, step, workspaces)
        return {"begin": end - seconds, "end": end, "step": step, "now": now, **told}
