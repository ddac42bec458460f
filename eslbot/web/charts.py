"""The charts: ``/api/charts``, what the calls of a day or of a week came to."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flask import request

from eslbot.ledger.summary import INTERVAL
from eslbot.web.endpoints import Endpoints, View
from eslbot.web.ledger_access import ledger_errors, require_ledger
from eslbot.web.schemas import ChartsQuery, query

#: Seconds of a chart, and of one point of it.
SPANS = {"24h": (86400, INTERVAL), "7d": (7 * 86400, 4 * INTERVAL)}


class Charts(Endpoints):
    """``/api/charts``."""

    def views(self) -> Mapping[str, View]:
        """What answers GET."""
        return {"/charts": self._charts}

    def _charts(self) -> dict[str, Any]:
        viewer, ledger = self._access.viewer(request), require_ledger(self._services)
        values = query(request, ChartsQuery())
        workspaces, workspace = viewer.workspaces, values["workspace"]
        if workspace is not None:
            one = frozenset([self._services.workspace_ids.get(workspace, workspace.lower())])
            # Another tenant's has no calls for this viewer, like one that never was.
            workspaces = one if workspaces is None else one & workspaces
        seconds, step = SPANS[values["span"]]
        now = time.time()
        end = (int(now // step) + 1) * step
        with ledger_errors():
            chart = ledger.chart(end - seconds, end, step, workspaces)
        return {"begin": end - seconds, "end": end, "step": step, "now": now, **chart}
