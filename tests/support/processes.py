"""Servers as processes: ``eslbot serve``, and greenswitch's own to compare it with."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil
import tomli_w
from gevent import socket

from eslbot.sim.addresses import free_port
from eslbot.sim.processes import children, relays, serves, tells
from tests.support.switch import KEY, WORKSPACE, Channel

ROOT = Path(__file__).parents[2]


def until(condition: Any, seconds: float = 15.0, what: str = "it") -> Any:
    """Wait for another process."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {seconds:g} s")
        time.sleep(0.01)
    return found


class ServerProcess:
    """A process that listens on ``port``; what it writes is in ``log``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self._log = folder / f"log-{id(self)}"
        self.process: subprocess.Popen[bytes]

    def command(self) -> Sequence[str]:
        raise NotImplementedError

    def ready(self) -> bool:
        raise NotImplementedError

    def __enter__(self) -> Self:
        for _ in range(3):  # somebody may have taken a free port meanwhile
            self.process = self._spawn(self.command())
            try:
                until(lambda: self.process.poll() is not None or self.ready(), what="the start")
            except AssertionError:
                self.kill()
                raise AssertionError(self.log) from None
            if self.process.poll() is None:
                return self
        raise AssertionError(self.log)

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(self.folder)}
        environment.pop("PROMETHEUS_MULTIPROC_DIR", None)  # each service has its own
        with self._log.open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=environment)

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """Its workers, too."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def children(self) -> list[int]:
        return children(self.process.pid)

    def pids(self) -> list[int]:
        return [self.process.pid, *self.children()]

    def accepting(self) -> int:
        """The process that accepts connections."""
        raise NotImplementedError

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 5, (source, 0))

    def call(self, variables: dict[str, str] | None = None, **options: Any) -> Channel:
        """A call of FreeSWITCH's."""
        sock = self.connect()
        sock.settimeout(None)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Channel(sock, variables, **options)


class EslbotService(ServerProcess):
    """``eslbot serve`` with ``options``. ``before`` is Python that the process runs first."""

    def __init__(self, folder: Path, tree: dict[str, Any], *options: str, before: str | None = None) -> None:
        super().__init__(folder)
        self.tree = tree
        self.options = options
        self.before = before
        self.config = folder / f"eslbot-{id(self)}.toml"
        self.web_port = self.health_port = 0
        #: Not the default one: other services on this machine want it, and a worker takes it once it is free.
        self.capture_port = free_port()

    def command(self) -> Sequence[str]:
        self.port, self.web_port, self.health_port = free_port(), free_port(), free_port()
        self.write(self.tree)
        return self.same_command()

    def same_command(self) -> Sequence[str]:
        """With the ports it has."""
        program = ["-m", "eslbot"]
        if self.before is not None:
            program = ["-c", f"{self.before}\nfrom eslbot.cli import main\nmain()"]
        return [sys.executable, *program, "serve", "--config", str(self.config), *self.options]

    def start_again(self) -> None:
        """As systemd does after the end of it, at once."""
        self.process = self._spawn(self.same_command())

    def write(self, tree: dict[str, Any]) -> None:
        """A configuration with this service's ports, and the key that signs the calls of tests."""
        key_file = self.folder / "identity.key"
        key_file.touch(0o600)
        key_file.write_text(f"{KEY.hex()}\n")
        tree.setdefault("server", {}).update(
            listen=f"127.0.0.1:{self.port}",
            health=f"127.0.0.1:{self.health_port}",
            key_file=str(key_file),
        )
        tree.setdefault("web", {})["listen"] = f"127.0.0.1:{self.web_port}"
        tree.setdefault("relay", {"processes": 0})
        tree.setdefault("freeswitch", {}).setdefault("capture", f"127.0.0.1:{self.capture_port}")
        self.config.write_text(tomli_w.dumps(tree))

    def ready(self) -> bool:
        workers = self.tree["server"].get("workers", 2)
        found = self.children()
        return len(found) == workers and all(self.served_by(pid) for pid in found)

    def children(self) -> list[int]:
        """The workers."""
        return [pid for pid in children(self.process.pid) if not tells(pid) and not relays(pid)]

    def page(self) -> int | None:
        """The page process, while there is one."""
        return next((pid for pid in children(self.process.pid) if tells(pid)), None)

    def pids(self) -> list[int]:
        return [self.process.pid, *children(self.process.pid)]

    def served_by(self, pid: int) -> bool:
        """Whether the process waits for both kinds of connections."""
        return all(serves(pid, ("127.0.0.1", port)) for port in (self.port, self.health_port))

    def accepting(self) -> int:
        (worker,) = self.children()
        return worker

    def get(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """Status, content type and text of a page of the page process's, once that is up."""

        def answer() -> tuple[int, str, str] | None:
            try:
                return self._get(self.web_port, path, method)
            except urllib.error.URLError as error:
                if isinstance(error.reason, ConnectionRefusedError):
                    return None
                raise

        found: tuple[int, str, str] = until(answer, what=f"the page's start\n{self.log}")
        return found

    def probe(self, path: str, method: str = "GET") -> tuple[int, str, str]:
        """The same of a worker."""
        return self._get(self.health_port, path, method)

    @staticmethod
    def _get(port: int, path: str, method: str) -> tuple[int, str, str]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=5) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Content-Type"], error.read().decode()

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        lines = self.get("/metrics")[2].splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


class GreenswitchServer(ServerProcess):
    """greenswitch's OutboundESLServer as released."""

    def __init__(self, folder: Path, max_connections: int) -> None:
        super().__init__(folder)
        self.max_connections = max_connections

    def command(self) -> Sequence[str]:
        self.port = free_port()
        script = "tests.support.greenswitch_server"
        return [sys.executable, "-m", script, str(self.port), str(self.max_connections)]

    def ready(self) -> bool:
        try:
            self.connect().close()
        except OSError:
            return False
        return True

    def accepting(self) -> int:
        return self.process.pid


def descriptors(pids: Sequence[int]) -> int:
    return sum(psutil.Process(pid).num_fds() for pid in pids)


def tree(ameyo_url: str = "http://127.0.0.1:9", **server: Any) -> dict[str, Any]:
    """A configuration of one workspace."""
    return {
        "server": {"switches": ["127.0.0.1/32"], "workers": 1, **server},
        "workspaces": {
            WORKSPACE: {
                "name": "acme",
                "sources": ["127.0.0.1"],
                "bot": {
                    "url": "wss://bot.example.com/",
                    "connect_timeout": "60s",
                    "headers": {"Authorization": "Bearer secret-of-the-bot"},
                },
                "ameyo": {
                    "url": ameyo_url,
                    "tenant_host": "acme.ameyo.app",
                    "token": "secret-of-ameyo",
                    "insecure": True,
                },
            }
        },
    }
