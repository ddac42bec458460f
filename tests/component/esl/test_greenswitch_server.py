"""Each defect of greenswitch 0.0.19's server (DESIGN section 8): ours passes, the released one fails.

Both run as processes of their own. See :mod:`tests.component.esl.test_greenswitch_defects` for the session's.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import socket as std_socket
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from gevent import socket

from tests.support import wire
from tests.support.peer import bounded, eventually
from tests.support.processes import EslbotService, GreenswitchServer, ServerProcess, tree, until
from tests.support.switch import UUID


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ServerProcess]:
    made: ServerProcess
    if request.param == "eslbot":
        made = EslbotService(tmp_path, tree(max_calls=1))
    else:
        made = GreenswitchServer(tmp_path, max_connections=1)
    with made:
        yield made
        made.kill()


def defect(raises: Any = AssertionError) -> pytest.MarkDecorator:
    """Both servers; the released one fails, by ``raises``."""
    released = pytest.mark.xfail(strict=True, raises=raises, reason="greenswitch 0.0.19 as released")
    return pytest.mark.parametrize(
        "server", ["eslbot", pytest.param("greenswitch", marks=released)], indirect=True
    )


def greeted(sock: socket.socket) -> bool:
    with bounded(5):
        return bool(sock.recv(100).startswith(b"connect\n\n"))


@defect(ConnectionRefusedError)
def test_an_accept_that_fails_does_not_end_the_server(server: ServerProcess) -> None:
    pid = server.accepting()
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, hard))
    with ExitStack() as stack:
        for _ in range(40):  # a few fit into the gaps
            sock = server.connect()
            stack.callback(sock.close)
        until(lambda: "Too many open files" in server.log)
        if isinstance(server, GreenswitchServer):  # it writes that on its way out
            server.process.wait(5)
        else:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
        with server.connect() as late:
            assert greeted(late)


@pytest.mark.timed
@defect()
def test_a_call_is_taken_at_once(server: ServerProcess) -> None:
    seconds = []
    for _ in range(15):
        began = time.monotonic()
        with server.connect() as sock:
            assert greeted(sock)
        seconds.append(time.monotonic() - began)
    assert statistics.median(seconds) < 0.05


@defect()
def test_a_burst_of_calls_fits_into_the_backlog(server: ServerProcess) -> None:
    if int(Path("/proc/sys/net/core/somaxconn").read_text()) < 400:
        pytest.skip("this kernel's somaxconn is smaller than the burst")
    pids = server.pids()
    burst = [std_socket.socket() for _ in range(300)]
    poll = select.poll()
    for pid in pids:  # a server that is busy for a moment
        os.kill(pid, signal.SIGSTOP)
    try:
        for sock in burst:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", server.port))
            poll.register(sock, select.POLLOUT)
        connected: set[int] = set()
        deadline = time.monotonic() + 0.8  # the kernel tries a lost SYN again after 1 s
        while len(connected) < len(burst) and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in poll.poll(left * 1000):
                connected.add(descriptor)
                poll.unregister(descriptor)
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        for sock in burst:
            sock.close()
    assert len(connected) == len(burst)


@defect()
def test_calls_that_come_at_once_do_not_overshoot_the_cap(server: ServerProcess) -> None:
    with bounded(15):
        # Mute from the beginning: the first one may have its turn while the next one connects.
        calls = [server.call(uuid=f"{UUID[:-1]}{number}", mute=("connect", "getvar")) for number in range(3)]
        for call in calls:
            call.wait(lambda call=call: call.commands)
        for call in calls:
            call.mute = ()
            display = call.variables["sip_from_display"]
            call.peer.send(wire.reply("+OK", call.headers()) + wire.reply(display))
        for call in calls:
            call.wait(lambda call=call: any(name in ("answer", "respond") for name, _ in call.applications))
        assert sum(call.answered for call in calls) == 1
        for call in calls:
            call.lose_controller()


@defect(subprocess.TimeoutExpired)
def test_a_graceful_stop_ends_although_a_call_does_not(server: ServerProcess) -> None:
    with bounded(20):
        call = server.call()
        call.on_start = lambda number: None
        call.wait(lambda: call.answered)
        eventually(lambda: "stage answered" in call.story or isinstance(server, GreenswitchServer))
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(8 if isinstance(server, EslbotService) else 3)
    assert server.process.returncode == 0
    assert call.violations == []
