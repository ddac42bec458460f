"""Where FreeSWITCH's databases are and where its restarts are noted: the usual places, or as configured."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

#: Where FreeSWITCH has its databases (its ``-db``), and where its restarts are noted: both on a tmpfs.
DATABASES = "/run/freeswitch-db"
FILE = "/run/eslbot/freeswitch.json"
#: No other file is ever written over, whatever the configuration says.
SUFFIX = ".json"

MAX_CONFIG = 4 * 1024 * 1024


def configured(config: Path | None) -> tuple[Path, Path, list[str]]:
    """``freeswitch.db`` and ``freeswitch.recovery_file``, and why they are not as configured.

    No more of the configuration is read, and no fault in it counts: it may be being edited.
    """
    table: Any = {}
    problems = []
    try:
        if config is not None:
            table = _table(config)
    except (OSError, ValueError, RecursionError) as error:
        why = getattr(error, "strerror", None) or error
        problems.append(f"{config}: {why}; {DATABASES} and {FILE} are taken")
    found = []
    for key, usual, end in (("db", DATABASES, ""), ("recovery_file", FILE, SUFFIX)):
        value = table.get(key, usual)
        if not (isinstance(value, str) and value.startswith("/") and value.endswith(end)) or "\0" in value:
            wanted = f"an absolute path{end and f' that ends in {end}'}"
            problems.append(f"freeswitch.{key} is {value!r:.200} instead of {wanted}; {usual} is taken")
            value = usual
        found.append(Path(value))
    return found[0], found[1], problems


def _table(config: Path) -> dict[str, Any]:
    """``[freeswitch]``. Raises OSError, and ValueError or RecursionError where it is not to be understood."""
    with config.open("rb") as file:
        text = file.read(MAX_CONFIG + 1)
    if len(text) > MAX_CONFIG:
        raise ValueError(f"it has more than {MAX_CONFIG} bytes")
    table = tomllib.loads(text.decode()).get("freeswitch", {})
    if not isinstance(table, dict):
        raise ValueError("freeswitch is no table")
    return table
