"""The call page's questions, asked of the keeper within the viewer's rights: ``/api/…``."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

import structlog

import eslbot
from eslbot import recovery
from eslbot.config.model import Config
from eslbot.outcome import Fault, Outcome, Stage
from eslbot.web.http import Answer, Refusal, Request, bad_request, json_answer
from eslbot.web.keeper_client import KeeperClient, LedgerDown
from eslbot.web.live import Feeds
from eslbot.web.showing import in_list, may_see, rights, shown
from eslbot.web.tokens import Viewer

log = structlog.get_logger()

#: Calls of one answer.
LIMIT, MAX_LIMIT = 50, 200
#: Characters of a value one searches for.
MAX_VALUE = 128

_CALL_ID = re.compile(r"[0-9A-Za-z-]{1,64}")

NO_LEDGER = """[ledger]
# url = "sqlite:////var/lib/eslbot/calls.db"
# journal = "/var/lib/eslbot/journal"    # the service's user writes there"""


class Api:
    """``keeper`` and ``feeds`` are None where the configuration has no ledger."""

    def __init__(self, config: Config, keeper: KeeperClient | None, feeds: Feeds | None) -> None:
        self._recovery_file = Path(config.freeswitch.recovery_file)
        self._names = {workspace.id: workspace.name for workspace in config.workspaces.values()}
        self._keeper = keeper
        self._feeds = feeds

    def answer(self, request: Request, viewer: Viewer) -> Answer:
        """One question. Raises Refusal."""
        place = request.path.removeprefix("/api/")
        if place == "session":
            return json_answer(self._session(viewer))
        if place == "switch":
            return json_answer(self._switch(request, viewer))
        if self._keeper is None or self._feeds is None:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "no_ledger",
                "Calls are not recorded: the configuration has no [ledger].",
                f"Add it, and reload (HUP):\n\n{NO_LEDGER}",
            )
        try:
            if place == "live":
                return self._live(self._feeds, request, viewer)
            if place == "calls":
                return json_answer(self._calls(self._keeper, request, viewer))
            if place == "tenants":
                return json_answer(self._tenants(self._keeper, request, viewer))
            if place.startswith("calls/"):
                return json_answer(self._call(self._keeper, request, viewer))
        except LedgerDown as down:
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, down.error, down.problem, down.remedy) from None
        raise Refusal(HTTPStatus.NOT_FOUND, "not_here", "there is no such question", "see docs/page.md")

    def _session(self, viewer: Viewer) -> dict[str, Any]:
        ids = self._names if viewer.workspaces is None else viewer.workspaces
        return {
            "name": viewer.name,
            "numbers": viewer.numbers,
            "workspaces": sorted(self._names[id] for id in ids if id in self._names),
            "until": viewer.until,
            "version": eslbot.__version__,
            "ledger": self._keeper is not None,
            "outcomes": list(Outcome),
            "faults": list(Fault),
        }

    def _live(self, feeds: Feeds, request: Request, viewer: Viewer) -> Answer:
        if request.method != "GET":
            raise Refusal(HTTPStatus.METHOD_NOT_ALLOWED, "method", "GET", headers=(("Allow", "GET"),))
        _fields_of(request, {})
        return feeds.open(viewer, request.environ.get("gunicorn.socket"))

    def _calls(self, keeper: KeeperClient, request: Request, viewer: Viewer) -> dict[str, Any]:
        values = _fields_of(request, {**_FILTER, "limit": _limit, "before": _seconds})
        question: dict[str, Any] = {"ask": "calls", "limit": values.pop("limit", LIMIT), **rights(viewer)}
        if "before" in values:
            question["before"] = values.pop("before")
        calls = _told(keeper.ask({**question, "filter": values})).get("calls")
        rows = calls if isinstance(calls, list) else []
        return {"calls": [in_list(viewer, row) for row in rows if may_see(viewer, row)]}

    def _call(self, keeper: KeeperClient, request: Request, viewer: Viewer) -> dict[str, Any]:
        _fields_of(request, {})
        call_id = request.path.removeprefix("/api/calls/")
        if not _CALL_ID.fullmatch(call_id):
            raise bad_request("a call's id is 1 to 64 letters, digits and hyphens")
        told = _told(keeper.ask({"ask": "call", "id": call_id, **rights(viewer)}))
        if not may_see(viewer, told.get("call")):
            raise _unknown_call()
        return {part: shown(viewer, told.get(part)) for part in ("call", "timeline", "notifications")}

    def _tenants(self, keeper: KeeperClient, request: Request, viewer: Viewer) -> dict[str, Any]:
        _fields_of(request, {})
        tenants = _told(keeper.ask({"ask": "tenants", **rights(viewer)})).get("tenants")
        rows = tenants if isinstance(tenants, list) else []
        return {"tenants": [shown(viewer, row) for row in rows if may_see(viewer, row)]}

    def _switch(self, request: Request, viewer: Viewer) -> dict[str, Any]:
        """What FreeSWITCH has been through; what cannot be said is None."""
        _fields_of(request, {})
        restarts = None
        if self._keeper is not None:
            try:
                restarts = self._keeper.ask({"ask": "restarts", **rights(viewer)}).get("restarts")
            except LedgerDown as down:
                log.debug("restarts_not_known", error=down.error)
        return {
            "restarts": restarts if isinstance(restarts, dict) else None,
            "now": time.time(),
            "flushed": self._flushed() if viewer.workspaces is None else None,  # of all tenants' calls
        }

    def _flushed(self) -> dict[str, Any] | None:
        """When FreeSWITCH last started without its calls, and how many that cost since the host's boot."""
        try:
            known = recovery.read(self._recovery_file)
        except recovery.RecoveryFileError as error:
            log.debug("recovery_file_unreadable", error=str(error))
            return None
        if known.last_flush is None:
            return None
        return {"at": known.last_flush, "calls": known.dropped}


