"""The load generator of ``benchmarks/esl`` measures what it says, and counts what is lost."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks.esl.generator import HERE, Generator, GeneratorError, build
from eslbot.sim.lab import free_port
from eslbot.sim.processes import serves
from tests.support.processes import until

pytestmark = pytest.mark.skipif(
    not shutil.which("cc") or not shutil.which("taskset"),
    reason="no C compiler or no taskset here",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("load")


@pytest.fixture(scope="module")
def generator(folder: Path) -> Generator:
    return Generator(folder, 0, free_port())


@pytest.fixture(scope="module")
def yardstick(folder: Path) -> Iterator[int]:
    port = free_port()
    program = build(HERE / "controllers" / "yardstick.c", folder)
    with subprocess.Popen([program, str(port)]) as process:
        until(lambda: serves(process.pid, ("127.0.0.1", port)))
        yield port
        process.kill()


@contextmanager
def controller(conversation: Callable[[socket.socket], None]) -> Iterator[int]:
    """Has ``conversation`` with one call."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                conversation(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(5)


@pytest.mark.parametrize("mode", ["burst", "paced", "throughput", "hold"])
def test_a_controller_that_tells_the_whole_story_loses_nothing(
    generator: Generator, yardstick: int, mode: str
) -> None:
    held = []
    result = generator.run(
        mode, yardstick, lambda: held.append(True), calls=20, rate=100, seconds=0.3, talk=5, patience=5
    )
    assert result["completed"] == result["started"] == result["held"] >= 20
    assert set(result["lost"].values()) == {0}
    assert (result["commands_per_call"], result["events_per_call"]) == (7, 6)
    assert 30 < result["kb_to_controller_per_call"] < 60
    assert result["end_to_marker_ms"]["n"] == result["completed"]
    assert held == [True] * (mode == "hold")


def test_a_controller_that_is_not_there_is_told(generator: Generator) -> None:
    result = generator.run("burst", free_port(), calls=3)
    assert (result["lost"]["refused"], result["completed"]) == (3, 0)


def test_a_controller_that_closes_has_lost_the_call(generator: Generator) -> None:
    with controller(lambda connection: connection.sendall(b"connect\n\n")) as port:
        result = generator.run("burst", port, calls=1)
    assert (sum(result["lost"].values()), result["completed"]) == (1, 0)


def test_a_controller_that_says_nothing_is_given_up(generator: Generator) -> None:
    with controller(lambda connection: connection.recv(1)) as port:
        result = generator.run("burst", port, calls=1, patience=0.2)
    assert (result["lost"]["silent"], result["completed"]) == (1, 0)


def test_what_nobody_plays_is_no_result(generator: Generator) -> None:
    with (
        controller(lambda connection: connection.sendall(b"api reloadxml\n\n")) as port,
        pytest.raises(GeneratorError, match="nobody plays: reloadxml"),
    ):
        generator.run("burst", port, calls=1)


def test_events_follow_what_the_controller_sets(generator: Generator) -> None:
    seen = b""

    def conversation(connection: socket.socket) -> None:
        nonlocal seen
        for command in (
            "api uuid_setvar_multi u switch_r_sdp=;eslbot_x=1",
            "api uuid_setvar u eslbot_y a\\sb",
            "event plain CHANNEL_EXECUTE_COMPLETE",
            "sendmsg\ncall-command: execute\nexecute-app-name: answer\nEvent-UUID: e-1",
        ):
            connection.sendall(f"{command}\n\n".encode())
        while b"Application-UUID: e-1\n\n" not in seen:
            seen += connection.recv(65536)

    with controller(conversation) as port:
        generator.run("burst", port, calls=1)
    head, _, event = seen.partition(b"Content-Type: text/event-plain\n\n")
    assert int(head.rpartition(b"Content-Length: ")[2]) == len(event)
    lines = event.decode().split("\n")
    assert {"Event-Name: CHANNEL_EXECUTE_COMPLETE", "variable_eslbot_x: 1", "Answer-State: answered"} <= set(
        lines
    )
    assert "variable_eslbot_y: a%20b" in lines
    assert not any(line.startswith("variable_switch_r_sdp") for line in lines)
