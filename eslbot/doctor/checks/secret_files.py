"""Files that hold secrets or callers' numbers: nobody else may read them, and no core file may be left."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from eslbot.config.former_tenants import directory_of
from eslbot.doctor.findings import Finding, ok, unknown, warning
from eslbot.doctor.host import Process, readable_by_all
from eslbot.doctor.site import Site
from eslbot.freeswitch.password import VARS

#: FreeSWITCH writes its whole configuration there at each start and ``reloadxml`` (``switch_xml.c``).
FSXML = "freeswitch.xml.fsxml"
_PASSWORD = "who has the event socket's password can listen to every call, and end it"
_NUMBERS = "callers' numbers stand there"


def private(site: Site) -> Iterator[Finding]:
    """FreeSWITCH's configuration and what it makes of it; eslbot's ledger and former tenants; core files."""
    yield from _of_freeswitch(site)
    yield from _file(directory_of(site.config), "the secrets of tenants that were taken out stand there")
    if (ledger := site.config.ledger) is not None:
        yield from _file(Path(ledger.journal), _NUMBERS)
        scheme, _, path = ledger.url.reveal().partition(":///")
        if scheme == "sqlite":
            yield from _file(Path(path), _NUMBERS)
    yield from _cores(site.freeswitch, "FreeSWITCH", "freeswitch")
    yield from _cores(site.service, "eslbot", "eslbot")


def _of_freeswitch(site: Site) -> Iterator[Finding]:
    if not site.switch_is_here:
        yield unknown("FreeSWITCH's files", "FreeSWITCH is another host", "run doctor there")
        return
    yield from _file(Path(site.conf_dir) / VARS, _PASSWORD)
    logs = site.switch_state.variables.get("log_dir", "") if site.switch_state is not None else ""
    if logs:
        yield from _file(Path(logs) / FSXML, _PASSWORD, f"; chmod o-rwx {logs}; FreeSWITCH's UMask=0007")
    else:
        yield unknown(FSXML, "FreeSWITCH did not say where its logs are", "mend `event-socket` first")


def _file(path: Path, why: str, besides: str = "") -> Iterator[Finding]:
    try:
        if readable_by_all(path):
            found = f"everybody may read it (mode {path.stat().st_mode & 0o777:o})"
            yield warning(str(path), found, why, f"chmod o-rwx {path}{besides}")
        else:
            yield ok(str(path), "is for its user and group")
    except FileNotFoundError:
        yield ok(str(path), "is not there")
    except OSError as failed:
        yield unknown(str(path), failed.strerror or str(failed), "run doctor as root")


def _cores(process: Process | None, name: str, unit: str) -> Iterator[Finding]:
    most = process.core_bytes if process is not None else None
    looked_at = f"core files of {name}"
    if most is None:
        yield unknown(looked_at, "its process was not found here, or may not be looked at", "run as root")
    elif most:
        yield warning(
            looked_at,
            "are written when it crashes",
            "a core file holds every token and password",
            f"systemctl edit {unit}: [Service] LimitCORE=0, then restart it",
        )
    else:
        yield ok(looked_at, "none")
