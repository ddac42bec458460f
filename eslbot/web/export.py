"""Exports: the calls that a search finds as a file, CSV or JSON lines, streamed, and bounded in every way.

The ledger is asked for a few hundred calls at a time, and not while the browser takes them: a slow browser
holds no connection of the database's. It does hold a thread of the server's, so there are few exports, and
each ends in time (eslbot.web.server.ANSWER_TIMEOUT, whatever the browser does).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import StrEnum

import structlog
from flask import Request, Response
from werkzeug.wsgi import ClosingIterator

from eslbot.ledger.database import LedgerDown
from eslbot.ledger.filters import Filter
from eslbot.ledger.formats import csv_lines, json_lines
from eslbot.ledger.queries import MAX_ROWS, Place
from eslbot.ledger.query_service import LedgerBusy, QueryService
from eslbot.ledger.schema import Row, calls
from eslbot.web.answer_slots import AnswerSlots
from eslbot.web.ledger_access import ledger_errors
from eslbot.web.sessions import Viewer
from eslbot.web.visibility import list_row, may_see

log = structlog.get_logger()

#: Exports at one time, and of one session.
MAX_EXPORTS, MAX_EXPORTS_PER_SESSION = 4, 1
#: Calls of one export, and seconds after which the ledger is not asked for more.
MAX_CALLS, MAX_SECONDS = 50_000, 120.0
#: The columns of a CSV: those that a list shows.
COLUMNS = tuple(list_row(True, {column.name: "" for column in calls.columns}))


class Format(StrEnum):
    """The format of a file, by the end of its name."""

    CSV = "csv"
    JSON_LINES = "jsonl"


_TYPES = {Format.CSV: "text/csv; charset=utf-8", Format.JSON_LINES: "application/jsonl; charset=utf-8"}


class Exports:
    """All exports of one page process."""

    def __init__(self) -> None:
        self._slots = AnswerSlots("export", MAX_EXPORTS, MAX_EXPORTS_PER_SESSION)

    def answer(
        self,
        kind: Format,
        viewer: Viewer,
        request: Request,
        ledger: QueryService,
        wanted: Filter,
        before: Place | None,
    ) -> Response:
        """The answer that streams the file. Raises ApiError."""
        release = self._slots.take(viewer, request)
        try:
            with ledger_errors():
                first = ledger.calls(wanted, MAX_ROWS, before)
        except BaseException:
            release()
            raise
        log.info("page_export", token_name=viewer.name, kind=kind)
        gone: Callable[[], bool] = request.environ.get("waitress.client_disconnected", lambda: False)
        body = ClosingIterator(_chunks(kind, viewer, ledger, wanted, first, gone), release)
        name = file_name(wanted, kind, time.time())
        disposition = f'attachment; filename="{name}"'
        return Response(body, content_type=_TYPES[kind], headers={"Content-Disposition": disposition})


def file_name(wanted: Filter, kind: Format, now: float) -> str:
    """With the range of time, in UTC: ``eslbot-calls-20261121T0000Z-20261128T1030Z.csv``."""
    since = "beginning" if wanted.since is None else _stamp(wanted.since)
    return f"eslbot-calls-{since}-{_stamp(min(wanted.until or now, now))}.{kind}"


def _stamp(at: float) -> str:
    return re.sub(r"[-:]", "", datetime.fromtimestamp(at, UTC).isoformat(timespec="minutes")[:16]) + "Z"


def _chunks(
    kind: Format,
    viewer: Viewer,
    ledger: QueryService,
    wanted: Filter,
    rows: list[Row],
    gone: Callable[[], bool],
) -> Iterator[bytes]:
    """The file's chunks; ``rows`` are the first calls."""
    deadline = time.monotonic() + MAX_SECONDS
    left = MAX_CALLS
    heading = True
    while not gone():
        shown = [list_row(viewer.numbers, row) for row in rows if may_see(viewer, row)]
        yield _text(kind, shown, heading)
        heading = False
        if len(rows) < MAX_ROWS:
            return
        left -= len(rows)
        before = Place.of(rows[-1])
        if left <= 0 or time.monotonic() >= deadline:
            bound = f"{MAX_CALLS} calls" if left <= 0 else f"{MAX_SECONDS:g} s"
            yield _incomplete(kind, f"an export has at most {bound}", before)
            return
        try:
            rows = ledger.calls(wanted, MAX_ROWS, before)
        except (LedgerDown, LedgerBusy) as error:
            log.warning("page_export_broken", error=str(error))
            yield _incomplete(kind, "the ledger does not answer", before)
            return


def _text(kind: Format, rows: list[Row], heading: bool) -> bytes:
    if kind is Format.CSV:
        return csv_lines(rows, COLUMNS, heading=heading).encode()
    return json_lines(rows).encode()


def _incomplete(kind: Format, why: str, before: Place) -> bytes:
    """The last line of a file that is not complete: why, and how to get the rest."""
    if kind is Format.JSON_LINES:
        return json_lines([{"not_whole": why, "before": before.text}]).encode()
    text = f"NOT WHOLE: {why}; go on with before={before.text}"
    return csv_lines([{COLUMNS[0]: text}], COLUMNS[:1]).encode()
