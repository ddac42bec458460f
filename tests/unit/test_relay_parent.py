"""The relay's parent: what it forks, whom it tells what, and what becomes of calls meanwhile."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from click.testing import CliRunner
from structlog.testing import capture_logs

from eslbot.caller.identity import Signer
from eslbot.caller.invite import Invite
from eslbot.cli import main
from eslbot.config import ConfigError, Workspace, former_tenants
from eslbot.config.schemas.workspace import WorkspaceSchema
from eslbot.relay import control
from eslbot.relay import parent as process
from eslbot.relay.parent import Generation, Parent, make_directory
from eslbot.sim.processes import children, is_alive
from tests.support.relays import ACME, configuration, parts
from tests.unit.test_relay_dialler import frame
from tests.unit.test_relay_stream_server import UPGRADE

ROOT = Path(__file__).parents[2]
KEY = b"k" * 32
SOON = 10.0


def until(true: Callable[[], Any], what: Callable[[], str] = str) -> Any:
    deadline = time.monotonic() + SOON
    while not (value := true()):
        assert time.monotonic() < deadline, what()
        time.sleep(0.005)
    return value


class Stream:
    """The module's side of a stream."""

    def __init__(self, port: int, call_id: str) -> None:
        invite = Invite(call_id, "00919990152080", "CRT-1", ACME, "203.0.113.10", "caller", "called")
        self.socket = socket.create_connection(("127.0.0.1", port), SOON)
        lines = [
            *[
                "GET / HTTP/1.1",
                "Host: relay",
                *UPGRADE,
                f"{control.PART}: new",
                f"{control.CALL}: {call_id}",
            ],
            *[f"{control.IDENTITY}: {Signer([KEY]).sign(invite)}", "", ""],
        ]
        self.socket.sendall("\r\n".join(lines).encode())
        self.file = self.socket.makefile("rb")
        head = self.file.readline()
        assert b" 101 " in head, head
        while self.file.readline() != b"\r\n":
            pass
        pid, self.workspace, self.url = self.read().split()
        self.pid = int(pid)

    def read(self) -> str:
        size = self.file.read(2)[1]
        return self.file.read(size).decode("utf-8", "replace")

    def says(self, text: str) -> None:
        self.socket.sendall(frame(text.encode(), 1, masked=True))

    def answers(self) -> bool:
        self.says("hello")
        return self.read() == "hello"

    def close(self) -> None:
        self.socket.sendall(frame(struct.pack("!H", 1000), 8, masked=True))
        self.file.read()
        self.socket.close()


class Relay:
    """A parent in a process of its own."""

    def __init__(self, folder: Path, *, processes: int = 1, drain: float | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder, self.file, self.log_file = folder, folder / "eslbot.toml", folder / "log"
        (folder / "identity.key").touch(0o600)
        (folder / "identity.key").write_text(f"{KEY.hex()}\n")
        self.metrics = folder / "metrics"
        self.metrics.mkdir()
        self.write(processes=processes)
        self.lifeline, writing = os.pipe()
        self.starter: int | None = writing
        command = [sys.executable, "-m", "tests.support.relays", str(self.file)]
        command += [str(drain)] if drain is not None else []
        self.process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=self.lifeline,
            stderr=self.log_file.open("wb"),
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(self.metrics)},
        )
        os.close(self.lifeline)
        until(lambda: len(self.events("relay_ready")) == processes, self.log)

    def write(self, **how: Any) -> None:
        self.file.write_text(tomli_w.dumps(configuration(self.folder, self.port, **how)))

    def log(self) -> str:
        return self.log_file.read_text()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self.log().splitlines() if line.endswith("}"))
        return [line for line in lines if line["event"] == name]

    def wait_for(self, name: str, count: int = 1) -> None:
        until(lambda: len(self.events(name)) >= count, self.log)

    def relays(self) -> list[int]:
        return children(self.process.pid)

    def stream(self, call_id: str = "call-1") -> Stream:
        return Stream(self.port, call_id)

    def tell(self, signum: signal.Signals) -> None:
        self.process.send_signal(signum)

    def ends(self) -> int:
        return self.process.wait(SOON)

    def lose_starter(self) -> None:
        assert self.starter is not None
        os.close(self.starter)
        self.starter = None

    def finish(self) -> None:
        if self.starter is not None:
            self.lose_starter()
        left = [self.process.pid, *self.relays()]
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(SOON)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Relay]]:
    started: list[Relay] = []

    def make(**how: Any) -> Relay:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Relay(folder, **how))
        return started[-1]

    yield make
    for relay in started:
        relay.finish()


