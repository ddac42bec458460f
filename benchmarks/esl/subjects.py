"""The controllers that are measured: each is a process, or a family of them, on a core of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import tomli_w

from benchmarks.esl.generator import HERE, build
from benchmarks.machine import memory
from eslbot.sim.addresses import free_port
from eslbot.sim.processes import children, serves, tells
from tests.support.sockets import established

#: As it is in channel.txt.
WORKSPACE = "4a1c7a52-8f0b-4d59-9d3c-000000000001"
#: How eslbot introduces itself to Ameyo.
TENANT_HOST, TOKEN = "acme.ameyo.app", "of-ameyo"
ROOT = HERE.parents[1]
START_LIMIT, STOP_LIMIT = 20.0, 15.0
#: More than a run has: eslbot's own limits are not what is measured.
MANY = 20_000


class SubjectError(Exception):
    """A controller did not start; the text holds the end of its output."""


@dataclass(frozen=True)
class Subject:
    """A controller by its name and its command.

    ``polls`` where it looks for connections again and again; ``processes`` take them. ``besides``: a port on
    which another process of its listens once it has started, too: what that takes is not what is measured.
    """

    name: str
    command: tuple[str, ...]
    polls: bool = False
    processes: int = 1
    besides: int | None = None


class Running:
    """A controller that runs."""

    def __init__(self, subject: Subject, process: subprocess.Popen[bytes]) -> None:
        self.subject = subject
        self.process = process

    def pids(self) -> list[int]:
        """The process that was started and all of its descendants."""
        found = [self.process.pid]
        for pid in found:
            found += children(pid)
        return found

    def ready(self, port: int) -> bool:
        """Whether it takes connections."""
        if self.subject.polls:
            return _listens(port)
        serving = [pid for pid in self.pids() if serves(pid, ("127.0.0.1", port))]
        besides = self.subject.besides
        return len(serving) >= self.subject.processes and (besides is None or _listens(besides))

    def cpu_seconds(self) -> float:
        """Processor time so far of all threads that live, by the scheduler's own count."""
        return sum(map(cpu_seconds, self.pids()))

    def workers(self) -> list[int]:
        """Its children that take connections, in the order of their start."""
        return [pid for pid in children(self.process.pid) if not tells(pid)]

    def connections(self, port: int) -> list[int]:
        """How many of the calls at ``port`` each worker has now."""
        return [established(pid, port) for pid in self.workers()]

    def memory(self) -> int:
        """Bytes of memory that it has made, all of its processes together."""
        return memory(self.pids())


def cpu_seconds(pid: int) -> float:
    """Processor time so far of a process' threads that live, by the scheduler's own count."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int(task.joinpath("schedstat").read_text().split()[0]) / 1e9 for task in tasks)


def _listens(port: int) -> bool:
    """Whether anybody listens on ``port``."""
    listening = [c for c in psutil.net_connections("tcp4") if c.status == psutil.CONN_LISTEN]
    return any(c.laddr and c.laddr.port == port for c in listening)


def eslbot_service(
    folder: Path, port: int, ameyo_url: str, relay_port: int, *, workers: int = 1, ca_file: Path | None = None
) -> Subject:
    """``eslbot serve`` with ``workers`` workers; ``ca_file`` is who has signed Ameyo's certificate."""
    config = folder / f"eslbot-{workers}{'-tls' if ca_file else ''}.toml"
    page = free_port()
    document = _configuration(port, ameyo_url, workers, ca_file, folder)
    document["web"] = {"listen": f"127.0.0.1:{page}"}
    document["relay"] = {"processes": 0, "listen": f"127.0.0.1:{relay_port}"}  # the generator's
    config.write_text(tomli_w.dumps(document))
    command = (sys.executable, "-m", "eslbot", "serve", "--config", str(config), "--log", "json")
    name = "eslbot" if workers == 1 else f"eslbot, {workers} workers"
    return Subject(name, command, processes=workers, besides=page)


def subjects(
    folder: Path, port: int, ameyo_port: int, relay_port: int, genesis: Path | None
) -> list[Subject]:
    """All that can run here; Genesis where ``genesis`` is a Python that has it."""
    python = sys.executable
    controllers = "benchmarks.esl.controllers"
    found = [
        eslbot_service(folder, port, f"http://127.0.0.1:{ameyo_port}", relay_port),
        Subject("eslbot.esl alone", (python, "-m", f"{controllers}.session_alone", str(port))),
        Subject("bare gevent", (python, "-m", f"{controllers}.bare_gevent", str(port))),
        Subject("greenswitch", (python, "-m", f"{controllers}.greenswitch_released", str(port)), polls=True),
    ]
    if genesis is not None:
        script = HERE / "controllers" / "genesis_outbound.py"
        found.append(Subject("Genesis", (str(genesis), str(script), str(port))))
    yardstick = build(HERE / "controllers" / "yardstick.c", folder)
    return [*found, Subject("C", (str(yardstick), str(port)))]


def _configuration(
    port: int, ameyo_url: str, workers: int, ca_file: Path | None, folder: Path
) -> dict[str, object]:
    ameyo: dict[str, object] = {"url": ameyo_url, "tenant_host": TENANT_HOST, "token": TOKEN}
    if ca_file is None:
        ameyo["insecure"] = True
    else:
        ameyo["ca_file"] = str(ca_file)
    return {
        "server": {
            "listen": f"127.0.0.1:{port}",
            "health": f"127.0.0.1:{free_port()}",
            "switches": ["127.0.0.1/32"],
            "workers": workers,
            "max_calls": MANY,
            "key_file": str(folder / "identity.key"),
        },
        "workspaces": {
            WORKSPACE: {
                "name": "acme",
                "sources": ["127.0.0.1"],
                "max_calls": MANY,
                "max_cps": 10_000,
                "bot": {"url": "wss://bot.example.com/", "headers": {"Authorization": "Bearer of-the-bot"}},
                "ameyo": ameyo,
            }
        },
    }


@contextmanager
def running(subject: Subject, folder: Path, cores: Sequence[int], port: int) -> Iterator[Running]:
    """Run ``subject`` on ``cores`` until the block ends. Raises :class:`SubjectError`."""
    log = folder / f"{subject.name.replace(',', '').replace(' ', '-')}.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, cores)), *subject.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=ROOT,
            env=environment,
        )
    found = Running(subject, process)
    try:
        deadline = time.monotonic() + START_LIMIT
        while not found.ready(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SubjectError(
                    f"{subject.name} did not start:\n{log.read_text(errors='replace')[-2000:]}"
                )
            time.sleep(0.05)
        yield found
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_LIMIT)
        if process.poll() is None:
            process.kill()
            process.wait()
