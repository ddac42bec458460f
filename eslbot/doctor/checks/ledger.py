"""The call ledger: where it is written down, who carries it into the database, and the database."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from eslbot.config.advice import INSTALL_DRIVER, missing_driver
from eslbot.config.model import Ledger
from eslbot.doctor.findings import Finding, Severity, error, note, ok, unknown, warning
from eslbot.doctor.host import CannotLook, first_closed, lacks
from eslbot.doctor.site import Site

_GAP = "calls go on, but no record of them is made"
KEEPER = "keeper.sock"
#: Of an answer of the keeper's.
MAX_LINE_BYTES = 1024 * 1024


def recording(site: Site) -> Iterator[Finding]:
    """Journal, keeper, database."""
    ledger = site.config.ledger
    if ledger is None:
        yield note("[ledger]", "no table", "calls are not recorded", "add a [ledger] table")
        return
    yield _writable(site, "ledger.journal", ledger.journal)
    yield _keeper(site, ledger)
    yield _database(site, ledger)


def _writable(site: Site, key: str, path: str) -> Finding:
    looked_at, user = f"{key} {path}", site.user.name
    try:
        closed = first_closed(site.user, path)
        missing = "" if closed else lacks(site.user, path, "drwx")
    except CannotLook as cannot:
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


def _keeper(site: Site, ledger: Ledger) -> Finding:
    path = Path(ledger.journal) / KEEPER
    looked_at = f"the keeper ({path})"
    try:
        health = _health(path, site.patience)
    except PermissionError:
        return unknown(looked_at, "this user may not ask it", "run doctor as root")
    except (OSError, ValueError) as failed:
        return error(
            looked_at,
            f"does not answer: {(isinstance(failed, OSError) and failed.strerror) or failed}",
            "the journals wait on disk until it is there; the call page shows nothing",
            f"the service starts it: systemctl status eslbot; what it says of the ledger: {site.log}",
        )
    backlog = f"{health.get('backlog', '?')} bytes wait in the journals"
    if health.get("up") is True:
        return ok(looked_at, f"writes; {backlog}")
    return error(
        looked_at,
        f"cannot write to the database; {backlog}",
        "calls go on; their records wait on disk until it can",
        f"why: {site.log}; mend what the next line says of ledger.url",
    )


def _health(path: Path, patience: float) -> dict[str, Any]:
    """The first line that a watcher gets. Raises OSError, ValueError where it is no such line."""
    deadline = time.monotonic() + patience
    received = b""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(patience)
        asking.connect(str(path))
        asking.sendall(b'{"ask":"watch"}\n')
        while b"\n" not in received:
            asking.settimeout(max(0.001, deadline - time.monotonic()))
            data = asking.recv(65536)
            received += data
            if not data or len(received) > MAX_LINE_BYTES:
                raise ValueError("it sends no line")
    document = json.loads(received.partition(b"\n")[0])
    health = document.get("ledger") if isinstance(document, dict) else None
    if not isinstance(health, dict):
        raise ValueError("it does not tell how it is")
    return health


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
        missing = lacks(site.user, str(path), "rw") if path.exists() else ""
    except OSError as failed:
        return error(f"ledger.url {path}", str(failed), _GAP, f"look at the file system of {path}")
    if missing:
        user = site.user.name
        return error(f"ledger.url {path}", f"{user} may not read and write it", _GAP, f"chown {user} {path}*")
    return found
