"""One relay process: which calls it takes, how it leaves, and whose files it sweeps."""

from __future__ import annotations

import asyncio
import mmap
import os
import signal
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from eslbot.caller.invite import Invite
from eslbot.config.loader import from_tree
from eslbot.relay import control, worker
from eslbot.relay.stream_server import StreamRefused
from eslbot.relay.worker import ACCEPTING, LEAVING, Worker, shared_socket, sweep
from tests.support.relays import ACME, EchoCall, configuration, parts
from tests.unit.test_relay_stream_server import SIGNER, UPGRADE, Caller, identity

SOON = 5.0


def invite(call_id: str = "call-1", workspace: str = ACME) -> Invite:
    return Invite(call_id, "00919990152080", "CRT-1", workspace, "203.0.113.10", "caller", "called")


class Running:
    """A worker in this process."""

    def __init__(self, folder: Path, *, call: Any = EchoCall, drain: float = 60.0) -> None:
        listening = shared_socket("127.0.0.1", 0)
        self.port = listening.getsockname()[1]
        config = from_tree(configuration(folder, self.port), {})
        (folder / "lines").mkdir(exist_ok=True)
        self.state = mmap.mmap(-1, 1)
        self.lifeline, self.parent = os.pipe()
        self.worker = Worker(config, SIGNER, listening, self.state, self.lifeline, drain, parts(call))

    async def __aenter__(self) -> Running:
        self.task = asyncio.create_task(self.worker.run())
        while self.state[0] != ACCEPTING:
            await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.worker.end()
        await asyncio.wait_for(self.task, SOON)

    async def stream(self, call_id: str = "call-1", port: int | None = None) -> tuple[Caller, str]:
        caller = await ask(port or self.port, *UPGRADE, *identity(invite(call_id)), f"{control.PART}: new")
        assert b" 101 " in await caller.head()
        opcode, text = await caller.frame()
        assert opcode == 1
        return caller, text.decode()


async def ask(port: int, *lines: str, path: str = "/") -> Caller:
    caller = Caller(*await asyncio.open_connection("127.0.0.1", port))
    caller.writer.write("\r\n".join([f"GET {path} HTTP/1.1", "Host: relay", *lines, "", ""]).encode())
    return caller


def run(folder: Path, story: Callable[[Running], Awaitable[None]], **how: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), Running(folder, **how) as running:
            await story(running)

    asyncio.run(main())


def port_of(url: str) -> int:
    return int(url.rstrip("/").rpartition(":")[2])


def test_a_prepared_call_gets_its_stream_at_the_workers_own_door(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        caller = await ask(running.port, *identity(invite()), path="/prepare")
        assert b" 200 " in await caller.head()
        url = (await caller.rest()).decode()
        assert url == running.worker.url and port_of(url) != running.port
        _, text = await running.stream(port=port_of(url))
        assert text == f"{os.getpid()} acme {url}"
        (call,) = running.worker.calls.values()
        assert isinstance(call, EchoCall) and call.told == ["prepare", "open_line 20", "stream_up"]

    run(tmp_path, story)


def test_calls_that_are_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(running: Running) -> None:
        def refused(given: Invite) -> tuple[int, str]:
            with pytest.raises(StreamRefused) as not_taken:
                running.worker.find_or_make(given)
            return not_taken.value.status, not_taken.value.why

        assert refused(invite(workspace="00000000-0000-4000-8000-000000000009")) == (403, "unknown_workspace")
        assert running.worker.find_or_make(invite()) is running.worker.find_or_make(invite())
        monkeypatch.setattr(worker, "MAX_CALLS", 1)
        assert refused(invite("call-2")) == (503, "full")
        assert running.worker.find_or_make(invite()) is not None

    run(tmp_path, story)


def test_a_call_that_never_gets_its_stream_is_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STREAM_TIMEOUT", 0.05)

    async def story(running: Running) -> None:
        await running.stream("call-2")
        dropped = running.worker.find_or_make(invite())
        while "call-1" in running.worker.calls:
            await asyncio.sleep(0.01)
        assert isinstance(dropped, EchoCall) and dropped.told == ["stream_gone True"]
        assert list(running.worker.calls) == ["call-2"], "who has a stream stays"

    run(tmp_path, story)


@pytest.mark.parametrize("by", ["signal", "parent"])
def test_who_leaves_takes_no_more_and_stays_with_its_calls(tmp_path: Path, by: str) -> None:
    async def story(running: Running) -> None:
        _, text = await running.stream()
        if by == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            os.close(running.parent)
        while running.state[0] != LEAVING:
            await asyncio.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", running.port)
        await running.stream(
            "call-1", port_of(text.split()[2])
        )  # its own socket stays: a stream may come again
        await running.stream("call-1", port_of(text.split()[2]))
        assert not running.task.done()
        port = port_of(text.split()[2])
        late = await ask(port, *UPGRADE, *identity(invite("call-2")), f"{control.PART}: new")
        assert b" 503 " in await late.head(), "another relay may have it by now, and would lose it"
        last, _ = await running.stream("call-1", port_of(text.split()[2]))
        last.send(struct.pack("!H", 1000), 8)
        await asyncio.wait_for(asyncio.shield(running.task), SOON)

    run(tmp_path, story)


def test_who_has_no_calls_leaves_at_once(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        running.worker.leave()
        await asyncio.wait_for(asyncio.shield(running.task), SOON)

    run(tmp_path, story)


def test_calls_have_so_long_and_then_are_told(tmp_path: Path) -> None:
    async def story(running: Running) -> None:
        caller, _ = await running.stream()
        (call,) = running.worker.calls.values()
        running.worker.leave()
        await asyncio.wait_for(asyncio.shield(running.task), SOON)
        assert isinstance(call, EchoCall) and call.told == ["open_line 20", "stream_up", "shutdown"]
        assert await caller.frame() == (8, struct.pack("!H", 1001))

    run(tmp_path, story, drain=0.05)


# -- files ------------------------------------------------------------------------------------------------


def test_files_that_nobody_has_touched_for_two_minutes_are_swept(tmp_path: Path) -> None:
    now = 1_000_000.0
    ages = {
        **{f"old{suffix}": 121.0 for suffix in worker.SUFFIXES},
        **{f"ours{suffix}": 121.0 for suffix in worker.SUFFIXES},
        "ours.7.a.r8": 121.0,
        **{f"young{suffix}": 119.0 for suffix in worker.SUFFIXES},
        "notes.txt": 9999.0,
    }
    for name, age in ages.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / "link.line").symlink_to(tmp_path / "notes.txt")
    os.utime(tmp_path / "link.line", (now - 121, now - 121), follow_symlinks=False)
    with capture_logs() as lines:
        sweep(tmp_path, ["ours", "without-files"], now)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {name for name in ages if not name.startswith("old")}
    assert all(path.stat().st_mtime == now for path in tmp_path.glob("ours.*"))
    assert len(lines) == 4


def test_two_relays_listen_at_one_place() -> None:
    with shared_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with shared_socket("127.0.0.1", port) as second:
            assert second.getsockname() == first.getsockname()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
