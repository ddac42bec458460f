"""The rows from which a laboratory's switch takes its calls up again behind its own death."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing

from tests.support.lab import Lab

#: Seconds that a row may take on a busy machine.
PATIENCE = 10.0


def rows(lab: Lab) -> dict[str, bool]:
    """By the UUIDs of the calls that have one: whether FreeSWITCH's own tag in their dialog is there, too."""
    folder = lab.work / "db"
    if lab.real_switch is None:
        return {path.stem: True for path in folder.glob("*.json")}
    with closing(sqlite3.connect(folder / "core.db", timeout=PATIENCE)) as database:
        found = database.execute("select uuid, metadata from recovery").fetchall()
        return {uuid: "<sip_to_tag>" in metadata for uuid, metadata in found}


def wait_row(lab: Lab, uuid: str, *, whole: bool = True) -> None:
    """Wait until a call would come back; ``whole``: in the dialog that its PBX knows."""
    deadline = time.monotonic() + PATIENCE
    while rows(lab).get(uuid) is not whole:
        assert time.monotonic() < deadline, "the call has no row"
        time.sleep(0.02)  # another process's files: there is no event to wait for


def saved_row(lab: Lab, uuid: str) -> Callable[[], None]:
    """What puts a call's row back as it is now: as if FreeSWITCH had died before it could delete it."""
    folder = lab.work / "db"
    if lab.real_switch is None:
        file = folder / f"{uuid}.json"
        content = file.read_bytes()

        def put_back() -> None:
            file.write_bytes(content)

        return put_back
    with closing(sqlite3.connect(folder / "core.db", timeout=PATIENCE)) as database:
        row = database.execute("select * from recovery where uuid = ?", (uuid,)).fetchone()

    def insert() -> None:
        with closing(sqlite3.connect(folder / "core.db", timeout=PATIENCE)) as database, database:
            database.execute(f"insert into recovery values ({', '.join('?' * len(row))})", row)

    return insert


def forget_row(lab: Lab, uuid: str) -> None:
    """As if the call were younger than its row."""
    folder = lab.work / "db"
    if lab.real_switch is None:
        (folder / f"{uuid}.json").unlink()
        return
    with closing(sqlite3.connect(folder / "core.db", timeout=PATIENCE)) as database, database:
        assert database.execute("delete from recovery where uuid = ?", (uuid,)).rowcount == 1
