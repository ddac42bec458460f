"""The arbiter and its page process: it is there while the service is, and what befalls it harms no call."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from eslbot.sim.addresses import free_port
from eslbot.sim.processes import is_alive
from tests.support.ledger import Worker, whole_call
from tests.support.processes import ROOT, EslbotService, tree, until

#: A page process that dies is started again sooner than in earnest.
SOON = "import eslbot.runtime.children as p\np.AGAIN = 0.2"


class ServiceWithLedger(EslbotService):
    """One that records its calls."""

    def __init__(self, folder: Path, before: str = "", **ledger: Any) -> None:
        self.journal = folder / "journal"
        with_ledger = {
            **tree(),
            "ledger": {"url": f"sqlite:///{folder}/calls.db", "journal": str(self.journal), **ledger},
        }
        super().__init__(folder, with_ledger, "--log", "json", before=f"{SOON}\n{before}")

    def page_other_than(self, *pids: int | None) -> int:
        found: int = until(lambda: (pid := self.page()) not in (None, *pids) and pid, what=self.log)
        return found

    def page_answers(self) -> bool:
        try:
            return self._get(self.web_port, "/healthz", "GET")[0] == 200
        except OSError:
            return False


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceWithLedger]:
    with ServiceWithLedger(tmp_path) as service:
        yield service


def test_by_hand_it_is_as_careful_as_under_systemd(tmp_path: Path) -> None:
    """Whatever it is given: nobody else reads its files, and no process leaves a core."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    careless = f"import os, resource\nos.umask(0)\nresource.setrlimit(resource.RLIMIT_CORE, ({hard}, {hard}))"
    with ServiceWithLedger(tmp_path, before=careless) as service:
        service.page_other_than()
        until(lambda: (tmp_path / "calls.db").exists(), what=service.log)
        for pid in service.pids():
            status = Path(f"/proc/{pid}/status").read_text()
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert "\nUmask:\t0007\n" in status
            assert re.search(r"^Max core file size +0 ", limits, re.MULTILINE)
        for path in (tmp_path / "calls.db", service.journal, service.journal / "writer.lock"):
            assert path.stat().st_mode & 0o007 == 0, path


def test_calls_go_before_it(service: ServiceWithLedger) -> None:
    until(service.page_answers)
    (worker,), page = service.children(), service.page_other_than()
    of_workers = os.getpriority(os.PRIO_PROCESS, worker)
    assert os.getpriority(os.PRIO_PROCESS, page) == min(19, of_workers + 5)


def test_a_page_process_that_dies_is_started_again_and_the_workers_stay(service: ServiceWithLedger) -> None:
    first, workers = service.page_other_than(), service.children()
    os.kill(first, signal.SIGKILL)
    second = service.page_other_than(first)
    assert '"page_died"' in service.log
    until(service.page_answers)
    assert service.children() == workers
    assert is_alive(second)
    assert service.probe("/healthz")[0] == 200


def test_at_the_end_it_reads_the_last_facts_and_goes(tmp_path: Path) -> None:
    with ServiceWithLedger(tmp_path) as service:
        page = service.page_other_than()
        until(lambda: "ledger_open" in service.log)
        with Worker(service.journal) as worker:
            worker.write(whole_call("c0"))
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(10) == 0
        assert not is_alive(page)
        assert '"ledger_writer_ends"' in service.log
        assert not worker.path.exists()  # it was read to its end
        assert "page_died" not in service.log


def test_it_ends_with_an_arbiter_that_is_killed(service: ServiceWithLedger) -> None:
    page = service.page_other_than()
    until(lambda: "page_begins" in service.log)
    workers = service.children()
    service.process.kill()
    service.process.wait()
    until(lambda: not is_alive(page), what="its end")
    for pid in workers:
        with suppress(ProcessLookupError):
            until(lambda pid=pid: not is_alive(pid), what="the worker's end")  # type: ignore[misc]


def test_a_hup_changes_the_ledger(service: ServiceWithLedger, tmp_path: Path) -> None:
    first = service.page_other_than()
    until(lambda: "ledger_open" in service.log)
    service.process.send_signal(signal.SIGHUP)  # nothing changes
    until(lambda: service.log.count("Handling signal: hup") == 1)
    service.tree["ledger"]["url"] = f"sqlite:///{tmp_path}/other.db"
    service.write(service.tree)
    service.process.send_signal(signal.SIGHUP)
    second = service.page_other_than(first)
    until(lambda: (tmp_path / "other.db").exists())
    assert not is_alive(first)
    del service.tree["ledger"]
    service.write(service.tree)
    service.process.send_signal(signal.SIGHUP)
    third = service.page_other_than(first, second)
    until(lambda: not is_alive(second))
    until(service.page_answers)
    assert service.page() == third
    assert service.log.count('"ledger_writer_begins"') == 2
    assert "page_died" not in service.log


def test_a_hup_that_changes_nothing_leaves_it_alone(service: ServiceWithLedger) -> None:
    first = service.page_other_than()
    until(service.page_answers)  # while it starts, new workers may not come up in time
    workers = service.children()
    service.process.send_signal(signal.SIGHUP)
    until(lambda: service.ready() and not set(workers) & set(service.children()))
    assert service.page() == first


def test_a_hup_changes_where_it_listens(service: ServiceWithLedger) -> None:
    until(service.page_answers)
    service.web_port = free_port()
    service.write(service.tree)
    service.process.send_signal(signal.SIGHUP)
    until(service.page_answers)


class WithoutPort(ServiceWithLedger):
    """Whose ``web.listen`` another program has."""

    taken = 0

    def command(self) -> Sequence[str]:
        command = super().command()
        self.web_port = self.taken
        self.write(self.tree)
        return command


def test_a_port_that_another_has_is_waited_for_while_the_ledger_is_written(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        service = WithoutPort(tmp_path)
        service.taken = taken.getsockname()[1]
        with service:
            until(lambda: "page_does_not_listen" in service.log, what=service.log)
            until(lambda: "ledger_open" in service.log)
            taken.close()
            until(service.page_answers)
            assert service.log.count("page_does_not_listen") == 1


def test_a_ledger_that_cannot_be_written_harms_nobody_and_is_waited_for(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("no directory")
    with ServiceWithLedger(tmp_path) as service:
        until(lambda: service.log.count('"ledger_down"') >= 1)
        assert "must be writable for the service's user" in service.log
        assert service.probe("/healthz")[0] == 200
        until(service.page_answers)
        assert service.metric("eslbot_ledger_up") == 0
        (tmp_path / "journal").unlink()
        until(lambda: "ledger_open" in service.log)
        assert "page_died" not in service.log


def test_by_hand_it_says_who_starts_it(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PROMETHEUS_MULTIPROC_DIR"}
    command = [sys.executable, "-m", "eslbot", "page", "--config", str(tmp_path / "none.toml")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, "eslbot serve" in done.stderr) == (2, True)


def test_the_arbiter_loads_no_database_and_no_page_and_metrics_only_when_their_place_is_known() -> None:
    names = "('sqlalchemy', 'alembic', 'psycopg', 'flask', 'waitress')"
    code = "import sys, importlib, eslbot.server.service as s; assert 'prometheus_client' not in sys.modules"
    code += "; [importlib.import_module(module) for module in s.OF_WORKERS]"
    code += f"; print([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.stdout == "[]\n", done.stderr