@pytest.mark.timed
def test_a_relay_that_dies_is_replaced_at_once_and_its_figures_stay(start: Callable[..., Relay]) -> None:
    relay = start()
    (first,) = relay.relays()
    assert relay.stream().pid == first
    kept = counters(relay)
    assert kept
    os.kill(first, signal.SIGKILL)
    began = time.monotonic()
    stream = until(lambda: accepted(relay), relay.log)
    assert time.monotonic() - began < 1.0
    assert stream.pid != first
    (died,) = relay.events("relay_died")
    assert (died["pid"], died["status"]) == (first, "signal 9")
    assert counters(relay) == kept, "it goes on in the files of the one before"


def counters(relay: Relay) -> set[str]:
    """The files that processes count in."""
    return {path.name for path in relay.metrics.glob("counter_*.db")}


def accepted(relay: Relay) -> Stream | None:
    try:
        return relay.stream()
    except (ConnectionError, AssertionError, IndexError):  # it was still in the dead one's hands
        return None


def test_a_relay_that_dies_again_and_again_is_started_more_and_more_seldom(
    start: Callable[..., Relay],
) -> None:
    relay = start()
    for number in range(4):
        until(lambda: accepted(relay), relay.log).says("die")
        relay.wait_for("relay_died", number + 1)
    times = [line["timestamp"] for line in relay.events("relay_ready")]
    deaths = [line["timestamp"] for line in relay.events("relay_died")]
    waits = [seconds(ready) - seconds(died) for died, ready in zip(deaths, times[1:], strict=False)]
    assert max(waits[:2]) < 0.2 <= waits[2], waits
    assert relay.events("relay_died")[0]["status"] == "exit code 3"


def seconds(timestamp: str) -> float:
    hours, minutes, rest = timestamp.partition("T")[2].rstrip("Z").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(rest)


def test_a_hup_brings_new_relays_and_the_old_stay_with_their_calls(start: Callable[..., Relay]) -> None:
    relay = start(processes=2)
    old = set(relay.relays())
    stream = relay.stream()
    relay.write(processes=1, name="other")
    relay.tell(signal.SIGHUP)
    relay.wait_for("relay_reloaded")
    until(lambda: len(relay.relays()) == 2, relay.log)
    (new,) = set(relay.relays()) - old
    assert stream.answers()
    for number in range(10):
        newcomer = relay.stream(f"new-{number}")
        assert (newcomer.pid, newcomer.workspace) == (new, "other")
    stream.close()
    until(lambda: relay.relays() == [new], relay.log)
    assert not relay.events("relay_died")


def test_a_call_of_a_tenant_that_was_removed_finds_its_bot_at_the_next_relay(
    start: Callable[..., Relay],
) -> None:
    relay = start()
    (first,) = relay.relays()
    assert relay.stream().workspace == "acme"
    tree = configuration(relay.folder, relay.port)
    removed = tree["workspaces"].pop(ACME)
    tree["workspaces"]["11111111-1111-4111-8111-111111111111"] = {**removed, "name": "other"}
    relay.file.write_text(tomli_w.dumps(tree))
    for reloads in (1, 2):
        relay.tell(signal.SIGHUP)
        relay.wait_for("relay_reloaded", reloads)
        relay.wait_for("relay_leaves", reloads)
        again = until(lambda: accepted(relay), relay.log)
        assert again.workspace == "acme" and again.pid != first
    again.says("die")
    assert until(lambda: accepted(relay), relay.log).workspace == "acme"
    assert {line["why"] for line in relay.events("stream_refused")} <= {"leaving"}
    # Another parent knows what the service has left, and nothing else.
    relay.finish()
    tenants = relay.folder / "tenants"
    assert not tenants.exists(), "the arbiter's to write"
    former_tenants.write(tenants, [Workspace(id=ACME, **WorkspaceSchema().load(removed))])
    other = start()
    tree["relay"]["listen"] = f"127.0.0.1:{other.port}"
    other.file.write_text(tomli_w.dumps({**tree, "server": {"key_file": str(relay.folder / "identity.key")}}))
    other.tell(signal.SIGHUP)
    other.wait_for("relay_reloaded")
    other.wait_for("relay_leaves")
    assert until(lambda: accepted(other), other.log).workspace == "acme"


def test_a_configuration_that_cannot_be_used_leaves_everything_as_it_was(start: Callable[..., Relay]) -> None:
    relay = start()
    before = relay.relays()
    (relay.folder / "identity.key").rename(relay.folder / "gone.key")
    relay.tell(signal.SIGHUP)
    relay.wait_for("configuration_refused")
    assert "server.key_file" in relay.events("configuration_refused")[0]["problems"][0]
    relay.file.write_text("[relay]\nprocesses = 100\n")
    relay.tell(signal.SIGHUP)
    relay.wait_for("configuration_refused", 2)
    assert relay.relays() == before and relay.stream().answers()


