"""A PostgreSQL of a test's own: in its directory, at a free port of 127.0.0.1, as a user who is not root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from eslbot.sim.addresses import free_port


def binaries() -> Path:
    """Where this machine has PostgreSQL; skips the test where it has none."""
    for place in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (place / "initdb").exists():
            return place
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    pytest.skip("this machine has no PostgreSQL (initdb)")


class Postgres:
    """The server; ``url`` is what the configuration wants."""

    def __init__(self, folder: Path) -> None:
        self._binaries = binaries()
        self._as_user: list[str] = []
        self._data = folder / "data"
        self._log = folder / "log"
        if os.getuid() == 0:  # PostgreSQL refuses root
            if subprocess.run(["id", "postgres"], capture_output=True).returncode or not shutil.which(
                "setpriv"
            ):
                pytest.skip("PostgreSQL does not run as root, and there is no user postgres (or no setpriv)")
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
            shutil.chown(folder, "postgres", "postgres")
        self.port = free_port()
        self._do("initdb", "-D", self._data, "-U", "eslbot", "-A", "trust", "--no-sync", "-E", "UTF8")

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://eslbot@127.0.0.1:{self.port}/postgres"

    def _do(self, program: str, *arguments: object) -> None:
        command: Sequence[str] = [
            *self._as_user, str(self._binaries / program), *map(str, arguments)
        ]  # fmt: skip
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/", timeout=60, text=True
        )
        assert done.returncode == 0, done.stdout

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -c unix_socket_directories='' -c fsync=off"
        self._do("pg_ctl", "-D", self._data, "-l", self._log, "-o", options, "-w", "start")

    def stop(self) -> None:
        """At once, as a crash does."""
        self._do("pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    @property
    def runs(self) -> bool:
        return (self._data / "postmaster.pid").exists()


@contextmanager
def postgres() -> Iterator[Postgres]:
    """One that runs. (Not in pytest's directory: each run of pytest closes that to all but its own user.)"""
    with TemporaryDirectory(prefix="eslbot-postgres-") as folder:
        server = Postgres(Path(folder))
        server.start()
        try:
            yield server
        finally:
            if server.runs:
                server.stop()
