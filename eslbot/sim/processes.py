"""What Linux tells about other processes: who has started whom, who serves which port; and their end."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from itertools import pairwise
from pathlib import Path

import psutil

#: Seconds between TERM and KILL.
STOP_LIMIT = 15.0


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started and that are still there; none where it is gone itself."""
    # Of proc(5) itself: psutil walks all processes of the machine, a hundred times dearer, and this is asked
    # every ten milliseconds while a service starts.
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [child for child in map(int, text.split()) if is_alive(child)]


def descendants(pid: int) -> list[int]:
    """The same with what those have started, and so on."""
    return [one for child in children(pid) for one in (child, *descendants(child))]


def tells(pid: int) -> bool:
    """Whether it is a service's page process, which is a child beside the workers."""
    return _runs(pid, "page")


def relays(pid: int) -> bool:
    """Whether it is a service's relay, another child beside the workers, or one of that."""
    return _runs(pid, "relay")


def _runs(pid: int, command: str) -> bool:
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    return any(pair == (command, "--config") for pair in pairwise(words))


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has reaped yet does not."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def serves(pid: int, address: tuple[str, int]) -> bool:
    """Whether a process waits for connections to ``address`` now: its epoll watches the listening socket.

    A forked worker inherits the socket long before it serves; this is when it does.
    """
    try:
        own = psutil.Process(pid).net_connections("tcp4")
    except psutil.Error:
        return False
    listening = {
        at.fd
        for at in own
        if at.status == psutil.CONN_LISTEN and at.laddr.port == address[1]
        if at.laddr.ip in (address[0], "0.0.0.0")
    }
    return bool(listening) and any(listening & watched for watched in _watched(pid))


def _watched(pid: int) -> list[set[int]]:
    """The descriptors that each epoll of a process watches: proc(5), of which psutil knows nothing."""
    found = []
    with contextlib.suppress(OSError):  # it is going
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if str(link.readlink()) == "anon_inode:[eventpoll]":
                    info = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text()
                    found.append({int(fd) for fd in re.findall(r"^tfd:\s*(\d+)", info, re.M)})
    return found


def end_process(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL where that does not help in time."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_LIMIT)
