"""The keeper as a process, with SQLite or a PostgreSQL of the tests' own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from sqlalchemy import Engine, Table, select
from sqlalchemy.exc import DBAPIError

from eslbot.config.model import Ledger, Secret
from eslbot.ledger.database import open_database
from eslbot.ledger.schema import journals
from tests.support.ledger import ACME
from tests.support.postgres import Postgres, postgres
from tests.support.processes import ROOT, until


@pytest.fixture(scope="session")
def one_postgres() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture
def postgresql(one_postgres: Postgres) -> Postgres:
    """Running, and empty."""
    if not one_postgres.runs:
        one_postgres.start()
    engine = open_database(Ledger(Secret(one_postgres.url), "/none", 1.0))
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    engine.dispose()
    return one_postgres


#: A keeper that looks more often than in earnest.
QUICK = "import eslbot.ledger.keeper as k\nk.LOOK = k.ROUND = 0.05\nk.CENSUS = 0.2"


class KeeperHouse:
    """A configuration, its directory of journals and its database, and keepers that are started for them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self.journal.mkdir(exist_ok=True)
        self.ledger = Ledger(Secret(url), str(self.journal), 90 * 86400.0)
        self.config = folder / "eslbot.toml"
        self.tree: dict[str, Any] = {
            "ledger": {"url": url, "journal": str(self.journal)},
            "workspaces": {
                ACME: {
                    "name": "acme",
                    "sources": ["127.0.0.1"],
                    "bot": {"url": "wss://bot.example.com/"},
                    "ameyo": {
                        "url": "http://127.0.0.1:9",
                        "tenant_host": "acme.ameyo.app",
                        "token": "secret-of-ameyo",
                        "insecure": True,
                        "properties": {"DID": "{did}", "why": "{outcome}"},
                    },
                }
            },
        }
        self.config.write_text(tomli_w.dumps(self.tree))
        self._log = folder / "keeper.log"
        self.keepers: list[subprocess.Popen[bytes]] = []
        self._engine: Engine | None = None

    def keeper(self, before: str = "") -> subprocess.Popen[bytes]:
        """Start one; its standard input is its lifeline. ``before`` is Python that it runs first."""
        program = [sys.executable, "-c", f"{QUICK}\n{before}\nfrom eslbot.cli import main\nmain()"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*program, "ledger", "keep", "--log", "json", "--config", str(self.config)],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, cwd=ROOT,
            )  # fmt: skip
        self.keepers.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in self.keepers:
            if process.poll() is None:
                self.kill(process)
            if process.stdin is not None:
                process.stdin.close()
        if self._engine is not None:
            self._engine.dispose()

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def events(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]

    def wait_for(self, event: str, times: int = 1) -> dict[str, Any]:
        found: list[dict[str, Any]] = until(
            lambda: len(found := self.events(event)) >= times and found, what=f"{event} in {self.log}"
        )
        return found[times - 1]

    def rows(self, table: Table) -> list[dict[str, Any]]:
        if self._engine is None:
            self._engine = open_database(self.ledger, create=True)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]

    def drained(self) -> None:
        """Wait until every journal that there is now is in the database to its end."""

        def is_drained() -> bool:
            try:
                sizes = {path.name: path.stat().st_size for path in self.journal.glob("*-*.jsonl")}
                offsets = {row["name"]: row["offset"] for row in self.rows(journals)}
            except (FileNotFoundError, DBAPIError):  # a journal is deleted, the database comes up
                return False
            return all(offsets.get(name) == size for name, size in sizes.items())

        until(is_drained, 20, what=f"the end of the journals in {self.log}")

    def ask_until(self, good: Any) -> dict[str, Any]:
        """Watch, from the beginning each time, until the first message is ``good``."""

        def look() -> dict[str, Any] | None:
            try:
                told = self.ask({"ask": "watch"})
            except OSError:
                return None
            return told if good(told) else None

        found: dict[str, Any] = until(look, 20, what=f"the ledger's news in {self.log}")
        return found

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(15)
        sock.connect(str(self.journal / "keeper.sock"))
        return sock

    def ask(self, question: Any) -> dict[str, Any]:
        """One question, one answer."""
        with self.connect() as sock, sock.makefile("rwb") as file:
            file.write(question if isinstance(question, bytes) else json.dumps(question).encode() + b"\n")
            file.flush()
            line = file.readline()
            if not line:
                raise ConnectionError("no answer")
            answer: dict[str, Any] = json.loads(line)
            return answer


@pytest.fixture
def house(tmp_path: Path) -> Iterator[KeeperHouse]:
    """With SQLite."""
    house = KeeperHouse(tmp_path, f"sqlite:///{tmp_path}/calls.db")
    yield house
    house.close()


@pytest.fixture
def pg_house(tmp_path: Path, postgresql: Postgres) -> Iterator[KeeperHouse]:
    house = KeeperHouse(tmp_path, postgresql.url)
    yield house
    house.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_house(request: pytest.FixtureRequest) -> KeeperHouse:
    """Each test with both."""
    name = "house" if request.param == "sqlite" else "pg_house"
    house: KeeperHouse = request.getfixturevalue(name)
    return house
