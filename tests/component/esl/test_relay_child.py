"""``eslbot serve`` has a relay beside its workers: started, told of a HUP, left to its calls."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

from eslbot.relay.control import HEALTH
from eslbot.sim.addresses import free_port
from eslbot.sim.processes import children, is_alive, relays
from tests.support.processes import EslbotService, tree, until

SOON = "import eslbot.runtime.children as c\nc.AGAIN = 0.2"


class ServiceWithRelay(EslbotService):
    """One of whose children is the relay's parent."""

    def __init__(self, folder: Path, processes: int = 1) -> None:
        self.relay_port = free_port()
        relay = {
            "listen": f"127.0.0.1:{self.relay_port}",
            "directory": str(folder / "lines"),
            "processes": processes,
        }
        super().__init__(folder, {**tree(), "relay": relay}, "--log", "json", before=SOON)

    def relay(self) -> int | None:
        return next((pid for pid in children(self.process.pid) if relays(pid)), None)

    def pids(self) -> list[int]:
        relay = self.relay()
        return [*super().pids(), *(children(relay) if relay else [])]

    def ready(self) -> bool:
        return super().ready() and self.takes_streams()

    def takes_streams(self) -> bool:
        """Whether a relay answers."""
        try:
            return self.asks(HEALTH).startswith(b"HTTP/1.1 200 ")
        except OSError:
            return False

    def asks(self, path: str) -> bytes:
        """The beginning of a relay's answer. Raises OSError."""
        with socket.create_connection(("127.0.0.1", self.relay_port), 5) as stream:
            stream.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
            return stream.recv(100)

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def metric(self, name: str) -> float:
        text = self.get("/metrics")[2]
        return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def test_a_service_has_its_relay_and_ends_with_it(tmp_path: Path) -> None:
    with ServiceWithRelay(tmp_path, processes=2) as service:
        parent = service.relay()
        assert parent is not None
        assert len(children(parent)) == 2
        assert service.metric("eslbot_relay_wanted") == 2
        until(lambda: service.metric("eslbot_relay_ready") == 2, what="the second relay")
        refused = 'eslbot_relay_refused_total{why="no_identity"}'
        assert service.metric(refused) == 0, "to look whether it is there is no refusal"
        assert service.asks("/").startswith(b"HTTP/1.1 403 ")
        assert service.metric(refused) == 1
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(10) == 0
        until(lambda: not is_alive(parent), what=service.log)
    assert not service.events("relay_died")


def test_a_relay_whose_parent_dies_is_started_again(tmp_path: Path) -> None:
    with ServiceWithRelay(tmp_path) as service:
        first = service.relay()
        assert first is not None
        (orphan,) = children(first)
        os.kill(first, signal.SIGKILL)
        until(lambda: service.relay() not in (None, first), what=service.log)
        until(lambda: not is_alive(orphan), what=service.log)  # it has no calls to stay for
        until(service.takes_streams, what=service.log)
        assert service.events("relay_died")[0]["pid"] == first


def none_wanted(service: ServiceWithRelay) -> bool:
    try:
        return service.metric("eslbot_relay_wanted") == 0
    except ConnectionError:  # a worker that leaves at this moment closes its web connections, too
        return False


def test_a_hup_is_the_relays_too_and_it_may_be_taken_away(tmp_path: Path) -> None:
    with ServiceWithRelay(tmp_path) as service:
        parent = service.relay()
        assert parent is not None
        (old,) = children(parent)
        service.process.send_signal(signal.SIGHUP)
        until(lambda: service.events("relay_reloaded") and not is_alive(old), what=service.log)
        assert service.relay() == parent and service.takes_streams()
        service.tree["relay"]["processes"] = 0
        service.write(service.tree)
        service.process.send_signal(signal.SIGHUP)
        until(lambda: service.relay() is None, what=service.log)
        until(lambda: none_wanted(service), what=service.log)
        assert not service.events("relay_died")


def test_a_relay_whose_arbiter_is_killed_goes_by_itself(tmp_path: Path) -> None:
    with ServiceWithRelay(tmp_path) as service:
        parent = service.relay()
        assert parent is not None
        os.kill(service.process.pid, signal.SIGKILL)
        service.process.wait(10)
        until(lambda: not is_alive(parent), what=service.log)
        assert service.events("arbiter_lost")
