"""The rows from which a laboratory's switch takes its calls up again behind its own death."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from eslbot.sim.lab import Lab

#: Seconds that a row may take on a busy machine.
PATIENCE = 10.0


def rows(lab: Lab) -> set[str]:
    """The UUIDs of the calls that would come back: FreeSWITCH knows its own tag in their dialogs."""
    folder = lab.work / "db"
    if lab.real_switch is None:
        return {path.stem for path in folder.glob("*.json")}
    with closing(sqlite3.connect(folder / "core.db", timeout=PATIENCE)) as database:
        found = database.execute("select uuid from recovery where metadata like '%<sip_to_tag>%'")
        return {uuid for (uuid,) in found}


def wait_row(lab: Lab, uuid: str) -> None:
    """Wait until a call would come back."""
    deadline = time.monotonic() + PATIENCE
    while uuid not in rows(lab):
        assert time.monotonic() < deadline, "the call has no row"
        time.sleep(0.02)  # another process's files: there is no event to wait for


def forget_row(lab: Lab, uuid: str) -> None:
    """As if the call were younger than its row."""
    folder = lab.work / "db"
    if lab.real_switch is None:
        (folder / f"{uuid}.json").unlink()
        return
    with closing(sqlite3.connect(folder / "core.db", timeout=PATIENCE)) as database, database:
        assert database.execute("delete from recovery where uuid = ?", (uuid,)).rowcount == 1
