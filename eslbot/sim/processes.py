"""What Linux tells about other processes: children, open sockets, who serves which port (proc(5))."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

#: Socket states of ``/proc/net/tcp`` (``include/net/tcp_states.h``).
ESTABLISHED, CLOSE_WAIT, LISTEN = 0x01, 0x08, 0x0A


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """A line of ``/proc/net/tcp``: two addresses, the state and the inode (0 where nobody has it)."""

    local: tuple[str, int]
    remote: tuple[str, int]
    state: int
    inode: int


def children(pid: int) -> list[int]:
    """The processes that ``pid`` has started and that are still there; none where it is gone itself."""
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
    return _runs(pid, b"\0page\0--config\0")


def relays(pid: int) -> bool:
    """Whether it is a service's relay, another child beside the workers, or one of that."""
    return _runs(pid, b"\0relay\0--config\0")


def _runs(pid: int, command: bytes) -> bool:
    try:
        return command in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that nobody has reaped yet does not."""
    try:
        # Behind the name, which may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def tcp_sockets() -> list[TcpSocket]:
    """All IPv4 TCP sockets of this machine."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        found.append(TcpSocket(_address(fields[1]), _address(fields[2]), int(fields[3], 16), int(fields[9])))
    return found


def _address(text: str) -> tuple[str, int]:
    ip, port = text.split(":")
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(ip))), int(port, 16)


def sockets_of(pid: int) -> dict[int, int]:
    """The sockets a process has open: inode to descriptor; empty where it is gone."""
    return {
        int(target[8:-1]): number for number, target in _descriptors(pid) if target.startswith("socket:[")
    }


def serves(pid: int, address: tuple[str, int]) -> bool:
    """Whether a process waits for connections to ``address`` now: its epoll watches the listening socket.

    A forked worker inherits the socket long before it serves; this is when it does.
    """
    own = sockets_of(pid)
    listening = {
        own[s.inode]
        for s in tcp_sockets()
        if s.state == LISTEN and s.local[1] == address[1] and s.inode in own
        if s.local[0] in (address[0], "0.0.0.0")
    }
    for number, target in _descriptors(pid):
        if target == "anon_inode:[eventpoll]":
            with contextlib.suppress(OSError):  # it is going
                watched = Path(f"/proc/{pid}/fdinfo/{number}").read_text()
                if listening & {int(fd) for fd in re.findall(r"^tfd:\s*(\d+)", watched, re.M)}:
                    return True
    return False


def owner(pids: list[int], local: tuple[str, int], remote: tuple[str, int]) -> int | None:
    """Which of ``pids`` has the connection with these two ends; None where none has accepted it."""
    inodes = {s.inode for s in tcp_sockets() if s.local == local and s.remote == remote and s.inode}
    return next((pid for pid in pids if inodes & sockets_of(pid).keys()), None)


def _descriptors(pid: int) -> Iterator[tuple[int, str]]:
    try:
        links = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return
    for link in links:
        with contextlib.suppress(OSError):  # closed meanwhile
            yield int(link.name), str(link.readlink())
