"""The ledger as the page's questions find it: there, not there, or without an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import structlog

from eslbot.ledger.database import LedgerDown
from eslbot.ledger.reader import LedgerBusy, Reader
from eslbot.web.refusal import Refusal
from eslbot.web.site import Site

log = structlog.get_logger()

NO_LEDGER = """[ledger]
# url = "sqlite:////var/lib/eslbot/calls.db"
# journal = "/var/lib/eslbot/journal"    # the service's user writes there"""


def ledger_of(site: Site) -> Reader:
    """Whom to ask. Raises Refusal where nothing is recorded."""
    if site.reader is None:
        raise Refusal(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "no_ledger",
            "Calls are not recorded: the configuration has no [ledger].",
            f"Add it, and reload (HUP):\n\n{NO_LEDGER}",
        )
    return site.reader


@contextmanager
def answering() -> Iterator[None]:
    """A ledger that gives no answer is told, by a Refusal."""
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
