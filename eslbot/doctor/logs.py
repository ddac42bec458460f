"""Where a service's log is on this host: in systemd's journal, or a file."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from eslbot.doctor.host import Process

#: Where systemd reads units, those of the administrator first.
UNITS = (Path("/etc/systemd/system"), Path("/run/systemd/system"), Path("/usr/lib/systemd/system"))
#: There only where systemd runs.
SYSTEMD = Path("/run/systemd/system")
#: Bytes of a unit.
_MOST = 64 * 1024
_FILE = re.compile(r"^\s*Standard(?:Error|Output)\s*=\s*(?:append|file|truncate):(/\S+)\s*$", re.M)


def log_of(process: Process | None, unit: str) -> str:
    """The command that shows the log of ``process`` or, where it does not run, of its systemd unit."""
    written = process.writes_to if process is not None else None
    if written is None:
        written = _of_unit(unit)
    if written is not None and written.startswith("/dev/"):
        return f"its own standard error ({written})"
    if written is not None and written.startswith("/"):
        return f"tail -n 100 {shlex.quote(written)}"
    if SYSTEMD.is_dir():
        own = process.unit if process is not None else None
        return f"journalctl -u {(own or unit).removesuffix('.service')}"
    return "its own standard error, wherever its starter has put it"


def _of_unit(unit: str) -> str | None:
    """The file that the unit's log goes to, by its text and that of its drop-ins; the last word counts."""
    found: str | None = None
    for folder in reversed(UNITS):
        try:
            drop_ins = sorted((folder / f"{unit}.service.d").glob("*.conf"))
        except OSError:
            drop_ins = []
        for file in (folder / f"{unit}.service", *drop_ins):
            try:
                with file.open("rb") as opened:
                    text = opened.read(_MOST).decode("utf-8", "replace")
            except OSError:
                continue
            found = next(iter(reversed(_FILE.findall(text))), found)
    return found
