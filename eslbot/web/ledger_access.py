"""The ledger as the endpoints find it: there, not configured, or without an answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from eslbot.ledger.database import LedgerDown
from eslbot.ledger.query_service import LedgerBusy, QueryService
from eslbot.web.errors import unavailable
from eslbot.web.services import PageServices

log = structlog.get_logger()

NO_LEDGER = """[ledger]
# url = "sqlite:////var/lib/eslbot/calls.db"
# journal = "/var/lib/eslbot/journal"    # the service's user writes there"""


def require_ledger(services: PageServices) -> QueryService:
    """The ledger. Raises ApiError where calls are not recorded."""
    if services.ledger is None:
        raise unavailable(
            "no_ledger",
            "Calls are not recorded: the configuration has no [ledger].",
            f"Add it, and reload (HUP):\n\n{NO_LEDGER}",
        )
    return services.ledger


@contextmanager
def ledger_errors() -> Iterator[None]:
    """Raises ApiError for a ledger that does not answer."""
    try:
        yield
    except LedgerDown as error:
        log.warning("page_without_ledger", error=str(error))
        raise unavailable(
            "database_down",
            "The call ledger's database does not answer.",
            "Calls go on, and are recorded later. Look at the database of [ledger] url.",
        ) from None
    except LedgerBusy:
        raise unavailable("busy", "The call ledger is asked too much.", "Try again.") from None