def test_another_place_is_listened_at_and_the_old_one_given_up(start: Callable[..., Relay]) -> None:
    relay = start()
    old_port = relay.port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        relay.port = probe.getsockname()[1]
    relay.write()
    relay.tell(signal.SIGHUP)
    relay.wait_for("relay_reloaded")
    assert relay.stream().answers()
    until(lambda: refused(old_port), relay.log)


def refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), SOON).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("by", ["signal", "starter"])
def test_told_to_end_it_takes_no_more_and_ends_behind_its_last_call(
    start: Callable[..., Relay], by: str
) -> None:
    relay = start(processes=2)
    stream = relay.stream()
    if by == "signal":
        relay.tell(signal.SIGTERM)
    else:
        relay.lose_starter()
    until(lambda: refused(relay.port), relay.log)
    until(lambda: len(relay.relays()) == 1, relay.log)
    assert stream.answers() and relay.process.poll() is None
    stream.close()
    assert relay.ends() == 0


def test_while_one_relay_leaves_another_has_its_place(start: Callable[..., Relay]) -> None:
    first = start()
    stream = first.stream()
    second = start()
    second.port = first.port
    second.write()
    second.tell(signal.SIGHUP)
    second.wait_for("relay_reloaded")
    first.tell(signal.SIGTERM)
    first.wait_for("relay_leaves")
    for number in range(10):
        assert second.stream(f"new-{number}").pid in second.relays()
    assert stream.answers()


@pytest.mark.parametrize("signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT,)])
def test_a_second_signal_ends_it_at_once(
    start: Callable[..., Relay], signals: tuple[signal.Signals, ...]
) -> None:
    relay = start()
    stream = relay.stream()
    for signum in signals:
        relay.tell(signum)
        if signum is signal.SIGTERM:
            relay.wait_for("relay_leaves")
    assert relay.ends() == 0
    assert stream.file.read(4) == b"\x88\x02" + struct.pack("!H", 1001), "the call was told"


def test_an_arbiter_that_is_gone_is_no_signal(start: Callable[..., Relay]) -> None:
    relay = start()
    stream = relay.stream()
    relay.lose_starter()
    relay.wait_for("relay_leaves")
    relay.tell(signal.SIGTERM)
    assert all(stream.answers() for _ in range(200)), "one signal lets its calls end"
    relay.tell(signal.SIGTERM)
    assert relay.ends() == 0
    assert stream.file.read(4) == b"\x88\x02" + struct.pack("!H", 1001)


def test_calls_have_so_long_and_no_longer(start: Callable[..., Relay]) -> None:
    relay = start(drain=0.3)
    relay.stream()
    relay.tell(signal.SIGTERM)
    assert relay.ends() == 0


def test_relays_whose_parent_was_killed_stay_with_their_calls(start: Callable[..., Relay]) -> None:
    relay = start()
    stream = relay.stream()
    relay.tell(signal.SIGKILL)
    relay.ends()
    until(lambda: refused(relay.port), relay.log)
    assert stream.answers()
    stream.close()
    until(lambda: not is_alive(stream.pid), relay.log)


def test_a_hung_relay_is_killed_at_the_end(start: Callable[..., Relay]) -> None:
    relay = start()
    (pid,) = relay.relays()
    os.kill(pid, signal.SIGSTOP)
    relay.tell(signal.SIGQUIT)
    assert relay.ends() == 0
    assert not is_alive(pid)


# -- the directory, and the command -----------------------------------------------------------------------


def test_where_no_process_is_free_it_is_tried_again_and_nobody_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process.os, "fork", full)
    monkeypatch.setattr(process.gc, "freeze", lambda: None)
    parent = Parent(Path("eslbot.toml"), parts())
    generation = Generation(None, None, None, processes=1, drain=0.0)  # type: ignore[arg-type]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with capture_logs() as told:
        parent._fork(generation)
    assert [line["event"] for line in told] == ["relay_not_started"]
    assert not generation.relays and parent._not_before > time.monotonic()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked


def test_the_directory_is_made_for_its_owner_and_its_group(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "lines"
    make_directory(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o750
    directory.chmod(0o2777)
    make_directory(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o2750, "files go on to be the group's"
    assert list(directory.iterdir()) == []


def test_a_directory_that_cannot_be_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as error:
        make_directory(tmp_path / "file" / "lines")
    (problem,) = error.value.problems
    assert problem.startswith("relay.directory: ") and "install -d -m 2750" in problem


def test_the_command_says_what_is_wrong_and_ends_with_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    file = tmp_path / "eslbot.toml"
    tree = configuration(tmp_path, 1)
    tree["relay"]["directory"] = str(tmp_path / "file" / "lines")
    file.write_text(tomli_w.dumps(tree))
    result = subprocess.run(
        [sys.executable, "-m", "eslbot", "relay", "--config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 2, result.stderr
    assert "relay.directory: " in result.stderr
    assert CliRunner().invoke(main, ["relay", "--config", str(file), "--processes", "0"]).exit_code == 2
