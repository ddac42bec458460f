"""The controllers that are measured: each is a process, or a family of them, on one core."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import tomli_w

from benchmarks.esl.generator import HERE, build
from eslbot.sim.processes import LISTEN, children, serves, tcp_sockets

#: As it is in channel.txt.
WORKSPACE = "4a1c7a52-8f0b-4d59-9d3c-000000000001"
ROOT = HERE.parents[1]
START_LIMIT, STOP_LIMIT = 20.0, 15.0
#: More than a run has: eslbot's own limits are not what is measured.
MANY = 20_000


class SubjectError(Exception):
    """A controller did not start; the text holds the end of its output."""


@dataclass(frozen=True)
class Subject:
    """A controller by its name and its command; ``polls`` where it looks for connections again and again."""

    name: str
    command: tuple[str, ...]
    polls: bool = False


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
            return any(s.state == LISTEN and s.local[1] == port for s in tcp_sockets())
        return any(serves(pid, ("127.0.0.1", port)) for pid in self.pids())

    def cpu_seconds(self) -> float:
        """Processor time so far of all threads that live, by the scheduler's own count."""
        return sum(
            int(task.joinpath("schedstat").read_text().split()[0]) / 1e9
            for pid in self.pids()
            for task in Path(f"/proc/{pid}/task").iterdir()
        )

    def memory(self) -> int:
        """Bytes of memory that are its own, shared pages in equal parts."""
        total = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
        return total


def subjects(folder: Path, port: int, web_port: int, ameyo_port: int, genesis: Path | None) -> list[Subject]:
    """All that can run here; Genesis where ``genesis`` is a Python that has it."""
    config = folder / "eslbot.toml"
    config.write_text(tomli_w.dumps(_configuration(port, web_port, ameyo_port)))
    python = sys.executable
    controllers = "benchmarks.esl.controllers"
    found = [
        Subject("eslbot", (python, "-m", "eslbot", "serve", "--config", str(config), "--log", "json")),
        Subject("bare gevent", (python, "-m", f"{controllers}.bare_gevent", str(port))),
        Subject("greenswitch", (python, "-m", f"{controllers}.greenswitch_released", str(port)), polls=True),
    ]
    if genesis is not None:
        script = HERE / "controllers" / "genesis_outbound.py"
        found.append(Subject("Genesis", (str(genesis), str(script), str(port))))
    yardstick = build(HERE / "controllers" / "yardstick.c", folder)
    return [*found, Subject("C", (str(yardstick), str(port)))]


def _configuration(port: int, web_port: int, ameyo_port: int) -> dict[str, object]:
    return {
        "server": {
            "listen": f"127.0.0.1:{port}",
            "switches": ["127.0.0.1/32"],
            "workers": 1,
            "max_calls": MANY,
        },
        "web": {"listen": f"127.0.0.1:{web_port}"},
        "workspaces": {
            WORKSPACE: {
                "name": "acme",
                "sources": ["127.0.0.1"],
                "max_calls": MANY,
                "bot": {"url": "wss://bot.example.com/", "headers": {"Authorization": "Bearer of-the-bot"}},
                "ameyo": {
                    "url": f"http://127.0.0.1:{ameyo_port}",
                    "tenant_host": "acme.ameyo.app",
                    "token": "of-ameyo",
                    "insecure": True,
                },
            }
        },
    }


@contextmanager
def running(subject: Subject, folder: Path, core: int, port: int) -> Iterator[Running]:
    """Run ``subject`` on ``core`` until the block ends. Raises :class:`SubjectError`."""
    log = folder / f"{subject.name.replace(' ', '-')}.log"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    environment.pop("PROMETHEUS_MULTIPROC_DIR", None)
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *subject.command],
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
