"""The call ledger: where it is written down, who carries it into the database, and the database."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from eslbot.config.advice import INSTALL_DRIVER, missing_driver
from eslbot.config.model import Ledger
from eslbot.doctor.checks.service import get
from eslbot.doctor.findings import Finding, Severity, error, note, ok, unknown, warning
from eslbot.doctor.host import NotPermitted, first_closed_directory, missing_rights
from eslbot.doctor.site import Site

_GAP = "calls go on, but no record of them is made"


def recording(site: Site) -> Iterator[Finding]:
    """Journal, writer, database."""
    ledger = site.config.ledger
    if ledger is None:
        yield note("[ledger]", "no table", "calls are not recorded", "add a [ledger] table")
        return
    yield _writable(site, "ledger.journal", ledger.journal)
    yield _writer(site)
    yield _database(site, ledger)


def _writable(site: Site, key: str, path: str) -> Finding:
    looked_at, user = f"{key} {path}", site.user.name
    try:
        closed = first_closed_directory(site.user, path)
        missing = "" if closed else missing_rights(site.user, path, "drwx")
    except NotPermitted as cannot:
        return unknown(looked_at, str(cannot), "run doctor as root")
    except OSError as failed:
        return error(looked_at, str(failed), _GAP, f"look at the file system of {path}")
    if not (closed or missing):
        return ok(looked_at, f"{user} can write it")
    found = f"{user} may not read and write it"
    if closed:
        found = f"{user} may not enter {closed}"
    elif "d" in missing:
        found = "no such directory"
    return error(looked_at, found, _GAP, f"install -d -o {user} -m 0750 {path}")


def _writer(site: Site) -> Finding:
    web = site.config.web.listen.from_own_host
    looked_at = f"the ledger's writer (http://{web}/metrics)"
    try:
        status, body = get(web, "/metrics", site.patience)
        told = _figures(body) if status == 200 else {}
        up, backlog = told["eslbot_ledger_up"], told["eslbot_ledger_backlog_bytes"]
    except (OSError, http.client.HTTPException, KeyError) as failed:
        why = f"it does not tell {failed}" if isinstance(failed, KeyError) else f"no answer: {failed}"
        return error(
            looked_at,
            why,
            "the journals wait on disk until it is there; the call page shows nothing",
            f"the service starts it: systemctl status eslbot; lines page_ and ledger_ say why: {site.log}",
        )
    waits = f"{backlog:.0f} bytes wait in the journals"
    if up == 1:
        return ok(looked_at, f"writes; {waits}")
    return error(
        looked_at,
        f"cannot write to the database; {waits}",
        "calls go on; their records wait on disk until it can",
        f"the line ledger_down says why: {site.log}; mend what the next line says of ledger.url",
    )


def _figures(body: bytes) -> dict[str, float]:
    """The metrics without labels."""
    found = {}
    for line in body.decode("utf-8", "replace").splitlines():
        name, space, value = line.partition(" ")
        if space and not line.startswith("#") and "{" not in name:
            with suppress(ValueError):
                found[name] = float(value)
    return found


def _database(site: Site, ledger: Ledger) -> Finding:
    url = ledger.url.reveal()
    if url.startswith("sqlite:"):
        # Not opened: that alone would make files beside it, and make them ours.
        return _sqlite(site, Path(url.partition(":///")[2]))
    looked_at = f"ledger.url {ledger.shown}"
    if missing := missing_driver(ledger):
        return error(looked_at, missing, _GAP, INSTALL_DRIVER)
    from sqlalchemy import text

    from eslbot.ledger.database import LedgerDown, open_database, reading

    try:
        engine = open_database(ledger)
        with reading(engine) as connection:
            read_only = connection.execute(text("SHOW transaction_read_only")).scalar() == "on"
        engine.dispose()
    except LedgerDown as failed:
        return error(
            looked_at,
            f"cannot be used: {failed}",
            "calls go on; their records wait on disk until it can",
            "look whether PostgreSQL runs, and whether user, password and pg_hba.conf let this host in",
        )
    if read_only:
        return warning(looked_at, "is read-only", _GAP, "name the primary, not a replica, in ledger.url")
    return ok(looked_at, "can be written")


def _sqlite(site: Site, path: Path) -> Finding:
    found = _writable(site, "the directory of ledger.url,", str(path.parent))
    if found.severity is not Severity.OK:
        return found
    try:
        missing = missing_rights(site.user, str(path), "rw") if path.exists() else ""
    except OSError as failed:
        return error(f"ledger.url {path}", str(failed), _GAP, f"look at the file system of {path}")
    if missing:
        user = site.user.name
        return error(f"ledger.url {path}", f"{user} may not read and write it", _GAP, f"chown {user} {path}*")
    return found
