"""What a search has found, as a file: CSV, or a JSON object a line; streamed, and bounded in every way.

The ledger is asked for a few hundred calls at a time, and not while the browser takes them: a slow one holds
no connection of the database's. It holds a thread of the server's, so exports are few, and each has its time
(eslbot.web.server.ANSWER, whatever the browser does).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum

import structlog
from flask import Request, Response

from eslbot.ledger.database import LedgerDown
from eslbot.ledger.fold import Row
from eslbot.ledger.lines import csv_lines, json_lines
from eslbot.ledger.queries import MAX_ROWS, Filter, Place
from eslbot.ledger.reader import LedgerBusy, Reader
from eslbot.ledger.schema import calls
from eslbot.web.asking import answering
from eslbot.web.live import Body
from eslbot.web.sessions import Viewer
from eslbot.web.showing import in_list, may_see
from eslbot.web.slots import Slots

log = structlog.get_logger()

#: Exports at one time; and of one session.
MAX_EXPORTS, MAX_OF_SESSION = 4, 1
#: Calls of one export, and seconds that the ledger is asked for them.
MAX_CALLS, SECONDS = 50_000, 120.0
#: The columns of a CSV: what a list shows.
COLUMNS = tuple(in_list(True, {column.name: "" for column in calls.columns}))


class Kind(StrEnum):
    """Of a file: how its name ends."""

    CSV = "csv"
    JSON_LINES = "jsonl"


_TYPES = {Kind.CSV: "text/csv; charset=utf-8", Kind.JSON_LINES: "application/jsonl; charset=utf-8"}


class Exports:
    """Those of one page process."""

    def __init__(self) -> None:
        self._slots = Slots("export", MAX_EXPORTS, MAX_OF_SESSION)

    def begin(
        self,
        kind: Kind,
        viewer: Viewer,
        request: Request,
        reader: Reader,
        wanted: Filter,
        before: Place | None,
    ) -> Response:
        """The answer that streams it. Raises Refusal."""
        closed = self._slots.take(viewer, request)
        try:
            with answering():
                first = reader.calls(wanted, MAX_ROWS, before)
        except BaseException:
            closed()
            raise
        log.info("page_export", token_name=viewer.name, kind=kind)
        gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
        body = Body(_pieces(kind, viewer, reader, wanted, first, gone), closed)
        name = file_name(wanted, kind, time.time())
        disposition = f'attachment; filename="{name}"'
        return Response(body, content_type=_TYPES[kind], headers={"Content-Disposition": disposition})


def file_name(wanted: Filter, kind: Kind, now: float) -> str:
    """With the range, in UTC: ``eslbot-calls-20261121T0000Z-20261128T1030Z.csv``."""
    since = "beginning" if wanted.since is None else _moment(wanted.since)
    return f"eslbot-calls-{since}-{_moment(min(wanted.until or now, now))}.{kind}"


def _moment(at: float) -> str:
    return re.sub(r"[-:]", "", datetime.fromtimestamp(at, UTC).isoformat(timespec="minutes")[:16]) + "Z"


def _pieces(
    kind: Kind,
    viewer: Viewer,
    reader: Reader,
    wanted: Filter,
    rows: list[Row],
    gone: Callable[[], bool],
) -> Iterator[bytes]:
    """``rows`` are the first ones."""
    deadline = time.monotonic() + SECONDS
    left = MAX_CALLS
    heading = True
    while not gone():
        shown = [in_list(viewer.numbers, row) for row in rows if may_see(viewer, row)]
        yield _text(kind, shown, heading)
        heading = False
        if len(rows) < MAX_ROWS:
            return
        left -= len(rows)
        before = Place.of(rows[-1])
        if left <= 0 or time.monotonic() >= deadline:
            bound = f"{MAX_CALLS} calls" if left <= 0 else f"{SECONDS:g} s"
            yield _not_whole(kind, f"an export has at most {bound}", before)
            return
        try:
            rows = reader.calls(wanted, MAX_ROWS, before)
        except (LedgerDown, LedgerBusy) as error:
            log.warning("page_export_broken", error=str(error))
            yield _not_whole(kind, "the ledger does not answer", before)
            return


def _text(kind: Kind, rows: list[Row], heading: bool) -> bytes:
    if kind is Kind.CSV:
        return csv_lines(rows, COLUMNS, heading=heading).encode()
    return json_lines(rows).encode()


def _not_whole(kind: Kind, why: str, before: Place) -> bytes:
    """The last line of a file in which something is missing, and from where to go on."""
    if kind is Kind.JSON_LINES:
        return json_lines([{"not_whole": why, "before": before.text}]).encode()
    text = f"NOT WHOLE: {why}; go on with before={before.text}"
    return csv_lines([{COLUMNS[0]: text}], COLUMNS[:1]).encode()
