"""The arbiter and its keeper: one is there while the service is, and none of what befalls it harms calls."""

from __future__ import annotations

import os
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from eslbot.sim.processes import is_alive, keeps_ledger
from tests.support.ledger import Worker, whole_call
from tests.support.processes import ROOT, EslbotService, tree, until

#: A keeper that dies is started again sooner than in earnest.
SOON = "import eslbot.children as p\np.AGAIN = 0.2"


class ServiceWithLedger(EslbotService):
    """One of whose children is the keeper."""

    def __init__(self, folder: Path, before: str = "", **ledger: Any) -> None:
        self.journal = folder / "journal"
        with_ledger = {
            **tree(),
            "ledger": {"url": f"sqlite:///{folder}/calls.db", "journal": str(self.journal), **ledger},
        }
        super().__init__(folder, with_ledger, "--log", "json", before=f"{SOON}\n{before}")

    def keeper(self) -> int | None:
        return next((pid for pid in super().children() if keeps_ledger(pid)), None)

    def children(self) -> list[int]:
        """The workers."""
        return [pid for pid in super().children() if not keeps_ledger(pid)]

    def pids(self) -> list[int]:
        keeper = self.keeper()
        return [*super().pids(), *([keeper] if keeper else [])]

    def keeper_other_than(self, *pids: int | None) -> int:
        found: int = until(lambda: (pid := self.keeper()) not in (None, *pids) and pid, what=self.log)
        return found


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceWithLedger]:
    with ServiceWithLedger(tmp_path) as service:
        yield service


def test_by_hand_it_is_as_careful_as_under_systemd(tmp_path: Path) -> None:
    """Whatever it is given: nobody else reads its files, and no process leaves a core."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    careless = f"import os, resource\nos.umask(0)\nresource.setrlimit(resource.RLIMIT_CORE, ({hard}, {hard}))"
    with ServiceWithLedger(tmp_path, before=careless) as service:
        service.keeper_other_than()
        until(lambda: (tmp_path / "calls.db").exists(), what=service.log)
        for pid in service.pids():
            status = Path(f"/proc/{pid}/status").read_text()
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert "\nUmask:\t0007\n" in status
            assert re.search(r"^Max core file size +0 ", limits, re.MULTILINE)
        for path in (tmp_path / "calls.db", service.journal, service.journal / "keeper.sock"):
            assert path.stat().st_mode & 0o007 == 0, path


def test_a_keeper_that_dies_is_started_again_and_the_workers_stay(service: ServiceWithLedger) -> None:
    first, workers = service.keeper_other_than(), service.children()
    os.kill(first, signal.SIGKILL)
    second = service.keeper_other_than(first)
    assert '"keeper_died"' in service.log
    until(lambda: (service.journal / "keeper.sock").exists())
    assert service.children() == workers
    assert is_alive(second)
    assert service.get("/healthz")[0] == 200


def test_at_the_end_the_keeper_reads_the_last_facts_and_goes(tmp_path: Path) -> None:
    with ServiceWithLedger(tmp_path) as service:
        keeper = service.keeper_other_than()
        until(lambda: "ledger_open" in service.log)
        with Worker(service.journal) as worker:
            worker.write(whole_call("c0"))
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(10) == 0
        assert not is_alive(keeper)
        assert '"keeper_ends"' in service.log
        assert not worker.path.exists()  # it was read to its end
        assert "keeper_died" not in service.log


def test_the_keeper_ends_with_an_arbiter_that_is_killed(service: ServiceWithLedger) -> None:
    keeper = service.keeper_other_than()
    until(lambda: "keeper_begins" in service.log)
    workers = service.children()
    service.process.kill()
    service.process.wait()
    until(lambda: not is_alive(keeper), what="the keeper's end")
    for pid in workers:
        with suppress(ProcessLookupError):
            until(lambda pid=pid: not is_alive(pid), what="the worker's end")  # type: ignore[misc]


def test_a_hup_changes_the_ledger(service: ServiceWithLedger, tmp_path: Path) -> None:
    first = service.keeper_other_than()
    until(lambda: "ledger_open" in service.log)
    service.process.send_signal(signal.SIGHUP)  # nothing changes
    until(lambda: service.log.count("Handling signal: hup") == 1)
    service.tree["ledger"]["url"] = f"sqlite:///{tmp_path}/other.db"
    service.write(service.tree)
    service.process.send_signal(signal.SIGHUP)
    second = service.keeper_other_than(first)
    until(lambda: (tmp_path / "other.db").exists())
    assert not is_alive(first)
    del service.tree["ledger"]
    service.write(service.tree)
    service.process.send_signal(signal.SIGHUP)
    until(lambda: service.keeper() is None and not is_alive(second))
    assert "keeper_died" not in service.log


def test_a_keeper_that_cannot_begin_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("no directory")
    with ServiceWithLedger(tmp_path) as service:
        until(lambda: service.log.count('"keeper_died"') >= 1)
        assert "the ledger cannot be used" in service.log
        assert service.get("/healthz")[0] == 200


def test_the_arbiter_loads_neither_sqlalchemy_nor_what_opens_sockets() -> None:
    names = "('sqlalchemy', 'alembic', 'requests', 'psycopg')"
    code = f"import sys, eslbot.service; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n", done.stderr
