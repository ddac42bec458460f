"""The page process, which writes the ledger, with SQLite or a PostgreSQL of the tests' own."""

from __future__ import annotations

import http.client
import json
import os
import signal
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
from eslbot.sim.addresses import colon
from tests.support.ledger import ACME
from tests.support.peer import free_port
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


#: A writer that looks more often than in earnest.
QUICK = """
import eslbot.ledger.writer as k
k.POLL_INTERVAL = k.IDLE_INTERVAL = 0.05
k.WORKER_CHECK_INTERVAL = 0.2
"""
#: Who may ask it, and see all.
TOKEN = "operator-token-0123456789"


class WriterHouse:
    """A configuration, its directory of journals and its database, and page processes for them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.journal = folder / "journal"
        self.journal.mkdir(exist_ok=True)
        self.ledger = Ledger(Secret(url), str(self.journal), 90 * 86400.0)
        self.config = folder / "eslbot.toml"
        self.web = ("127.0.0.1", free_port())
        self.tree: dict[str, Any] = {
            "web": {"listen": colon(self.web), "tokens": {"operator": {"token": TOKEN}}},
            "freeswitch": {"capture": colon(("127.0.0.1", free_port()))},
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
        self._log = folder / "page.log"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._engine: Engine | None = None

    def writer(self, before: str = "") -> subprocess.Popen[bytes]:
        """Start a page process; standard input is its lifeline. ``before`` is Python that it runs first."""
        program = [sys.executable, "-c", f"{QUICK}\n{before}\nfrom eslbot.cli import main\nmain()"]
        metrics = self.folder / "metrics"
        metrics.mkdir(exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PROMETHEUS_MULTIPROC_DIR": str(metrics)}
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [*program, "page", "--log", "json", "--config", str(self.config)],
                stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment, cwd=ROOT,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in self.processes:
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

    def live_until(self, good: Any) -> dict[str, Any]:
        """Look, from the beginning each time, until the live calls and the ledger's health are ``good``."""

        def look() -> dict[str, Any] | None:
            try:
                told = self.live()
            except (OSError, http.client.HTTPException):
                return None
            return told if good(told) else None

        found: dict[str, Any] = until(look, 20, what=f"the ledger's news in {self.log}")
        return found

    def live(self) -> dict[str, Any]:
        """The first event of a page's stream."""
        connection = self._get("/api/live")
        try:
            for line in connection.getresponse():
                if line.startswith(b"data: "):
                    told: dict[str, Any] = json.loads(line[6:])
                    return told
            raise ConnectionError("no event")
        finally:
            connection.close()

    def ask(self, question: str) -> dict[str, Any]:
        """The answer of ``/api/QUESTION``."""
        connection = self._get(f"/api/{question}")
        try:
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
            return answer
        finally:
            connection.close()

    def _get(self, path: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(*self.web, timeout=15)
        connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
        return connection


@pytest.fixture
def house(tmp_path: Path) -> Iterator[WriterHouse]:
    """With SQLite."""
    house = WriterHouse(tmp_path, f"sqlite:///{tmp_path}/calls.db")
    yield house
    house.close()


@pytest.fixture
def pg_house(tmp_path: Path, postgresql: Postgres) -> Iterator[WriterHouse]:
    house = WriterHouse(tmp_path, postgresql.url)
    yield house
    house.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def any_house(request: pytest.FixtureRequest) -> WriterHouse:
    """Each test with both."""
    name = "house" if request.param == "sqlite" else "pg_house"
    house: WriterHouse = request.getfixturevalue(name)
    return house
