"""The call ledger: where it is written down, who carries it into the database, and the database."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

from eslbot.config.model import Ledger
from eslbot.doctor.findings import Finding, error, note, ok, unknown, warning
from eslbot.doctor.host import CannotLook, first_closed, lacks
from eslbot.doctor.site import Site

_GAP = "calls go on, but no record of them is made"
KEEPER = "keeper.sock"


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
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(site.patience)
        try:
            asking.connect(str(path))
        except PermissionError:
            return unknown(f"the keeper ({path})", "this user may not ask it", "run doctor as root")
        except OSError as failed:
            return error(
                f"the keeper ({path})",
                f"does not answer: {failed.strerror or failed}",
                "the journals wait on disk until it is there; the call page shows nothing",
                "the service starts it: systemctl status eslbot, journalctl -u eslbot | grep ledger",
            )
    return ok(f"the keeper ({path})", "answers")


def _database(site: Site, ledger: Ledger) -> Finding:
    url = ledger.url.reveal()
    if url.startswith("sqlite:"):
        return _writable(site, "the directory of ledger.url,", str(Path(url.partition(":///")[2]).parent))
    looked_at = f"ledger.url {ledger.shown}"
    from sqlalchemy import create_engine, text
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(url, connect_args={"connect_timeout": max(1, round(site.patience))})
        with engine.connect() as connection:
            read_only = connection.execute(text("SHOW transaction_read_only")).scalar() == "on"
        engine.dispose()
    except ModuleNotFoundError as missing:
        return error(looked_at, f"{missing.name} is not installed", _GAP, "pip install 'eslbot[postgres]'")
    except SQLAlchemyError as failed:
        cause = str(failed.__cause__ or failed).split("\n")[0]
        return error(
            looked_at,
            f"cannot be opened: {cause}",
            "calls go on; their records wait on disk until it is back",
            "look whether PostgreSQL runs, and whether user, password and pg_hba.conf let this host in",
        )
    if read_only:
        return warning(looked_at, "is read-only", _GAP, "name the primary, not a replica, in ledger.url")
    return ok(looked_at, "can be written")