def _told(answer: dict[str, Any]) -> dict[str, Any]:
    """The keeper's answer, unless it is none."""
    match answer.get("error"):
        case None:
            return answer
        case "unknown_call":
            raise _unknown_call()
        case "database_down":
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "database_down",
                "The call ledger's database does not answer.",
                "Calls go on, and are recorded later. Look at the database of [ledger] url.",
            )
        case "bad_question" if isinstance(answer.get("detail"), str):
            raise bad_request(answer["detail"][:200])
        case "busy":
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, "busy", "The call ledger is asked too much.", "Try again."
            )
        case error:
            raise Refusal(
                HTTPStatus.BAD_GATEWAY,
                "ledger_not_understood",
                f"The call ledger answered {str(error)[:64]!r}.",
                "Restart the service, so that both are of one version.",
            )


def _unknown_call() -> Refusal:
    """The same for a call of another tenant's as for one that never was."""
    return Refusal(HTTPStatus.NOT_FOUND, "unknown_call", "There is no such call, or not any more.")


# -- what a question may hold -----------------------------------------------------------------------------

Reader = Callable[[str], Any]


def _fields_of(request: Request, readers: Mapping[str, Reader]) -> dict[str, Any]:
    """The query, each value read; an empty one is as none. Raises Refusal naming the field."""
    values = {}
    for name, text in request.query().items():
        reader = readers.get(name)
        if reader is None:
            known = ", ".join(sorted(readers)) or "none"
            raise bad_request(f"unknown field {name[:64]!r}; known: {known}")
        if not text:
            continue
        try:
            values[name] = reader(text)
        except ValueError as error:
            raise bad_request(f"{name}: {error}") from None
    return values


def _text(text: str) -> str:
    if len(text) > MAX_VALUE or not text.isprintable():
        raise ValueError(f"expected at most {MAX_VALUE} printable characters")
    return text.strip()


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("expected true or false")
    return text == "true"


def _seconds(text: str) -> float:
    try:
        seconds = float(text) if len(text) <= 32 else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < 1e11:
        raise ValueError("expected epoch seconds")
    return seconds


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_LIMIT):
        raise ValueError(f"expected a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _one_of(*words: str) -> Reader:
    def read(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected one of {', '.join(words)}")
        return text

    return read


_FILTER: Mapping[str, Reader] = {
    **dict.fromkeys(("workspace", "did", "crt", "caller", "text"), _text),
    "outcome": _one_of(*Outcome),
    "fault": _one_of(*Fault),
    "stage": _one_of(*Stage, "refused"),
    **dict.fromkeys(("live", "handed_off"), _flag),
    **dict.fromkeys(("since", "until"), _seconds),
}
