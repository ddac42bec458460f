"""The load generator of ``benchmarks/esl`` measures what it says, and counts what is lost."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.esl.generator import HERE, Generator, GeneratorError, build
from eslbot.sim.addresses import free_port
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
    return Generator(folder, 0, free_port(), free_port())


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


def test_a_stream_with_an_identity_is_a_relays(folder: Path) -> None:
    """Who asks for one is told by news; and the generator answers whoever asks where the call is prepared."""
    relay_port = free_port()
    prepared = seen = b""

    def conversation(connection: socket.socket) -> None:
        nonlocal prepared, seen
        with socket.create_connection(("127.0.0.1", relay_port), 5) as relay:
            relay.sendall(b"GET /prepare HTTP/1.1\r\n\r\n")
            while not prepared.endswith(b"/"):
                prepared += relay.recv(4096)
        for command in (
            "event plain CUSTOM mod_audio_stream::json",
            'api uuid_setvar u STREAM_EXTRA_HEADERS {"X-Eslbot-Identity":"token"}',
            "api uuid_audio_stream u start ws://127.0.0.1:9/ mono 8000",
        ):
            connection.sendall(f"{command}\n\n".encode())
        while b'"news":"done"' not in seen:
            seen += connection.recv(65536)

    with controller(conversation) as port:
        Generator(folder, 0, free_port(), relay_port).run("burst", port, calls=1, talk=5)
    own = f"ws://127.0.0.1:{relay_port}/"
    assert prepared.endswith(f"\r\n\r\n{own}".encode())
    news = [json.loads(text) for text in re.findall(rb'\n(\{"news".*\})', seen)]
    assert [text["news"] for text in news] == ["state", "connected", "ended", "done"]
    assert (news[0]["url"], news[0]["bot"]) == (own, "connected")


# -- Ameyo ------------------------------------------------------------------------------------------------


def notify(port: int) -> int | None:
    """Notify of the first call, once; the answer's status, None where there was none."""
    body = b'{"uniqueId": "d444-0-0"}'
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.settimeout(5)
            connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            answer = connection.recv(4096)
    except OSError:
        return None
    return int(answer.split()[1]) if answer else None


def patient_controller(ameyo_port: int, statuses: list[int | None]) -> Callable[[socket.socket], None]:
    """Notifies of its call until that is accepted, and holds it then."""

    def conversation(connection: socket.socket) -> None:
        connection.sendall(
            b"connect\n\nevent plain CHANNEL_HANGUP_COMPLETE CUSTOM mod_audio_stream::json\n\n"
            b"sendmsg\ncall-command: execute\nexecute-app-name: answer\n\n"
            b"api uuid_audio_stream u start ws://127.0.0.1:9/ mono 8000\n\n"
        )
        seen = b""
        while b'"type": "end"' not in seen:
            seen += connection.recv(65536)
        while 200 not in statuses:
            number = b"%d" % (len(statuses) + 1)
            connection.sendall(b"api uuid_setvar u eslbot_attempts " + number + b"\n\n")
            statuses.append(notify(ameyo_port))
        connection.sendall(b"api uuid_setvar u eslbot_stage held\n\n")
        while b"CHANNEL_HANGUP_COMPLETE\n" not in seen:
            seen += connection.recv(65536)

    return conversation


@pytest.mark.parametrize("away, while_away", [("refused", None), ("hanging", None), ("503", 503)])
def test_a_storm_ends_when_ameyo_is_back_and_everything_is_counted(
    folder: Path, away: str, while_away: int | None
) -> None:
    ameyo_port = free_port()
    generator = Generator(folder, 0, ameyo_port, free_port())
    statuses: list[int | None] = []
    with controller(patient_controller(ameyo_port, statuses)) as port:
        result = generator.run("storm", port, calls=1, rate=100, talk=5, away=away, down=0.3, seconds=10)
    assert set(statuses[:-1]) == {while_away}
    assert statuses[-1] == 200
    assert result["accepted"] == {"once": 1, "again": 0, "never": 0}
    assert (result["completed"], sum(result["lost"].values())) == (1, 0)
    assert sum(result["attempts_by_slot"]) == len(statuses)
    assert sum(result["accepted_by_slot"]) == 1
    # The kernel refuses: nobody sees those.
    assert sum(result["posts_by_slot"]) == (1 if away == "refused" else len(statuses))
    assert result["back_after"] >= result["waiting_after"] + 0.3
    assert result["all_taken_after"] >= result["back_after"]


def test_calls_that_ameyo_never_hears_of_are_told(folder: Path, yardstick: int) -> None:
    generator = Generator(folder, 0, free_port(), free_port())
    result = generator.run(
        "storm", yardstick, calls=3, rate=100, talk=5, away="503", down=0.1, seconds=0.2, fresh=50
    )
    assert result["accepted"] == {"once": 0, "again": 0, "never": 3}
    assert result["all_taken_after"] == -1
    assert result["fresh"] == result["fresh_answered"] == result["started"] - 3 > 0


def test_when_a_paced_calls_bot_ended_is_told_for_an_ameyo_elsewhere(
    generator: Generator, yardstick: int
) -> None:
    began = time.time()
    result = generator.run("paced", yardstick, rate=100, seconds=0.1, talk=5)
    assert len({crt for crt, _ in result["ends"]}) == len(result["ends"]) == result["completed"]
    assert all(began < at < time.time() for _, at in result["ends"])
    assert len(result["answer_ms_all"]) == result["answer_ms"]["n"] == result["completed"]


@pytest.mark.parametrize("options", [{"away": "503"}, {"away": "asleep", "seconds": 1}])
def test_a_storm_needs_an_ameyo_that_is_away_in_a_known_way(
    generator: Generator, options: dict[str, Any]
) -> None:
    with pytest.raises(GeneratorError, match="away"):
        generator.run("burst", free_port(), calls=1, **options)
